"""`detect models`: every detector in configs/ with its counts, beside Table 6 of the MobileNetV3 paper."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detect.config.model_section import read_classifier_section, read_model_section
from detect.errors import InputError
from detect.inspection.anchor_layout import without_auto
from detect.inspection.classifiers import classifiers_table, count_classifier, count_published
from detect.inspection.classifiers import to_json as classifier_json
from detect.inspection.counted import beside, built_of, json_head
from detect.inspection.network_table import network_table, table_json
from detect.model.checkpoint import build_detector
from detect.model.counts import PAPER_CLASSES, Counts, count
from detect.model.ssdlite import TAPS, SSDLite

PIPED_WIDTH = 150  # characters
PAPER_INPUT = (320, 320)


@dataclass(frozen=True)
class PaperRow:
    """A row of Table 6; figures as printed, for the printed digits are what a count is compared with."""

    row: str
    backbone: str
    reduced_tail: bool
    width: float
    mAP: str
    """On COCO test-dev, percent."""
    latency_ms: str
    """Pixel 1, one big core, TFLite."""
    params_m: str
    madds_b: str
    num_classes: int = PAPER_CLASSES
    """What the printed parameters were counted with."""

    @property
    def mAP_fraction(self) -> float:
        """The printed mAP as a fraction of one, as all metrics are shown."""
        return float(self.mAP) / 100


# "Searching for MobileNetV3" (arXiv 1905.02244), Table 6.
TABLE_6 = (
    PaperRow("V1", "mobilenet_v1", False, 1.0, "22.2", "228", "5.1", "1.3", num_classes=80),
    PaperRow("V2", "mobilenet_v2", False, 1.0, "22.1", "162", "4.3", "0.80", num_classes=80),
    PaperRow("MnasNet", "mnasnet_a1", False, 1.0, "23.0", "174", "4.88", "0.84"),
    PaperRow("V3", "mobilenet_v3_large", False, 1.0, "22.0", "137", "4.97", "0.62"),
    PaperRow("V3†", "mobilenet_v3_large", True, 1.0, "22.0", "119", "3.22", "0.51"),
    PaperRow("V2 0.35", "mobilenet_v2", False, 0.35, "13.7", "66", "0.93", "0.16"),
    PaperRow("V2 0.5", "mobilenet_v2", False, 0.5, "16.6", "79", "1.54", "0.27"),
    PaperRow("MnasNet 0.35", "mnasnet_a1", False, 0.35, "15.6", "68", "1.02", "0.18"),
    PaperRow("MnasNet 0.5", "mnasnet_a1", False, 0.5, "18.5", "85", "1.68", "0.29"),
    PaperRow("V3-Small", "mobilenet_v3_small", False, 1.0, "16.0", "52", "2.49", "0.21"),
    PaperRow("V3-Small†", "mobilenet_v3_small", True, 1.0, "16.1", "43", "1.77", "0.16"),
)


class Model(NamedTuple):
    """A detector of a config, counted."""

    config: Path
    net: SSDLite
    num_classes: int | None
    """Null where the config takes it from the data; the counts are then those of 90 classes."""
    counts: Counts
    paper: PaperRow | None


def list_models(json_file: Path | None = None, configs: Path | None = None) -> int:
    """Print every detector and classifier below `configs` with its counts; returns the exit code.

    Args:
        json_file: write the list there as well.
        configs: folder of YAML files; null: `configs` here, or beside the package.

    Raises:
        InputError: there is no such folder, or a config does not build.
    """
    if configs is None:
        beside_package = Path(__file__).parents[2] / "configs"
        configs = Path("configs") if Path("configs").is_dir() else beside_package
    if not configs.is_dir():
        raise InputError(f"{configs}: no such folder; run `detect models` where `configs` lies")
    paths = sorted(configs.rglob("*.yaml"))
    models = [
        count_config(path, settings) for path in paths if (settings := read_model_section(path)) is not None
    ]
    classifiers = [
        count_classifier(path, settings)
        for path in paths
        if (settings := read_classifier_section(path)) is not None
    ]
    if classifiers:
        shown = {one.published for one in classifiers}
        classifiers += [one for one in count_published() if one.published not in shown]
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)  # a file has room for every column
    console.print(models_table(models, root=configs))
    if classifiers:
        console.print(classifiers_table(classifiers, root=configs))
    if json_file is not None:
        rows = [*map(to_json, models), *map(classifier_json, classifiers)]
        json_file.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def show_network(config: Path, json_file: Path | None = None) -> int:
    """Print the network of one configuration layer by layer, with its counts; returns the exit code.

    Args:
        config: a configuration of `detect fit`.
        json_file: write counts and widths there as well, in a list of one.

    Raises:
        InputError: it cannot be read, does not build, or is no configuration of a detector.
    """
    settings = read_model_section(config)
    if settings is None:
        raise InputError(f"{config}: names no backbone of a detector")
    model = count_config(config, settings)
    console = Console()
    console.print(network_table(model.net, title=f"{config.name}: {model.net.backbone.name}"))
    counts = model.counts
    console.print(
        f"{counts.params:,} parameters ({counts.params_without_bn / 1e6:.2f} M w/o BN), "
        f"{counts.madds / 1e9:.3f} B MAdds, {len(model.net.anchors):,} anchors",
        highlight=False,
    )
    if json_file is not None:
        json_file.write_text(json.dumps([to_json(model) | table_json(model.net)], indent=2) + "\n")
    return 0


def count_config(path: Path, settings: dict[str, Any]) -> Model:
    """Build the detector of a `model:` section on the meta device and count it; nothing is downloaded.

    Raises:
        InputError: a setting is wrong; names the file.
    """
    num_classes = settings.get("num_classes")
    with built_of(path):
        net = build_detector({**without_auto(settings), "num_classes": num_classes or PAPER_CLASSES}).net
    return Model(path, net, num_classes, count(net, net.image_size), paper_row(net, num_classes))


def paper_row(net: SSDLite, num_classes: int | None) -> PaperRow | None:
    """The row of Table 6 that `net` is, if any: backbone, tail, width, classes, input and anchors agree."""
    anchors = net.anchor_generator.config
    if net.taps != TAPS or net.neck is not None or net.box_bins is not None or net.own_extra_levels:
        return None
    if net.image_size != PAPER_INPUT or anchors.style != "paper" or anchors.aspect_ratios is not None:
        return None
    backbone = net.backbone
    key = (backbone.name, backbone.reduced_tail, backbone.width, num_classes)
    for row in TABLE_6:
        if key == (row.backbone, row.reduced_tail, row.width, row.num_classes):
            return row
    return None


def agrees(value: int, printed: str, unit: float) -> bool:
    """Whether `value` rounds to a `printed` figure, which is in `unit`s, at its number of digits."""
    digits = len(printed.partition(".")[2])
    return f"{value / unit:.{digits}f}" == printed


def models_table(models: list[Model], *, root: Path) -> Table:
    """The table for people: a tick where the count rounds to the paper's figure, a cross where not."""
    table = Table(
        title="Detectors; figures of the MobileNetV3 paper's Table 6 in brackets",
        caption="w/o BN: no scale and shift of BatchNorm. MAdds: convolutions, plus 1.5 per h-swish element. "
        "Paper mAP: the printed percent over 100",
    )
    table.add_column("config", overflow="fold")
    for name in ("input", "classes", "anchors", "params", "params w/o BN (M)", "conv MAdds", "MAdds (B)"):
        table.add_column(name, justify="right")
    table.add_column("paper mAP", justify="right")
    for model in models:
        counts, paper, net = model.counts, model.paper, model.net
        params, madds = f"{counts.params_without_bn / 1e6:.2f}", f"{counts.madds / 1e9:.3f}"
        if paper is not None:
            params_agree = agrees(counts.params_without_bn, paper.params_m, 1e6)
            params += beside(paper.params_m, agrees=params_agree)
            madds += beside(paper.madds_b, agrees=agrees(counts.madds, paper.madds_b, 1e9))
        table.add_row(
            Text(str(model.config.relative_to(root))),
            "x".join(str(side) for side in net.image_size),
            str(model.num_classes or "data's"),
            f"{len(net.anchors):,}",
            f"{counts.params:,}",
            params,
            f"{counts.conv_madds:,}",
            madds,
            "" if paper is None else f"{paper.mAP_fraction:.3f} ({paper.row})",
        )
    return table


def to_json(model: Model) -> dict[str, Any]:
    """One entry of `detect models --json`."""
    net, paper = model.net, model.paper
    return {
        **json_head(model.config, net.backbone, net.image_size, model.num_classes),
        "anchors": len(net.anchors),
        **model.counts._asdict(),
        "paper": None
        if paper is None
        else {
            "row": paper.row,
            "params_m": float(paper.params_m),
            "madds_b": float(paper.madds_b),
            "mAP": float(paper.mAP),
            "latency_ms": float(paper.latency_ms),
        },
    }

"""`detect models`: classifiers of configs/pretrain and published ones, counted beside their papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from detect.inspection.counted import beside, built_of, json_head
from detect.model.backbones import Backbone, MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones.mobilenet_v3 import Expansions
from detect.model.classifier import Classifier, build_classifier
from detect.model.counts import Counts, count

IMAGENET_CLASSES = 1000
"""Also counted with where a configuration takes K from the data."""
MILLION = 1e6


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table; figures as printed."""

    row: str
    backbone: str
    width: float
    side: int
    """Height and width of the input in px."""
    params_m: str
    madds_m: str
    source: str
    with_hard_swish: bool = False
    """What the printed multiply-adds count beside convolutions and linear layers."""
    expansions: Expansions | None = None
    """Of MobileNetV3."""


V3 = "V3 paper, Table 3"
V2 = "TensorFlow's mobilenet/README.md"
V1 = "V1 paper, Tables 6 and 7"
MNASNET = "TensorFlow's mnasnet/README.md"
PUBLISHED = (
    PublishedRow("V3-Large 1.0", "mobilenet_v3_large", 1.0, 224, "5.4", "219", V3, with_hard_swish=True),
    PublishedRow("V3-Large 0.75", "mobilenet_v3_large", 0.75, 224, "4.0", "155", V3, expansions="input"),
    PublishedRow("V3-Small 1.0", "mobilenet_v3_small", 1.0, 224, "2.5", "56", V3),
    PublishedRow("V3-Small 0.75", "mobilenet_v3_small", 0.75, 224, "2.0", "44", V3, expansions="input"),
    PublishedRow("MnasNet-A1", "mnasnet_a1", 1.0, 224, "3.9", "312", MNASNET),
    PublishedRow("V2 1.0", "mobilenet_v2", 1.0, 224, "3.4", "300", V3),
    PublishedRow("V2 0.35", "mobilenet_v2", 0.35, 224, "1.6", "59.2", V3),
    PublishedRow("V2 0.75", "mobilenet_v2", 0.75, 224, "2.61", "209", V2),
    PublishedRow("V2 0.5", "mobilenet_v2", 0.5, 224, "1.95", "97", V2),
    PublishedRow("V2 1.0, 192", "mobilenet_v2", 1.0, 192, "3.47", "221", V2),
    PublishedRow("V2 1.0, 160", "mobilenet_v2", 1.0, 160, "3.47", "154", V2),
    PublishedRow("V2 1.0, 128", "mobilenet_v2", 1.0, 128, "3.47", "99", V2),
    PublishedRow("V2 1.0, 96", "mobilenet_v2", 1.0, 96, "3.47", "56", V2),
    PublishedRow("V2 0.35, 96", "mobilenet_v2", 0.35, 96, "1.66", "11", V2),
    PublishedRow("V1 1.0", "mobilenet_v1", 1.0, 224, "4.2", "569", V1),
    PublishedRow("V1 0.75", "mobilenet_v1", 0.75, 224, "2.6", "325", V1),
    PublishedRow("V1 0.5", "mobilenet_v1", 0.5, 224, "1.3", "149", V1),
    PublishedRow("V1 0.25", "mobilenet_v1", 0.25, 224, "0.5", "41", V1),
    PublishedRow("V1 1.0, 192", "mobilenet_v1", 1.0, 192, "4.2", "418", V1),
    PublishedRow("V1 1.0, 160", "mobilenet_v1", 1.0, 160, "4.2", "290", V1),
    PublishedRow("V1 1.0, 128", "mobilenet_v1", 1.0, 128, "4.2", "186", V1),
)
"""The papers round some figures and cut others: a count agrees that is less than one unit of the last printed
digit away.

Sources: "Searching for MobileNetV3", arXiv 1905.02244 (some copies of Table 3, and slim's README, have 66 M
and 2.9 M for V3-Small, and 2.4 M for its width 0.75); MobileNets, arXiv 1704.04861; tensorflow/models,
research/slim/nets/mobilenet/README.md; tensorflow/tpu, models/official/mnasnet/README.md (312 M in its text,
315.2 M in its table and 315 M in the V3 paper's)."""


class CountedClassifier(NamedTuple):
    """A classifier, counted."""

    config: Path | None
    """Null: a published row that no configuration has."""
    backbone: Backbone
    image_size: tuple[int, int]
    num_classes: int | None
    """Null where the configuration takes it from the data; the counts are then those of 1000 classes."""
    counts: Counts
    linear_madds: int
    published: PublishedRow | None

    @property
    def plain_madds(self) -> int:
        """Multiply-adds of convolutions and linear layers, without h-swish."""
        return self.counts.conv_madds + self.linear_madds


def count_classifier(path: Path, settings: dict[str, Any]) -> CountedClassifier:
    """Build the classifier of a `model:` section on the meta device and count it; nothing is downloaded.

    Raises:
        InputError: a setting is wrong; names the file.
    """
    num_classes = settings.get("num_classes")
    with built_of(path):
        classifier = build_classifier({**settings, "num_classes": num_classes or IMAGENET_CLASSES})
    return _counted(classifier, path, num_classes)


def count_published() -> list[CountedClassifier]:
    """The classifier of every row of `PUBLISHED`."""
    with torch.device("meta"):
        return [
            _counted(Classifier(_backbone_of(row), IMAGENET_CLASSES, image_size=(row.side, row.side)), None)
            for row in PUBLISHED
        ]


def agrees(value: int, printed: str) -> bool:
    """Whether a count is less than one unit of the last digit away from a printed number of millions."""
    digits = len(printed.partition(".")[2])
    return abs(value / MILLION - float(printed)) < 10.0**-digits


def classifiers_table(classifiers: list[CountedClassifier], *, root: Path) -> Table:
    """The table for people: a tick where the count is the printed one, a cross where not."""
    table = Table(
        title="Classifiers; figures of their papers in brackets",
        caption="w/o BN: no scale and shift of BatchNorm. MAdds: convolutions and linear layers; with "
        "h-swish: 1.5 per element besides. Printed figures are rounded or cut",
    )
    table.add_column("classifier", overflow="fold")
    for name in ("input", "params", "params w/o BN (M)", "MAdds (M)", "with h-swish (M)"):
        table.add_column(name, justify="right")
    table.add_column("source")
    for one in classifiers:
        row, counts = one.published, one.counts
        name = str(one.config.relative_to(root)) if one.config else row.row if row else ""
        params, plain = f"{counts.params_without_bn / MILLION:.2f}", f"{one.plain_madds / MILLION:.1f}"
        hard_swish = f"{counts.madds / MILLION:.1f}"
        if row is not None:
            madds = counts.madds if row.with_hard_swish else one.plain_madds
            printed = beside(row.madds_m, agrees=agrees(madds, row.madds_m))
            params += beside(row.params_m, agrees=agrees(counts.params_without_bn, row.params_m))
            plain += "" if row.with_hard_swish else printed
            hard_swish += printed if row.with_hard_swish else ""
        size = "x".join(map(str, one.image_size))
        source = "" if row is None else row.source
        table.add_row(Text(name), size, f"{counts.params:,}", params, plain, hard_swish, source)
    return table


def to_json(one: CountedClassifier) -> dict[str, Any]:
    """One entry of `detect models --json`."""
    row = one.published
    return {
        "task": "classification",
        **json_head(one.config, one.backbone, one.image_size, one.num_classes),
        **one.counts._asdict(),
        "madds_without_hard_swish": one.plain_madds,
        "paper": None
        if row is None
        else {
            "row": row.row,
            "params_m": float(row.params_m),
            "madds_m": float(row.madds_m),
            "source": row.source,
        },
    }


def _counted(
    classifier: Classifier, config: Path | None, num_classes: int | None = IMAGENET_CLASSES
) -> CountedClassifier:
    linear = sum(m.weight.numel() for m in classifier.modules() if isinstance(m, nn.Linear))
    size = classifier.image_size
    row = _published_row(classifier) if num_classes in (None, IMAGENET_CLASSES) else None
    return CountedClassifier(
        config, classifier.backbone, size, num_classes, count(classifier, size), linear, row
    )


def _published_row(classifier: Classifier) -> PublishedRow | None:
    backbone = classifier.backbone
    expansions = backbone.init_args.get("expansions") if backbone.width != 1 else None  # at 1.0 all the same
    own = (backbone.name, backbone.width, classifier.image_size, expansions)
    for row in PUBLISHED:
        if own == (row.backbone, row.width, (row.side, row.side), row.expansions):
            return None if backbone.reduced_tail else row
    return None


def _backbone_of(row: PublishedRow) -> Backbone:
    match row.backbone:
        case "mobilenet_v3_large":
            return MobileNetV3("large", width=row.width, expansions=row.expansions)
        case "mobilenet_v3_small":
            return MobileNetV3("small", width=row.width, expansions=row.expansions)
        case "mobilenet_v2":
            return MobileNetV2(width=row.width)
        case "mobilenet_v1":
            return MobileNetV1(width=row.width)
    return MnasNetA1(width=row.width)

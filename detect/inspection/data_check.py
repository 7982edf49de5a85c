"""`detect data check`: everything that is wrong or worth knowing of a data set, before anybody trains on it.

Gathers what the readers, the checks of boxes, images and splits, and the fit of the anchors say;
`data_check_text` prints it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.config.model_section import read_model_section
from detect.data.annotations import Annotations
from detect.data.checks.conventions import BoxConvention
from detect.data.checks.findings import Finding, Severity
from detect.data.checks.repeated_images import repeated_findings
from detect.data.checks.splits import (
    balance,
    class_counts,
    compare_classes,
    require_trainable,
    without_undecodable,
)
from detect.data.splits import DEFAULT_SPLITS, Role, not_divided, open_split, recognise
from detect.errors import InputError
from detect.inspection.anchor_advice import settled
from detect.inspection.anchor_fit import AnchorFit, fit_anchors
from detect.inspection.anchor_layout import AnchorLayout

EXIT_CLEAN, EXIT_FINDINGS, EXIT_UNTRAINABLE = 0, 1, 2


class Located(NamedTuple):
    """A finding and where it was made."""

    splits: tuple[str, ...]
    """More than one where they share the file; none where the splits were compared with each other."""
    finding: Finding


@dataclass
class DataReport:
    """What was found in a data set."""

    root: Path
    format: str
    train: str
    """The split that training would take."""
    splits: dict[str, Annotations] = field(default_factory=dict)
    """Those that can be read, as training would see them."""
    findings: list[Located] = field(default_factory=list)
    fits: dict[str, AnchorFit] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    """Why the data set cannot be trained on."""

    @property
    def exit_code(self) -> int:
        """0 clean (notes are no findings), 1 with errors or warnings, 2 cannot be trained on."""
        if self.refusals:
            return EXIT_UNTRAINABLE
        found = any(located.finding.severity != "note" for located in self.findings)
        return EXIT_FINDINGS if found else EXIT_CLEAN

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(located.finding.severity == severity for located in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are listed in docs/data.md."""
        return {
            "root": str(self.root),
            "format": self.format,
            "exit_code": self.exit_code,
            "refusals": self.refusals,
            "train_split": self.train,
            "splits": {name: self._split_json(name) for name in self.splits},
            "codes": dict(Counter(located.finding.code for located in self.findings)),
            "findings": [{"splits": list(splits), **asdict(finding)} for splits, finding in self.findings],
        }

    def _split_json(self, name: str) -> dict[str, Any]:
        content = self.splits[name]
        counts = class_counts(content).tolist()
        return {
            "images": len(content),
            "images_without_boxes": int((np.diff(content.offsets) == 0).sum()),
            "boxes": int((~content.ignore).sum()),
            "ignored": int(content.ignore.sum()),
            "classes": dict(zip(content.classes.names, counts, strict=True)),
            "sizes": {size: share.boxes for size, share in self.fits[name].by_size.items()},
            "anchor_fit": self.fits[name].to_json(),
        }


def check(
    root: Path,
    *,
    splits: list[str] | None = None,
    config: Path | None = None,
    voc_one_based: bool | None = None,
    box_convention: BoxConvention | None = None,
) -> DataReport:
    """Check every split of the data set in `root`; every image is decoded, once.

    Args:
        root: folder of a data set whose format is recognised; only read.
        splits: which to check; None: all that are found.
        config: the detector whose anchors are compared with the boxes; None: the paper's head at 320 x 320.
        voc_one_based: VOC: subtract 1 from xmin and ymin; None: for the official sets.
        box_convention: how the files write boxes; None: as their format says, unless that cannot be.

    Raises:
        InputError: no format is recognised, a split does not exist, or the config is not one.
    """
    layout = read_layout(config)
    reader = recognise(root)
    found = reader.find_splits(root)
    if not found:
        raise InputError(not_divided(reader, root))
    chosen = splits or found
    if absent := [name for name in chosen if name not in found]:
        raise InputError(
            f"{root} ({reader.NAME}) has no split {', '.join(absent)}; it has {', '.join(found)}"
        )
    train = next((name for name in DEFAULT_SPLITS["train"] if name in chosen), chosen[0])
    report = DataReport(root, reader.NAME, train)
    for name in chosen:
        _check_split(report, name, voc_one_based=voc_one_based, box_convention=box_convention)
    _check_across(report)
    report.findings = merge(report.findings)
    if report.splits:
        layout = settled(layout, report.splits.get(train) or next(iter(report.splits.values())))
    for name, content in report.splits.items():
        report.fits[name] = fit_anchors(content, layout, with_advice=name == train)
    return report


def _check_split(
    report: DataReport,
    name: str,
    *,
    voc_one_based: bool | None,
    box_convention: BoxConvention | None,
) -> None:
    """Read and check one split by itself; one that cannot be read is reported, and the rest are checked."""
    role: Role = "train" if name == report.train else "val"
    try:
        opened = without_undecodable(
            open_split(
                report.root, name, role=role, voc_one_based=voc_one_based, box_convention=box_convention
            )
        )
    except InputError as error:
        report.refusals.append(f"{name}: {error}")
        return
    report.findings += [Located((name,), finding) for finding in opened.findings]
    report.findings += [Located((name,), finding) for finding in balance(opened.annotations)]
    report.splits[name] = opened.annotations
    try:
        require_trainable(opened, role)
    except InputError as error:
        report.refusals.append(f"{name}: {error}")


def _check_across(report: DataReport) -> None:
    """What needs several splits: repetitions and classes."""
    if not report.splits:
        return
    report.findings += [
        Located((), finding) for finding in repeated_findings(report.splits, train=report.train)
    ]
    if report.train in report.splits:
        for finding in compare_classes(report.train, report.splits):
            report.findings.append(Located((), finding))
            if finding.code == "class-not-trained":
                report.refusals.append(f"{finding.file}: {finding.detail}")


def merge(findings: list[Located]) -> list[Located]:
    """Each finding once: splits that share images (train, trainval) share what is wrong with them."""
    splits: dict[tuple[object, ...], list[str]] = {}
    first: dict[tuple[object, ...], Finding] = {}
    for located in findings:
        finding = located.finding
        key = (finding.code, finding.file, finding.annotation, finding.detail, finding.action)
        splits.setdefault(key, []).extend(located.splits)
        first.setdefault(key, finding)
    return [Located(tuple(dict.fromkeys(splits[key])), finding) for key, finding in first.items()]


def read_layout(config: Path | None) -> AnchorLayout:
    """The anchors of a config's detector; see `anchor_advice.settled` for scales that are "auto".

    Raises:
        InputError: no such file, no `model:` section, or a setting is wrong.
    """
    if config is None:
        return AnchorLayout.default()
    if not config.is_file():
        raise InputError(f"no config {config}")
    settings = read_model_section(config)
    if settings is None:
        raise InputError(f"{config} has no `model:` section with a backbone")
    return AnchorLayout.of_settings(settings)


def tail_advice(fit: AnchorFit) -> str:
    """Whether the reduced tail is likely to cost anything, by the maps that the boxes are found on.

    The tail halves the channels between C4 and C5; C4's own head, the first map, is not touched by it.
    Source: MobileNetV3 section 6.3 and Table 6: V3-Large with and without it both have 22.0 mAP.
    """
    first = fit.by_level[0] / max(1, fit.all.boxes)
    choice = (
        "reduced_tail true should cost little"
        if first >= 0.5
        else "compare reduced_tail true and false: most boxes fit maps behind it"
    )
    return f"{first:.0%} of the boxes fit the first map best, which the reduced tail does not touch: {choice}"

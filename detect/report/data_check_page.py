"""The page of `detect data check`: what was found, with images of the worst of it, in one offline file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.data.checks.findings import printable, printable_lines
from detect.inspection.data_check import DataReport, tail_advice
from detect.inspection.data_check_text import FORMAT_NAMES, SEVERITIES, findings_by_code, place_of
from detect.report.album import ImageBudget, ImageFigure
from detect.report.finding_images import finding_images
from detect.report.html import count, percent, write_page
from detect.report.sections import Rows, anchor_plots

IMAGES_PER_CODE = 6
LISTED = 200
"""Findings of one code in the folded lists; --json has all."""


def write_check_page(report: DataReport, path: Path) -> None:
    """Write the page; images that do not fit into 5 MB are left out, the least grave first."""
    values = {
        "title": f"Data set {printable(report.root.absolute().name)}",
        "subtitle": f"{FORMAT_NAMES[report.format]}. {printable(str(report.root.absolute()))}",
        "refusals": [printable_lines(reason) for reason in report.refusals],
        "facts": _facts(report),
        "findings": _findings(report),
        "pictured": _pictured(report),
        "split_rows": _split_rows(report),
        "fitted_splits": list(report.fits),
        "class_rows": _class_rows(report),
        "fit": _fit(report),
        "listed": LISTED,
    }
    write_page(path, "data_check.html", values)


def _facts(report: DataReport) -> list[tuple[str, str]]:
    splits = report.splits.values()
    values = [
        ("splits", str(len(splits))),
        ("classes", str(max((content.classes.num_classes for content in splits), default=0))),
    ]
    if report.train in report.splits:
        content = report.splits[report.train]
        values += [
            ("training images", f"{len(content):,}"),
            ("training boxes", f"{(~content.ignore).sum():,}"),
        ]
    if not report.splits:
        return values  # none could be read: that there are no findings says nothing
    return values + [(f"{severity}s", f"{report.count(severity):,}") for severity in SEVERITIES]


def _findings(report: DataReport) -> list[dict[str, Any]]:
    """The findings of each code, the gravest codes first; place and detail of each."""
    return [
        {
            "severity": severity,
            "code": code,
            "action": printable(action),
            "found": [
                (printable(place_of(report, located)), printable(located.finding.detail)) for located in group
            ],
        }
        for (severity, code, action), group in findings_by_code(report).items()
    ]


def _pictured(report: DataReport) -> list[tuple[str, str, str, ImageFigure]]:
    """Severity, code, action and image of the first findings of each code that can be seen."""
    budget = ImageBudget()
    shown: list[tuple[str, str, str, ImageFigure]] = []
    for (severity, code, action), group in findings_by_code(report).items():
        seen = [located for located in group if located.finding.image is not None]
        for located in seen[:IMAGES_PER_CODE]:
            caption = printable(f"{place_of(report, located)}: {located.finding.detail}")
            if (figure := finding_images(located.finding, caption, budget)) is not None:
                shown.append((severity, code, printable(action), figure))
    return shown


def _split_rows(report: DataReport) -> Rows:
    rows: Rows = []
    for name, split in report.to_json()["splits"].items():
        counts = (split["images"], split["images_without_boxes"], split["boxes"], *split["sizes"].values())
        label = name + (" (training)" if name == report.train else "")
        rows.append((label, *map(count, (*counts, split["ignored"]))))
    return rows


def _class_rows(report: DataReport) -> Rows:
    """Boxes of each class in each split; the share with an anchor in training."""
    if report.train not in report.fits:
        return []
    fits = report.fits
    ranked = sorted(fits[report.train].by_class.items(), key=lambda item: -item[1].boxes)
    rows: Rows = []
    for name, share in ranked:
        counts = [fit.by_class[name].boxes if name in fit.by_class else None for fit in fits.values()]
        met = share.met / share.boxes if share.boxes else None
        rows.append((printable(name), *map(count, counts), percent(met)))
    return rows


def _fit(report: DataReport) -> dict[str, Any] | None:
    """How well the anchors fit the boxes of the training split; None where there are none."""
    fit = report.fits.get(report.train)
    if fit is None or not fit.all.boxes:
        return None
    height, width = fit.layout.image_size
    return {
        "head": f"{fit.layout.config.style} head at {width} x {height} px",
        "split": report.train,
        "recall": str(fit.all),
        "by_size": ", ".join(f"{name} {share}" for name, share in fit.by_size.items() if share.boxes),
        "tail": tail_advice(fit),
        "advice": [(one.effect, one.flags) for one in (*fit.advice, fit.auto) if one is not None],
        "plots": anchor_plots(fit),
    }

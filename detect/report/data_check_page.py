"""The page of `detect data check`: what was found, with pictures of the worst of it, in one offline file."""

from __future__ import annotations

from pathlib import Path

from detect.data.checks.findings import printable
from detect.inspection.data_check import DataReport, tail_advice
from detect.inspection.data_check_text import FORMAT_NAMES, SEVERITIES, findings_by_code, place_of
from detect.report.finding_pictures import FindingPictures
from detect.report.html import (
    DASH,
    cards,
    folded,
    long_table,
    notice,
    paragraph,
    percent,
    table,
    text,
    write_page,
)
from detect.report.sections import anchor_figures

PICTURES_A_CODE = 6
LISTED = 200
"""Findings of one code in the folded lists; --json has all."""


def write_check_page(report: DataReport, path: Path) -> None:
    """Write the page; pictures that do not fit into 5 MB are left out, the least grave first."""
    parts = {
        "findings": ("Findings", _findings(report)),
        "pictures": ("Pictures of findings", _pictures(report)),
        "splits": ("Splits and classes", _splits(report) + _classes(report)),
        "anchors": ("Anchors", _anchors(report)),
        "lists": ("All findings", _lists(report)),
    }
    refusals = notice([printable(reason) for reason in report.refusals], "This cannot be trained on.")
    write_page(
        path,
        title=f"Data set {printable(report.root.absolute().name)}",
        subtitle=f"{FORMAT_NAMES[report.format]}. {printable(str(report.root.absolute()))}",
        head=refusals + cards(_headline(report)),
        parts=parts,
    )


def _headline(report: DataReport) -> list[tuple[str, str]]:
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
    return values + [(f"{severity}s", f"{report.count(severity):,}") for severity in SEVERITIES]


def _findings(report: DataReport) -> str:
    rows = []
    for (severity, code, action), group in findings_by_code(report).items():
        example = printable(f"{place_of(report, group[0])}: {group[0].finding.detail}")
        rows.append(
            (
                f'<span class="{severity}">{severity}</span>',
                text(code),
                f"{len(group):,}",
                text(printable(action)),
                text(example),
            )
        )
    if not rows:
        return paragraph("Nothing is wrong, and nothing is worth a note.")
    legend = "An error drops something, a warning asks for a look, a note says what was done or seen."
    return table(("", "code", "times", "what is done", "for example"), rows, left=5) + paragraph(legend)


def _pictures(report: DataReport) -> str:
    """The first findings of each code that can be seen, the gravest codes first."""
    album, figures = FindingPictures(), ""
    for (severity, code, action), group in findings_by_code(report).items():
        title = f'<span class="{severity}">{text(code)}</span>, {text(printable(action))}'
        seen = [located for located in group if located.finding.image is not None]
        for located in seen[:PICTURES_A_CODE]:
            caption = printable(f"{place_of(report, located)}: {located.finding.detail}")
            figures += album.figure(located.finding, title, caption)
    return f'<div class="finds">{figures}</div>\n' if figures else ""


def _splits(report: DataReport) -> str:
    headings = ("split", "images", "without boxes", "boxes", "small", "medium", "large", "ignored")
    rows = []
    for name, split in report.to_json()["splits"].items():
        counts = (split["images"], split["images_without_boxes"], split["boxes"], *split["sizes"].values())
        label = text(name) + (" (training)" if name == report.train else "")
        rows.append((label, *(f"{count:,}" for count in (*counts, split["ignored"]))))
    return table(headings, rows) if rows else ""


def _classes(report: DataReport) -> str:
    """Boxes of each class in each split; the share with an anchor in training."""
    if report.train not in report.fits:
        return ""
    fits = report.fits
    ranked = sorted(fits[report.train].by_class.items(), key=lambda item: -item[1].boxes)
    rows = []
    for name, share in ranked:
        counts = [fit.by_class[name].boxes if name in fit.by_class else None for fit in fits.values()]
        met = share.met / share.boxes if share.boxes else None
        rows.append(
            (
                text(printable(name)),
                *(DASH if count is None else f"{count:,}" for count in counts),
                percent(met),
            )
        )
    return long_table(("class", *(text(name) for name in fits), "% with an anchor"), rows)


def _anchors(report: DataReport) -> str:
    fit = report.fits.get(report.train)
    if fit is None or not fit.all.boxes:
        return ""
    height, width = fit.layout.image_size
    sizes = ", ".join(f"{name} {share}" for name, share in fit.by_size.items() if share.boxes)
    body = paragraph(
        f"The {fit.layout.config.style} head at {width} x {height} px against the boxes of {report.train}:",
        f"{fit.all} meet an anchor at IoU 0.5 ({sizes}).",
        f"{tail_advice(fit)}.",
    )
    advice = "".join(
        f"<li>{one.share:.1%} of the boxes, with {one.anchors:,} anchors: <code>{text(one.flags)}</code></li>"
        for one in fit.advice
    )
    return (
        body + (f"{paragraph('More would be met:')}<ul>{advice}</ul>" if advice else "") + anchor_figures(fit)
    )


def _lists(report: DataReport) -> str:
    body = ""
    for (_, code, _), group in findings_by_code(report).items():
        rows = [
            (text(printable(place_of(report, located))), text(printable(located.finding.detail)))
            for located in group[:LISTED]
        ]
        more = len(group) - len(rows)
        listed = table(("where", "what"), rows, left=2)
        body += folded(f"{code} x {len(group)}", listed + (paragraph(f"and {more} more") if more else ""))
    return body

"""What `detect data check` prints: tables of splits, classes and sizes, findings by code, and a verdict."""

from __future__ import annotations

from collections import defaultdict

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from detect.data.checks.findings import Severity, printable, printable_lines
from detect.inspection.data_check import DataReport, Located, tail_advice

FORMAT_NAMES = {"coco": "COCO", "voc": "Pascal VOC", "yolo": "YOLO"}
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
EXAMPLES = 3
"""Findings of one code that are shown; --json has all."""
CLASSES_SHOWN = 12
"""The commonest; as many again of the rarest where there are more."""
BAR_WIDTH = 20
PLAIN_WIDTH = 120
"""Columns where the output is a file or a pipe."""


def print_report(report: DataReport, console: Console | None = None) -> None:
    """Print the report, the verdict last."""
    console = console or Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    format_name = FORMAT_NAMES[report.format]
    console.print(Text.assemble((printable(str(report.root)), "bold"), f"  {format_name}"), soft_wrap=True)
    if report.splits:
        console.print(_splits_table(report))
    if report.train in report.splits:
        console.print(_classes_table(report))
    for line in [*_finding_lines(report), *_anchor_lines(report), Text(), *_verdict(report)]:
        console.print(line, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _splits_table(report: DataReport) -> Table:
    columns = ("split", "images", "without boxes", "boxes", "small", "medium", "large", "ignored", "classes")
    table = _table("Splits", *columns)
    for name, split in report.to_json()["splits"].items():
        counts = (split["images"], split["images_without_boxes"], split["boxes"], *split["sizes"].values())
        numbers = [f"{count:,}" for count in (*counts, split["ignored"], len(split["classes"]))]
        table.add_row(Text(name + (" (training)" if name == report.train else "")), *numbers)
    return table


def _classes_table(report: DataReport) -> Table:
    """Classes of the training split by their boxes, and how well the anchors fit each."""
    fit = report.fits[report.train]
    table = _table(f"Classes of {report.train}", "class", "boxes", "", "anchor at IoU 0.5")
    table.columns[2].justify = "left"
    ranked = sorted(fit.by_class.items(), key=lambda item: -item[1].boxes)
    most = max((share.boxes for _, share in ranked), default=0)
    for place, (name, share) in enumerate(ranked):
        if CLASSES_SHOWN <= place < len(ranked) - CLASSES_SHOWN:
            if place == CLASSES_SHOWN:
                table.add_row(f"... {len(ranked) - 2 * CLASSES_SHOWN} more", "", "", "")
            continue
        bar = "█" * round(BAR_WIDTH * share.boxes / most) if most else ""
        table.add_row(Text(printable(name)), f"{share.boxes:,}", Text(bar, style="blue"), str(share))
    return table


def _finding_lines(report: DataReport) -> list[RenderableType]:
    """A line a code, the worst first, and the first findings of it."""
    groups = findings_by_code(report)
    lines: list[RenderableType] = []
    if groups or not report.refusals:  # what cannot be read may have any faults
        lines.append(Text("Findings" if groups else "No findings", style="bold"))
    for (severity, code, action), group in groups.items():
        head = Text.assemble("  ", (f"{severity:<8}", STYLES[severity]), (code, "bold"))
        lines.append(head.append(f" x {len(group)}: {printable(action)}"))
        for located in group[:EXAMPLES]:
            line = printable(f"    {place_of(report, located)}: {located.finding.detail}")
            lines.append(Text(line, style="dim"))
        if len(group) > EXAMPLES:
            lines.append(Text(f"    and {len(group) - EXAMPLES} more", style="dim"))
    return lines


def findings_by_code(report: DataReport) -> dict[tuple[Severity, str, str], list[Located]]:
    """Findings by severity, code and what is done about them, the gravest first."""
    groups: defaultdict[tuple[Severity, str, str], list[Located]] = defaultdict(list)
    for located in report.findings:
        finding = located.finding
        groups[finding.severity, finding.code, finding.action].append(located)
    return dict(sorted(groups.items(), key=lambda item: (SEVERITIES.index(item[0][0]), item[0][1:])))


def place_of(report: DataReport, located: Located) -> str:
    """Where a finding is: the file below the data set's folder, the annotation, the splits."""
    splits, finding = located
    place = finding.file.removeprefix(f"{report.root}/")
    if finding.annotation is not None:
        place += f", annotation {finding.annotation}"
    if splits:
        place += f" ({', '.join(splits)})"
    return place


def _anchor_lines(report: DataReport) -> list[RenderableType]:
    fit = report.fits.get(report.train)
    if fit is None or not fit.all.boxes:
        return []
    height, width = fit.layout.image_size
    title = f"Anchors against the boxes of {report.train}"
    head = Text.assemble("\n", (title, "bold"), f" ({fit.layout.config.style} head, {width} x {height} px)")
    sizes = ", ".join(f"{name} {share}" for name, share in fit.by_size.items() if share.boxes)
    lines: list[RenderableType] = [head, Text(f"  anchor recall at IoU 0.5: {fit.all}; {sizes}")]
    lines += [Text(f"  higher with {advice}") for advice in (*fit.advice, fit.auto) if advice is not None]
    lines.append(Text(f"  {tail_advice(fit)}"))
    return lines


def _verdict(report: DataReport) -> list[RenderableType]:
    lines: list[RenderableType] = [
        Text(f"cannot be trained on: {printable_lines(reason)}", style="bold red")
        for reason in report.refusals
    ]
    numbers = {severity: report.count(severity) for severity in SEVERITIES}
    counts = ", ".join(f"{number} {severity}{'s' * (number != 1)}" for severity, number in numbers.items())
    verdict = "cannot be trained on" if report.refusals else "can be trained on"
    style = "bold red" if report.refusals else "bold green"
    return [*lines, Text.assemble((verdict, style), f": {counts}" if report.splits else "")]

"""What is wrong with a data set, one `Finding` per case, and how a list of them reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""An error drops something, a warning asks for a look, a note says what was done or seen."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a data set, and what was done about it."""

    code: str
    severity: Severity
    file: str
    annotation: int | str | None
    """The data set's id of the annotation, or None where the finding is about a file."""
    detail: str
    action: str
    image: str | None = None
    """The path of the image to look at, where there is one."""
    box: list[float] | None = None
    """Xyxy px of the upright image, where the finding is about a box that has numbers."""
    other: str | None = None
    """The path of the image that this one repeats."""

    def __str__(self) -> str:
        place = self.file if self.annotation is None else f"{self.file}, annotation {self.annotation}"
        return printable(f"{self.severity}: {self.code}: {place}: {self.detail}; {self.action}")


def printable(text: str) -> str:
    """The text without what a terminal would obey: names of files and classes may hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def printable_lines(text: str) -> str:
    """As `printable`, line by line: those after the first are indented, so that none poses as another."""
    return "\n  ".join(printable(line) for line in text.split("\n"))


def summarise(findings: Sequence[Finding], examples: int = 3) -> str:
    """A short text: a line for each code with its count, and the first examples under it."""
    if not findings:
        return "no findings"
    counts = Counter((finding.severity, finding.code, finding.action) for finding in findings)
    first: defaultdict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        group = first[finding.severity, finding.code, finding.action]
        if len(group) < examples:
            group.append(finding)
    lines = []
    for key in sorted(counts, key=lambda key: (("error", "warning", "note").index(key[0]), key[1:])):
        severity, code, action = key
        lines.append(f"{severity}: {code} x {counts[key]}: {action}")
        for finding in first[key]:
            place = "" if finding.annotation is None else f", annotation {finding.annotation}"
            lines.append("    " + printable(f"{finding.file}{place}: {finding.detail}"))
        if counts[key] > len(first[key]):
            lines.append(f"    and {counts[key] - len(first[key])} more")
    return "\n".join(lines)

"""docs/glossary.md has the words; those that were retired stay out of code, help, messages and pages."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT

COUNTED = "anchors?|boxes|images|detections|cells?|files?|rows?"
RETIRED = {
    r"\b[Pp]ictures?\b": "image",
    r"\banswers? for\b": "positive for",
    r"\b(held|hold \w+) against\b": "compared with",
    r"\bwhich class is taken\b": "confusion matrix",
    r"\bsurest\b": "most confident",
    r"\bcosts? nothing\b": "excluded from the loss, or free",
    r"\bmost that \w+ may\b": "maximum",
    r"\b(mended|mends)\b": "repaired",
    r"\b(goes|go|gone|went|going) on (from|where|with|bit|at)\b": "resume, continue",
    rf"\b({COUNTED}) an? (cell|epoch|image|level|map)\b": "per",
    r"\bhold the process\b": "pin",
    r"\b[Jj]udged\b|\bBoxFate\b|\bwishes\b|\btriage\b": "a standard term",
}
"""Patterns of retired words and what is said instead."""
KEPT = re.compile(r"""--pictures?\b|["']pictures["']""")
"""Names of flags and files that users know."""
FOLDERS = ("detect", "scripts", "configs", "benchmarks")
FILES = sorted(
    path
    for path in (
        *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    )
    if path.suffix in (".py", ".yaml", ".md", ".html", "")
    and path.is_file()
    and path.name != "glossary.md"  # it names them
)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of text with their numbers: of Python the comments and the strings, else all."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or "STRING" in tokenize.tok_name[token.type]:
            yield from enumerate(token.string.splitlines(), token.start[0])


def retired_in(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; say {instead!r}"
        for number, line in prose(path)
        for pattern, instead in RETIRED.items()
        if (match := re.search(pattern, KEPT.sub("", line)))
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_retired_word(path: Path) -> None:
    found = retired_in(path)
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for() -> None:
    for text in ("6 anchors a cell", "the pictures", "goes on where it stopped", "a mended copy"):
        assert any(re.search(pattern, text) for pattern in RETIRED), text
    for text in ("6 anchors per cell", "the images", "goes on to say", "an image a person knows"):
        assert not any(re.search(pattern, text) for pattern in RETIRED), text

"""The commands that README.md and docs/ tell a reader to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^( *)```(?:bash|sh|console)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
"""Blocks of shell; those of a numbered list are indented."""


class Line(NamedTuple):
    """One command of a page."""

    page: str
    words: list[str]

    @property
    def text(self) -> str:
        """The command with single spaces."""
        return " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands_of(page: Path) -> Iterator[Line]:
    """The commands of a page's fenced blocks; `&&`, `;` and `|` separate them, comments are left out."""
    for _, block in FENCED.findall(page.read_text()):
        for line in dedent(block).replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=";&|<>")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set(";&|<>"):
                    if words:
                        yield Line(page.name, words)
                    words = []
                else:
                    words.append(word)


FENCED_LINES = [line for page in PAGES for line in commands_of(page)]

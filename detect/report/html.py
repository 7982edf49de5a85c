"""One page of HTML that needs nothing from anywhere: its frame, its style, and its tables.

Text becomes HTML in `text` and nowhere else; every other function takes and gives finished HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from detect.system.files import write_atomically

DASH = "-"
UNFOLDED_ROWS = 20
"""Of a long table; one with more opens on a click."""


def text(value: object) -> str:
    """A plain value as HTML."""
    return html.escape(str(value))


def sentence(words: str) -> str:
    """Plain text as HTML whose flags, as `--score_threshold`, no line breaks."""
    return re.sub(r"--\w+", r"<code>\g<0></code>", text(words))


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction of one in percent; a dash for None, NaN and COCO's -1."""
    if fraction is None or not fraction >= 0:
        return DASH
    return f"{100 * fraction:.{digits}f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, name: str = "") -> str:
    """A table that scrolls sideways by itself where the screen is narrow.

    Args:
        headings: HTML of each column's heading.
        rows: HTML of the cells; a cell that starts with "<td" is taken as it is.
        left: the first columns, which hold text; the others are numbers, set flush right.
        name: of the CSS class.
    """
    head = "".join(f'<th scope="col"{_align(i, left)}>{heading}</th>' for i, heading in enumerate(headings))
    body = "".join(
        "<tr>"
        + "".join(
            cell if cell.startswith("<td") else f"<td{_align(i, left)}>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{name}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def long_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A `table` that is folded where it has many rows; its summary is the first heading."""
    made = table(headings, rows)
    return made if len(rows) <= UNFOLDED_ROWS else folded(f"{len(rows)} rows by {headings[0]}", made)


def _align(column: int, left: int) -> str:
    return ' class="left"' if column < left else ""


def section(title: str, body: str, *, anchor: str) -> str:
    """A titled part of the page that the menu leads to."""
    return f'<section id="{anchor}"><h2>{text(title)}</h2>\n{body}</section>\n'


def folded(title: str, body: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{text(title)}</summary>{body}</details>\n"


def paragraph(*sentences: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{text(' '.join(sentences))}</p>\n"


def figures(*pictures: str) -> str:
    """Plots side by side where there is room."""
    return f'<div class="figures">{"".join(pictures)}</div>\n'


def notice(messages: Sequence[str], heading: str = "Not all is there.") -> str:
    """What the reader must know first, or nothing."""
    if not messages:
        return ""
    items = "".join(f"<li>{text(message)}</li>" for message in messages)
    return f'<div class="notice" role="note"><strong>{text(heading)}</strong><ul>{items}</ul></div>\n'


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Large figures with a name each; (name, value) as plain text."""
    return (
        '<dl class="cards">'
        + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values)
        + "</dl>\n"
    )


def write_page(
    path: Path, *, title: str, subtitle: str, head: str, parts: Mapping[str, tuple[str, str]]
) -> None:
    """Write a whole page.

    Args:
        path: file to write.
        title: of the page, as plain text.
        subtitle: below it, as plain text.
        head: what stands above the first section, as HTML.
        parts: anchor to title (plain text) and content (HTML) of each section; one without content is left
            out of the page and of its menu.
    """
    style = files("detect.report").joinpath("page.css").read_text(encoding="utf-8")
    shown = {anchor: part for anchor, part in parts.items() if part[1]}
    links = "".join(f'<a href="#{anchor}">{text(name)}</a>' for anchor, (name, _) in shown.items())
    body = head + "".join(section(name, html, anchor=anchor) for anchor, (name, html) in shown.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{style}</style></head>
<body><header><h1>{text(title)}</h1><p>{text(subtitle)}</p><nav>{links}</nav></header>
<main>
{body}</main></body></html>
"""
    write_atomically(path, page)

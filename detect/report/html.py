"""Pages of HTML that need nothing from anywhere, from the templates beside this file.

A template escapes every value; what is HTML already (drawings, and nothing else) is `markupsafe.Markup`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from detect.evaluation.metrics import show_metric
from detect.system.files import write_atomically

DASH = "-"


def percent(fraction: float | None) -> str:
    """A share in percent, for what is no metric; a dash for None, NaN and COCO's -1."""
    if fraction is None or not fraction >= 0:
        return DASH
    return f"{100 * fraction:.1f}"


def count(number: int | None) -> str:
    """A whole number with separators; a dash for None."""
    return DASH if number is None else f"{number:,}"


def flags(words: str) -> Markup:
    """Plain text as HTML whose flags, as `--score_threshold`, no line breaks."""
    return Markup(re.sub(r"--\w+", r"<code>\g<0></code>", str(escape(words))))


@cache
def templates() -> Environment:
    """The templates; a name that a page does not give is an error and not a gap."""
    made = Environment(
        loader=PackageLoader("detect.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.filters |= {"metric": show_metric, "percent": percent, "count": count, "flags": flags}
    return made


def part(name: str, *values: Any) -> Markup:
    """A piece of `templates/parts.html`, where it stands in a cell among text."""
    return Markup(getattr(templates().get_template("parts.html").module, name)(*values))


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Write a whole page.

    Args:
        path: file to write.
        template: its file in `templates/`; base.html says what each must have.
        values: what it shows, by the names that it uses.
    """
    write_atomically(path, templates().get_template(template).render(values))

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from detect.report.album import EncodedImage, ImageFigure
from detect.report.html import count, flags, part, percent, templates, write_page
from detect.report.plots import Plot

EVIL = "<script>alert('1')</script>"


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.4567, "45.7"), (0.0, "0.0"), (-1.0, "-"), (None, "-"), (float("nan"), "-")]
)
def test_percent__minus_one_and_nothing__dash(fraction: float | None, shown: str) -> None:
    assert percent(fraction) == shown


def test_count__separators_and_a_dash_for_nothing() -> None:
    assert (count(12345), count(0), count(None)) == ("12,345", "0", "-")


def test_flags__one_flag_is_in_one_piece() -> None:
    assert flags("a < b -- --min_iou 0.5.") == "a &lt; b -- <code>--min_iou</code> 0.5."


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("notice", [[EVIL]]),
        ("notice", [["a"], EVIL]),
        ("cards", [[(EVIL, EVIL)]]),
        ("table", [[EVIL], [[EVIL]]]),
        ("long_table", [[EVIL], [[EVIL]] * 30]),
        ("sparkline", ["1,2", EVIL]),
        ("figures", [[Plot("title", Markup("<svg/>"), EVIL)]]),
        ("figures", [[Plot(EVIL, Markup("<svg/>"))]]),
        ("gallery", [[ImageFigure((EncodedImage(1, 1, "", EVIL),), EVIL)], "crops"]),
    ],
)
def test_part__text_is_escaped_wherever_it_comes_in(name: str, values: list[object]) -> None:
    piece = part(name, *values)
    assert "<script" not in piece
    assert "&lt;script&gt;" in piece


def test_templates__every_one_escapes() -> None:
    assert len(templates().list_templates(["html"])) >= 6
    assert templates().autoescape is True


def test_table__numbers_right_text_left() -> None:
    html = part("table", ["name", "n"], [["a", part("sparkline", "1,2", "line")]])
    assert '<th scope="col" class="left">name</th><th scope="col">n</th>' in html
    assert '<td class="left">a</td><td><svg' in " ".join(html.split()).replace("<td> ", "<td>")


def test_long_table__folded_above_20_rows() -> None:
    rows = [["a", "1"]] * 20
    assert "<details" not in part("long_table", ["class", "n"], rows)
    assert "<summary>21 rows by class</summary>" in part("long_table", ["class", "n"], [*rows, ["b", "2"]])


def test_notice__nothing_to_say__nothing() -> None:
    assert part("notice", []).strip() == ""


VALUES = {
    "title": "A <b>",
    "subtitle": "s",
    "notices": ["first"],
    "result_headings": ["X"],
    "result_rows": [],
}
VALUES |= {
    "paper_unit": "",
    "other_rows": [],
    "costs": [],
    "pair_rows": [],
    "curves": [],
    "settings": [],
    "groups": ["a", "b"],
}


def test_write_page__menu_and_style_inside(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", "comparison.html", VALUES)
    page = (tmp_path / "p.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<title>A &lt;b&gt;</title>" in page
    assert '<a href="#result">Result</a>' in page
    assert page.index("first") < page.index('<section id="result">') < page.index("<h2>Accuracy against cost")
    assert "Which differences hold" not in page  # neither in the menu nor as a heading over nothing
    assert "prefers-color-scheme: dark" in page
    assert not list(tmp_path.glob(".*"))


def test_write_page__a_value_is_missing__error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="'costs' is undefined"):
        write_page(tmp_path / "p.html", "comparison.html", {k: v for k, v in VALUES.items() if k != "costs"})
    assert not (tmp_path / "p.html").exists()

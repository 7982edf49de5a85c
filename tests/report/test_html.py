from __future__ import annotations

from pathlib import Path

import pytest

from detect.report.html import (
    UNFOLDED_ROWS,
    cards,
    figures,
    folded,
    long_table,
    notice,
    paragraph,
    percent,
    section,
    sentence,
    table,
    text,
    write_page,
)


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.4567, "45.7"), (0.0, "0.0"), (-1.0, "-"), (None, "-"), (float("nan"), "-")]
)
def test_percent__minus_one_and_nothing__dash(fraction: float | None, shown: str) -> None:
    assert percent(fraction) == shown


def test_text__is_escaped_wherever_it_comes_in() -> None:
    evil = "<script>alert('1')</script>"
    pieces = [
        text(evil),
        paragraph(evil),
        notice([evil]),
        cards([(evil, evil)]),
        section(evil, "", anchor="a"),
        folded(evil, ""),
    ]
    assert not any("<script" in piece for piece in pieces)
    assert all("&lt;script&gt;" in piece for piece in pieces)


def test_sentence__a_flag_is_in_one_piece() -> None:
    assert sentence("a < b -- --min_iou 0.5.") == "a &lt; b -- <code>--min_iou</code> 0.5."


def test_table__numbers_right_text_left_and_own_cells_kept() -> None:
    html = table(["name", "n"], [["a", '<td class="differs">2</td>']])
    assert '<th scope="col" class="left">name</th><th scope="col">n</th>' in html
    assert '<td class="left">a</td><td class="differs">2</td>' in html


def test_long_table__folded_above_its_limit() -> None:
    rows = [["a", "1"]] * UNFOLDED_ROWS
    assert long_table(["class", "n"], rows) == table(["class", "n"], rows)
    assert f"<summary>{UNFOLDED_ROWS + 1} rows by class</summary>" in long_table(
        ["class", "n"], [*rows, ["b", "2"]]
    )


def test_notice__nothing_to_say__nothing() -> None:
    assert notice([]) == ""
    assert figures() == '<div class="figures"></div>\n'


def test_write_page__menu_and_style_inside(tmp_path: Path) -> None:
    parts = {"x": ("X & Y", "<p>x</p>"), "nothing": ("Nothing", "")}
    write_page(tmp_path / "p.html", title="A <b>", subtitle="s", head="<p>first</p>", parts=parts)
    page = (tmp_path / "p.html").read_text()
    assert "<title>A &lt;b&gt;</title>" in page
    assert '<a href="#x">X &amp; Y</a>' in page
    assert page.index("<p>first</p>") < page.index('<section id="x">') < page.index("<p>x</p>")
    assert "nothing" not in page  # neither in the menu nor as a heading over nothing
    assert "prefers-color-scheme: dark" in page
    assert not list(tmp_path.glob(".*"))

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from detect.report.html import part
from detect.report.plots import (
    ON_WHITE,
    PLACEHOLDERS,
    Plot,
    Series,
    bar_chart,
    histogram,
    line_chart,
    plot,
    save_png,
    share_by_size,
    size_distribution,
    size_scatter,
    sparkline_points,
)

X = np.array([1.0, 2.0, 3.0])
LINES = [Series(f"line <{i}>", X, X * i) for i in range(1, 4)]


def svg_of(plot: Plot) -> ElementTree.Element:
    """The drawing, which must be well-formed."""
    return ElementTree.fromstring(plot.svg)


def test_plot__colours_of_the_page_and_text_as_text() -> None:
    drawn = plot("A & B", line_chart(LINES, x_label="epoch", y_label="loss"))
    svg, html = svg_of(drawn), drawn.svg
    assert svg.get("aria-label") == "A & B"
    assert svg.get("width") is None
    assert svg.get("viewBox") is not None
    for name in ("--ink", "--muted", "--c1", "--c2", "--c3"):
        assert f"var({name})" in html
    assert PLACEHOLDERS.ink not in html
    assert "line &lt;1&gt;" in html


def test_plot__two_on_a_page__no_id_in_common() -> None:
    ids = [
        set(re.findall(r'\bid="([^"]+)"', plot(title, line_chart(LINES, x_label="", y_label="")).svg))
        for title in ("one", "two")
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_plot__same_values__same_bytes() -> None:
    draw = bar_chart(["a", "b"], [1.0, 2.0], x_label="x")
    assert plot("t", draw) == plot("t", draw)


def test_line_chart__neighbours_differ_in_colour_and_dash() -> None:
    styles = [PLACEHOLDERS.line(i) for i in range(28)]
    for one, two in pairwise(styles):
        assert one["color"] != two["color"]
        assert one["linestyle"] != two["linestyle"]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28


def test_line_chart__whole_x__whole_ticks() -> None:
    drawing = Figure()
    x = np.arange(1.0, 4)
    line_chart([Series("a", x, x)], x_label="epoch", y_label="")(drawing, PLACEHOLDERS)
    ticks = drawing.axes[0].get_xticks()
    assert {1.0, 2.0, 3.0} <= set(ticks) == set(np.round(ticks))


def test_charts__nothing_or_one_point__drawn() -> None:
    empty = np.zeros(0)
    svg_of(plot("a", line_chart([Series("x", np.ones(1), np.ones(1))], x_label="", y_label="")))
    svg_of(plot("b", line_chart([], x_label="", y_label="", x_range=(0, 1), from_zero=True)))
    svg_of(plot("c", histogram(empty, bins=np.linspace(0, 1, 3), x_label="", mark=0.5)))
    svg_of(plot("d", size_scatter(np.ones((1, 2)), np.ones((2, 2)))))
    svg_of(plot("e", size_distribution([("a", empty), ("b", np.ones(1))], x_label="")))
    svg_of(plot("f", share_by_size(empty, np.zeros(0, dtype=np.bool_), x_label="", y_label="")))


def test_size_scatter__many_boxes__a_bitmap_and_not_an_element_each() -> None:
    boxes = np.random.default_rng(0).uniform(2, 300, (5000, 2))
    assert len(plot("boxes", size_scatter(boxes, np.array([[64.0, 64.0]]))).svg) < 150_000


def test_size_distribution__ticks_as_people_write_them() -> None:
    html = plot("sizes", size_distribution([("boxes", np.array([3.0, 20.0, 100.0]))], x_label="px")).svg
    assert {"2", "4", "8", "16", "32", "64", "128"} <= set(re.findall(r">(\d+)</text>", html))


def test_share_by_size__few_values__are_left_out() -> None:
    """Ten of 2 px, half of them kept; three of 100 px, which say nothing."""
    sizes, kept = np.array([2.0] * 10 + [100.0] * 3), np.array([True, False] * 5 + [True] * 3)
    drawing = Figure()
    share_by_size(sizes, kept, x_label="px", y_label="% kept")(drawing, ON_WHITE)
    (line,) = drawing.axes[0].get_lines()
    assert line.get_ydata() == pytest.approx([50.0])


def test_save_png__real_colours_on_white(tmp_path: Path) -> None:
    draw = line_chart([Series("a", X, X)], x_label="x", y_label="y")
    save_png(tmp_path / "a.png", draw, size=(3, 2))
    with Image.open(tmp_path / "a.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert (255, 255, 255) in colours
    assert tuple(int(ON_WHITE.lines[0][i : i + 2], 16) for i in (1, 3, 5)) in colours


def test_sparkline__corners() -> None:
    points = sparkline_points(np.array([0.0, 1.0, -1.0]))
    assert points == "1,27.0 55,1.0 109,27.0"
    line = ElementTree.fromstring(part("sparkline", points, '"a" & b').strip())
    assert line.get("aria-label") == '"a" & b'
    assert line[1].get("points") == points

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.checks.findings import Finding
from detect.errors import InputError
from detect.evaluation.draw import label_colour
from detect.report.finding_pictures import MARGIN_GREY, SIDE_PX, FindingPictures, draw_finding
from detect.report.pictures import WRONG


@pytest.fixture
def white(tmp_path: Path) -> Path:
    path = tmp_path / "white.png"
    Image.new("RGB", (SIDE_PX, SIDE_PX // 2), "white").save(path)
    return path


def finding(image: Path | None, other: Path | None = None, box: list[float] | None = None) -> Finding:
    paths = (None if path is None else str(path) for path in (image, other))
    first, second = paths
    return Finding("code", "error", "a.jpg", 1, "detail", "dropped", image=first, box=box, other=second)


def extent(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what has `colour`."""
    found = np.argwhere((np.asarray(picture) == colour).all(axis=-1))
    if not len(found):
        return None
    (top, left), (bottom, right) = found.min(axis=0), found.max(axis=0) + 1
    return int(left), int(top), int(right), int(bottom)


def test_draw__box_inside__where_it_is(white: Path) -> None:
    drawn = draw_finding(white, [40, 30, 140, 90])
    assert drawn.size == (SIDE_PX, SIDE_PX // 2)
    assert extent(drawn, label_colour(WRONG)) == pytest.approx((40, 30, 140, 90), abs=2)
    assert extent(drawn, MARGIN_GREY) is None


def test_draw__box_without_area__still_to_be_seen(white: Path) -> None:
    left, top, right, bottom = (
        extent(draw_finding(white, [100, 50, 100, 50]), label_colour(WRONG)) or (0,) * 4
    )
    assert right - left > 8
    assert (left + right) / 2 == pytest.approx(100, abs=2)
    assert (top + bottom) / 2 == pytest.approx(50, abs=2)


def test_draw__box_beyond_the_edge__on_a_grey_ground_of_bounded_size(white: Path) -> None:
    drawn = draw_finding(white, [SIDE_PX + 50, 10, SIDE_PX + 90, 60])
    assert drawn.size[0] == SIDE_PX
    assert extent(drawn, MARGIN_GREY) is not None
    far = draw_finding(white, [-1e12, -1e12, 1e12, 1e12])
    assert far.size == (SIDE_PX, SIDE_PX // 2)  # half a picture is added on each side


def test_figure__repetition__both_pictures(white: Path) -> None:
    html = FindingPictures().figure(finding(white, other=white), "<b>title</b>", "a < b")
    assert html.count("<img") == 2
    assert "<b>title</b>" in html
    assert "a &lt; b" in html


def test_figure__nothing_to_show_or_no_room__nothing(white: Path, tmp_path: Path) -> None:
    album = FindingPictures()
    assert album.figure(finding(None), "t", "c") == ""
    assert album.figure(finding(tmp_path / "none.png"), "t", "c") == ""
    album.bytes_left = 100
    assert album.figure(finding(white), "t", "c") == ""
    with pytest.raises(InputError, match="cannot read image"):
        draw_finding(tmp_path / "none.png", None)

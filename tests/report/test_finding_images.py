from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.checks.findings import Finding
from detect.errors import InputError
from detect.evaluation.draw import label_colour
from detect.report.album import WRONG, ImageBudget
from detect.report.finding_images import MARGIN_GREY, SIDE_PX, draw_finding, finding_images


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


def test_finding_images__repetition__both_images(white: Path) -> None:
    figure = finding_images(finding(white, other=white), "a < b", ImageBudget())
    assert figure is not None
    assert len(figure.images) == 2
    assert figure.caption == "a < b"  # the template escapes it


def test_finding_images__nothing_to_show_or_no_room__nothing(white: Path, tmp_path: Path) -> None:
    budget = ImageBudget()
    assert finding_images(finding(None), "c", budget) is None
    assert finding_images(finding(tmp_path / "none.png"), "c", budget) is None
    budget.bytes_left = 100
    assert finding_images(finding(white), "c", budget) is None
    with pytest.raises(InputError, match="cannot read image"):
        draw_finding(tmp_path / "none.png", None)

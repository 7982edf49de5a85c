from __future__ import annotations

import re
from pathlib import Path

import pytest

from detect.inspection.data_check import check
from detect.report.data_check_page import IMAGES_PER_CODE, write_check_page
from tests.commands.test_data import museum
from tests.data_sets import coco_file, make_coco_split

GOOD = [4.0, 6.0, 20.0, 10.0]


def page_of(root: Path) -> str:
    path = root.parent / "page.html"
    write_check_page(check(root), path)
    return path.read_text()


def test_page__one_of_each_fault__named_shown_and_offline(tmp_path: Path) -> None:
    page = page_of(museum(tmp_path / "data"))
    for part in (
        "<h1>Data set data</h1>",
        '<span class="error">error</span>',
        "box-without-area",
        "xmin 1, ymin 2, xmax 1, ymax 6",
        "looks like good.jpg of the same split",
        "How well the best anchor fits",
        '<td class="left">train (training)</td>',
    ):
        assert part in page
    # Five boxes with a place, one without, a repetition of a box, three pairs of images.
    assert page.count("data:image/jpeg;base64,") == 7 + 2 * 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(page) < 5e6


def test_page__cannot_be_trained_on__said_first(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, [1, 1, 0, 5])], {3: "cat"})
    page = page_of(make_coco_split(tmp_path / "data", content))
    assert page.index("This cannot be trained on.") < page.index("box-without-area")


def test_page__names_that_are_html__only_text(tmp_path: Path) -> None:
    content = coco_file([("<b>.jpg", 64, 48)], [(1, 3, GOOD), (1, 3, [9, 9, 0, 0])], {3: "<script>x"})
    page = page_of(make_coco_split(tmp_path / "data", content))
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;x" in page


def test_page__many_findings__some_images_of_each_code(tmp_path: Path) -> None:
    boxes = [(1, 3, [i, 1, 0, 5]) for i in range(20)]
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, GOOD), *boxes], {3: "cat"})
    page = page_of(make_coco_split(tmp_path / "data", content))
    assert page.count("data:image/jpeg;base64,") == IMAGES_PER_CODE
    assert "box-without-area x 20" in page


def test_page__anchor_advice__with_what_it_costs_in_time(tmp_path: Path) -> None:
    boxes = [(1, 3, [20.0 * (i % 15), 20.0 * (i // 15), 14.0, 14.0]) for i in range(30)]
    content = coco_file([("a.jpg", 320, 320)], boxes, {3: "cat"})
    report = check(make_coco_split(tmp_path / "data", content))
    path = tmp_path / "page.html"
    write_check_page(report, path)
    advice = report.fits[report.train].advice
    assert any(one.time_ratio > 1 for one in advice)
    for one in advice:
        assert f"<li>{one.effect}: <code>" in path.read_text()


def test_page__nothing_wrong__says_so(tmp_path: Path) -> None:
    objects = [(1, 3, [2 * i, 1, 9, 5]) for i in range(25)]
    page = page_of(make_coco_split(tmp_path / "data", coco_file([("a.jpg", 64, 48)], objects, {3: "cat"})))
    assert "Nothing is wrong" in page


@pytest.mark.parametrize("name", ["bccd", "coco128"])
def test_page__real_data__below_5_mb(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "page.html"
    write_check_page(check(request.getfixturevalue(name)), path)
    assert 50_000 < path.stat().st_size < 5_000_000

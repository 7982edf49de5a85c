from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detect.inspection.anchor_advice import WORTHWHILE, settled
from detect.inspection.anchor_fit import Share, first_look, fit_anchors
from detect.inspection.anchor_layout import AnchorLayout
from detect.model.anchors import AnchorConfig
from detect.training.build import build_module
from tests.coco_cases import annotations_of, coco_dict
from tests.data_sets import open_boxes
from tests.run_cases import MODEL

DEFAULT = AnchorLayout.default()


def test_fit__an_anchor_and_a_speck__half_are_met(tmp_path: Path) -> None:
    # The paper head's first anchor at 320 is [-8, -8, 24, 24]; cell (5, 5) has its centre at 88, so 72..104.
    anchor = [72 * 2, 72 * 1.5, 32 * 2, 32 * 1.5]
    fit = fit_anchors(open_boxes(tmp_path, [anchor, [300, 300, 5, 5]]), DEFAULT)
    assert fit.to_json() | {"advice": None} == {
        "image_size": [320, 320],
        "style": "paper",
        "boxes": 2,
        "share": 0.5,
        "by_size": {
            "small": {"boxes": 1, "share": 0.0},
            "medium": {"boxes": 1, "share": 1.0},
            "large": {"boxes": 0, "share": None},
        },
        "by_class": {"odd": {"boxes": 1, "share": 0.0}, "even": {"boxes": 1, "share": 1.0}},
        "by_level": [2, 0, 0, 0, 0, 0],
        "advice": None,
    }


def test_fit__a_box_on_an_anchor_of_a_detector__fits_exactly() -> None:
    net = build_module(MODEL).net
    x1, y1, x2, y2 = net.anchors[40].tolist()
    stretch_x, stretch_y = 640 / 160, 480 / 160  # files of 640 x 480 on an input of 160 x 160
    box_xywh = [x1 * stretch_x, y1 * stretch_y, (x2 - x1) * stretch_x, (y2 - y1) * stretch_y]
    fit = fit_anchors(
        annotations_of(coco_dict([(1, 1, box_xywh)], image_ids=[1])), AnchorLayout.of(net), with_advice=False
    )
    assert fit.best_iou == pytest.approx([1], abs=1e-5)
    assert fit.boxes_wh == pytest.approx(np.array([[x2 - x1, y2 - y1]]), abs=1e-4)
    assert fit.advice == []


def test_fit__regions_to_ignore__not_counted(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[100, 100, 200, 150], [300, 300, 5, 5]])
    ignored = replace(found, ignore=np.array([False, True]))
    assert fit_anchors(ignored, DEFAULT).all.boxes == 1
    nothing = replace(found, ignore=np.array([True, True]))
    assert fit_anchors(nothing, DEFAULT).to_json()["share"] is None


def test_fit__a_part_of_the_boxes__has_their_number(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, 100, 50, 50] for x in range(0, 500, 10)])
    assert fit_anchors(found, DEFAULT, with_advice=False, at_most=10).all.boxes == 10


def test_share__as_text() -> None:
    assert str(Share(3, 2)) == "66.7%"
    assert str(Share(0, 0)) == "-"


def test_first_look__few_are_met__says_what_would_meet_more(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, y, 30, 22] for x in range(3, 600, 61) for y in range(5, 440, 47)])
    line, *more, auto = first_look(found, DEFAULT, keep_anchors=False)
    assert auto.startswith("  more with --model.anchors auto: ")
    assert line.startswith("anchor recall at IoU 0.5: 0.0% of the training boxes (small 0.0%)")
    assert len(more) == 2
    assert all("more with --model." in one for one in more)


def test_first_look__trained_anchors__advice_keeps_them(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, y, 44, 36] for x in range(3, 590, 61) for y in range(5, 430, 47)])
    assert "--model.anchors" in "".join(first_look(found, DEFAULT, keep_anchors=False))
    (kept,) = first_look(found, DEFAULT, keep_anchors=True)[1:]
    assert "--model.image_size '[512,512]'" in kept
    assert "--model.anchors" not in kept


def test_first_look__anchors_that_fit__one_line(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[100, 100, 128, 96]])
    said = first_look(found, DEFAULT, keep_anchors=False)
    assert said == ["anchor recall at IoU 0.5: 100.0% of the training boxes (large 100.0%)"]
    assert first_look(replace(found, ignore=np.array([True])), DEFAULT, keep_anchors=False) == []


def test_first_look__scales_would_help__names_auto(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, y, 44, 36] for x in range(3, 590, 61) for y in range(5, 430, 47)])
    auto = "  more with --model.anchors auto: "
    assert first_look(found, DEFAULT, keep_anchors=False)[-1].startswith(auto)
    fit = fit_anchors(found, DEFAULT)
    assert fit.auto is not None
    assert fit.auto.share >= fit.all.met / fit.all.boxes + WORTHWHILE
    fitted = settled(replace(DEFAULT, config=AnchorConfig(scales="auto")), found)
    assert fit_anchors(found, fitted).all.met == pytest.approx(fit.auto.share * fit.all.boxes, abs=0.1)
    for layout, keep in ((DEFAULT, True), (fitted, False)):
        assert "auto" not in "".join(first_look(found, layout, keep_anchors=keep))

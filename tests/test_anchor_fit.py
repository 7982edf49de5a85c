from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.anchor_fit import (
    MATCH_IOU,
    AnchorLayout,
    advise,
    best_anchors,
    boxes_as_input,
    fit_anchors,
)
from detect.anchors import AnchorConfig, AnchorGenerator, grid_sizes
from detect.backbones import MobileNetV3
from detect.boxes import box_iou
from detect.checkpoint import build_module
from detect.data.labels import Annotations
from detect.data.splits import open_split
from detect.ssdlite import SSDLite
from tests.coco_cases import annotations_of, coco_dict
from tests.data_sets import coco_file, make_coco_split
from tests.run_cases import MODEL

LAYOUTS = [
    AnchorLayout(),
    AnchorLayout(config=AnchorConfig(style="torchvision")),
    AnchorLayout((320, 480)),
    AnchorLayout((192, 256), AnchorConfig(style="torchvision", scales=[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])),
]


def open_boxes(root: Path, boxes: list[list[float]], size: tuple[int, int] = (640, 480)) -> Annotations:
    objects = [(1, 3 if i % 2 else 5, box) for i, box in enumerate(boxes)]
    make_coco_split(root, coco_file([("a.jpg", *size)], objects, {3: "odd", 5: "even"}))
    return open_split(root, role="train", box_convention="xywh").annotations


@pytest.mark.parametrize("layout", LAYOUTS)
def test_best_anchors__equal_comparing_with_every_anchor(layout: AnchorLayout) -> None:
    rng = np.random.default_rng(0)
    height, width = layout.image_size
    corner = rng.random((500, 2)) * (width, height) * 0.95
    far = corner + 2 + rng.random((500, 2)) * ((width, height) - corner - 2)
    boxes = np.concatenate([corner, far], axis=1).astype(np.float32)
    anchors = AnchorGenerator(layout.config)(grid_sizes(layout.image_size, layout.strides), layout.image_size)
    expected = box_iou(torch.from_numpy(boxes), anchors).max(dim=1).values.numpy()
    assert best_anchors(boxes, layout).iou == pytest.approx(expected, abs=1e-5)


def test_layout__anchors_are_those_of_the_detector() -> None:
    with torch.device("meta"):
        backbone = MobileNetV3("large", reduced_tail=True)
    net = SSDLite(backbone.to_empty(device="cpu"), 3, image_size=(256, 320))
    layout = AnchorLayout(net.image_size)
    assert np.concatenate([level.reshape(-1, 4) for level in layout.levels()]) == pytest.approx(
        net.anchors.numpy()
    )
    assert grid_sizes((320, 320), (16, 32)) == [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def test_boxes_as_input__stretched_each_way(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[64, 48, 128, 96]])
    # 640 x 480 onto 320 x 240: both halved; onto 320 x 320: y by 2 / 3.
    assert boxes_as_input(found, (240, 320)).tolist() == [[32, 24, 96, 72]]
    assert boxes_as_input(found, (320, 320))[0] == pytest.approx([32, 32, 96, 96])


def test_fit__an_anchor_and_a_speck__half_are_met(tmp_path: Path) -> None:
    # The paper head's first anchor at 320 is [-8, -8, 24, 24]; cell (5, 5) has its centre at 88, so 72..104.
    anchor = [72 * 2, 72 * 1.5, 32 * 2, 32 * 1.5]
    fit = fit_anchors(open_boxes(tmp_path, [anchor, [300, 300, 5, 5]]), AnchorLayout())
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
    assert fit_anchors(ignored, AnchorLayout()).all.boxes == 1
    nothing = replace(found, ignore=np.array([True, True]))
    assert fit_anchors(nothing, AnchorLayout()).to_json()["share"] is None


def test_advise__small_boxes__settings_keep_their_promise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [[*(rng.random(2) * (600, 440)).tolist(), 30.0, 22.0] for _ in range(200)]
    found, layout = open_boxes(tmp_path, boxes), AnchorLayout()
    now = fit_anchors(found, layout).all
    advice = advise(found, layout)
    assert advice
    for one in advice:
        settings = one.settings
        config = AnchorConfig(
            style=settings.get("model.anchors.style", "paper"), scales=settings.get("model.anchors.scales")
        )
        size = settings.get("model.image_size", [320, 320])
        changed = AnchorLayout((size[0], size[1]), config)
        met = best_anchors(boxes_as_input(found, changed.image_size), changed).iou >= MATCH_IOU
        assert one.share == pytest.approx(met.mean(), abs=1e-3)
        assert one.share > now.met / now.boxes
        assert f"{one.share:.1%} of the boxes" in str(one)


def test_advise__anchors_that_fit__none(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, y, 128, 96] for x in range(0, 500, 50) for y in range(0, 380, 40)])
    assert advise(found, AnchorLayout()) == []

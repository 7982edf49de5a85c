from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.boxes import box_iou
from detect.inspection.anchor_layout import (
    AnchorLayout,
    FileBoxes,
    anchor_recall,
    best_anchors,
    trained_boxes,
)
from detect.model.anchors import AnchorConfig, AnchorGenerator, grid_sizes
from detect.model.backbones import MobileNetV3
from detect.model.ssdlite import SSDLite
from tests.coco_cases import annotations_of, coco_dict
from tests.data_sets import open_boxes

DEFAULT = AnchorLayout.default()
LAYOUTS = [
    DEFAULT,
    replace(DEFAULT, config=AnchorConfig(style="torchvision")),
    replace(DEFAULT, image_size=(320, 480)),
    replace(
        DEFAULT,
        image_size=(192, 256),
        config=AnchorConfig(style="torchvision", scales=[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ),
    replace(DEFAULT, strides=(8, *DEFAULT.strides)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_best_anchors__equal_comparing_with_every_anchor(layout: AnchorLayout) -> None:
    rng = np.random.default_rng(0)
    height, width = layout.image_size
    corner = rng.random((500, 2)) * (width, height) * 0.95
    far = corner + 2 + rng.random((500, 2)) * ((width, height) - corner - 2)
    boxes = np.concatenate([corner, far], axis=1).astype(np.float32)
    generator = AnchorGenerator(layout.config, layout.strides)
    anchors = generator(grid_sizes(layout.image_size, layout.strides), layout.image_size)
    expected = box_iou(torch.from_numpy(boxes), anchors).max(dim=1).values.numpy()
    assert best_anchors(boxes, layout).iou == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("taps", [("c4", "c5"), ("c3", "c4", "c5"), ("c5",)])
def test_layout__anchors_are_those_of_the_detector(taps: tuple[str, ...]) -> None:
    with torch.device("meta"):
        backbone = MobileNetV3("large", reduced_tail=True)
    net = SSDLite(backbone.to_empty(device="cpu"), 3, image_size=(256, 320), taps=taps)
    layout = AnchorLayout.of(net)
    assert np.concatenate([level.reshape(-1, 4) for level in layout.levels()]) == pytest.approx(
        net.anchors.numpy()
    )
    assert layout.count == len(net.anchors)


def test_layout__default__is_the_papers() -> None:
    layout = DEFAULT
    assert layout.count == 2034
    assert grid_sizes(layout.image_size, layout.strides) == [
        (20, 20),
        (10, 10),
        (5, 5),
        (3, 3),
        (2, 2),
        (1, 1),
    ]


def test_on_input__stretched_each_way(tmp_path: Path) -> None:
    found = trained_boxes(open_boxes(tmp_path, [[64, 48, 128, 96]]))
    # 640 x 480 onto 320 x 240: both halved; onto 320 x 320: y by 2 / 3.
    assert found.on_input((240, 320)).tolist() == [[32, 24, 96, 72]]
    assert found.on_input((320, 320))[0] == pytest.approx([32, 32, 96, 96])


def test_trained_boxes__cut_to_their_images_and_without_regions_to_ignore(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[600, 400, 50, 100], [10, 10, 20, 20], [30, 30, 20, 20]])
    boxes = trained_boxes(replace(found, ignore=np.array([False, True, False])))
    assert boxes.boxes.tolist() == [[600, 400, 640, 480], [30, 30, 50, 50]]
    assert boxes.sizes.tolist() == [[480, 640]] * 2
    assert boxes.labels.tolist() == found.labels[[0, 2]].tolist()


def test_trained_boxes__of_more_than_asked_for__every_nth(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, 10, 20, 20] for x in range(0, 70, 10)])
    assert trained_boxes(found, at_most=7).boxes[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert trained_boxes(found, at_most=3).boxes[:, 0].tolist() == [0, 30, 60]


def test_file_boxes__know_their_images() -> None:
    annotations = annotations_of(coco_dict([(1, 1, [1, 2, 3, 4]), (3, 1, [5, 6, 7, 8])], image_ids=[1, 2, 3]))
    annotations = replace(annotations, sizes=np.array([[10, 20], [30, 40], [50, 60]], dtype=np.int32))
    assert FileBoxes.of(annotations, np.array([1, 0])).sizes.tolist() == [[50, 60], [10, 20]]


def test_anchor_recall__by_hand(tmp_path: Path) -> None:
    # The paper head's first anchor at 320 is [-8, -8, 24, 24]; cell (5, 5) has its centre at 88, so 72..104.
    anchor, speck = [72 * 2, 72 * 1.5, 32 * 2, 32 * 1.5], [300, 300, 5, 5]
    assert anchor_recall(trained_boxes(open_boxes(tmp_path, [anchor, speck, speck, anchor])), DEFAULT) == 0.5

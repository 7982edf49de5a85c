from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from detect.checkpoint import build_module
from detect.errors import InputError
from detect.report.data_facts import anchor_fit, open_data, split_facts
from tests.coco_cases import annotations_of, coco_dict
from tests.run_cases import MODEL


def test_split_facts__by_hand() -> None:
    boxes = [
        (1, 1, [0.0, 0.0, 31.0, 33.0]),  # 1023 px^2
        (1, 1, [0.0, 0.0, 32.0, 32.0]),
        (1, 2, [0.0, 0.0, 96.0, 96.0]),
        (3, 2, [0.0, 0.0, 50.0, 50.0]),  # a crowd
    ]
    dataset = coco_dict(boxes, image_ids=[1, 2, 3], category_ids=(1, 2), crowd=(3,))
    facts = split_facts(annotations_of(dataset))
    assert (facts.images, facts.empty_images, facts.boxes, facts.ignored, facts.most_boxes) == (3, 1, 3, 1, 3)
    assert (facts.small, facts.medium, facts.large) == (1, 1, 1)
    assert facts.per_class == {"class 1": 2, "class 2": 1}


def test_anchor_fit__a_box_on_an_anchor_fits_exactly() -> None:
    net = build_module(MODEL).net
    x1, y1, x2, y2 = net.anchors[40].tolist()
    stretch_x, stretch_y = 640 / 160, 480 / 160  # files of 640x480 on an input of 160x160
    box_xywh = [x1 * stretch_x, y1 * stretch_y, (x2 - x1) * stretch_x, (y2 - y1) * stretch_y]
    annotations = annotations_of(coco_dict([(1, 1, box_xywh), (1, 1, [0, 0, 0, 5])], image_ids=[1]))
    fit = anchor_fit(annotations, net)
    assert fit.best_iou == pytest.approx([1], abs=1e-5)  # the box without area is left out
    assert fit.boxes_wh == pytest.approx(np.array([[x2 - x1, y2 - y1]]), abs=1e-4)
    assert fit.num_anchors == len(net.anchors)


def test_anchor_fit__no_boxes__empty() -> None:
    assert (
        len(anchor_fit(annotations_of(coco_dict([], image_ids=[1])), build_module(MODEL).net).best_iou) == 0
    )


def test_open_data__quiet_and_by_the_section_alone(coco_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = open_data({"root": str(coco_root), "seed": 3, "augmentations": [{"class_path": "os.system"}]})
    assert len(data.val) == 4
    assert caplog.text == ""
    assert logging.root.manager.disable == logging.NOTSET


def test_open_data__not_there_or_broken__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        open_data({"root": str(tmp_path / "absent")})
    with pytest.raises(InputError, match=r"the data section of config\.yaml"):
        open_data({"total_batch_size": "many"})

import pytest

from detect.boxes import box_iou
from detect.data.array_boxes import iou_of_pairs
from tests.test_boxes import random_boxes


def test_iou_of_pairs__is_box_iou_row_by_row():
    boxes, others = random_boxes(7), random_boxes(7, seed=1)
    found = iou_of_pairs(boxes.numpy(), others.numpy())
    assert found == pytest.approx(box_iou(boxes, others).diagonal().numpy(), abs=1e-6)
    assert iou_of_pairs(boxes[:, None].numpy(), others.numpy()) == pytest.approx(
        box_iou(boxes, others).numpy(), abs=1e-6
    )

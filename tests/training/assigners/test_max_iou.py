import torch
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from detect.model.anchors import AnchorConfig
from detect.model.backbones import MobileNetV3
from detect.model.ssdlite import SSDLite
from detect.training.assigners import MaxIoUAssigner
from detect.types import Target
from tests.test_boxes import random_boxes


def target_of(boxes, labels=None, ignore=None) -> Target:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    labels = torch.tensor([labels or [1] * boxes.shape[1]])
    ignore = torch.tensor([ignore or [False] * boxes.shape[1]])
    return Target(boxes, labels, ignore)


def match(anchors: torch.Tensor, target: Target) -> torch.Tensor:
    return MaxIoUAssigner()(None, anchors, (len(anchors),), target).matched


ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [0, 0, 40, 10]])


def test_match__threshold_then_best_anchor():
    # The first box is anchor 0; the second meets anchor 2 with IoU 25/(100 + 50 - 25) = 0.2: best, so forced.
    matched = match(ANCHORS, target_of([[0, 0, 10, 10], [22.5, 0, 32.5, 5]]))
    assert matched.tolist() == [[0, -1, 1, -1]]


def test_match__later_box_wins_a_contested_anchor():
    matched = match(ANCHORS, target_of([[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 9, 10]]))
    assert matched[0, 0].item() == 2


def test_match__padding_matches_nothing():
    assert match(ANCHORS, target_of([[0, 0, 0, 0]], labels=[0])).tolist() == [[-1, -1, -1, -1]]


def test_match__padding_does_not_disturb_a_claim():
    matched = match(ANCHORS, target_of([[0, 0, 3, 3], [0, 0, 0, 0], [0, 0, 0, 0]], labels=[2, 0, 0]))
    assert matched.tolist() == [[0, -1, -1, -1]]


def test_match__ignore_regions_are_excluded_and_match_nothing():
    # The region covers anchor 1 wholly and anchor 2 to a third; anchor 3 (40 px wide) to a third.
    matched = match(ANCHORS, target_of([[10, 0, 23, 10]], ignore=[True]))
    assert matched.tolist() == [[-1, -2, -1, -1]]


def test_match__a_box_inside_an_ignore_region_keeps_its_anchor():
    matched = match(ANCHORS, target_of([[0, 0, 40, 10], [0, 0, 10, 10]], ignore=[True, False]))
    assert matched.tolist() == [[1, -2, -2, -2]]


def test_match__equals_torchvision():
    anchors = SSDLite(MobileNetV3(), 2, anchors=AnchorConfig("torchvision")).anchors
    boxes = (random_boxes(4, 12) * 0.5).clamp(max=320)
    ours = match(anchors, Target(boxes, torch.ones(4, 12).long(), torch.zeros(4, 12).bool()))
    for i in range(4):
        assert torch.equal(ours[i], SSDMatcher(0.5)(box_iou(boxes[i], anchors)))

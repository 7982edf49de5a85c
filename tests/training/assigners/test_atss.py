"""ATSS against the algorithm of its paper, written box by box; boxes smaller than cells by hand."""

import torch
from torchvision.ops import box_iou

from detect.model.anchors import AnchorConfig, AnchorGenerator, grid_sizes
from detect.training.assigners import BACKGROUND, IGNORED, ATSSAssigner
from detect.types import Target
from tests.test_boxes import random_boxes
from tests.training.assigners.test_max_iou import target_of

SIZE, STRIDES = (160, 160), (8, 16, 32)
GRIDS = grid_sizes(SIZE, STRIDES)
LEVELS = tuple(rows * columns for rows, columns in GRIDS)
ANCHORS = AnchorGenerator(AnchorConfig("points"), STRIDES)(GRIDS, SIZE)


def match(target: Target) -> torch.Tensor:
    return ATSSAssigner()(None, ANCHORS, LEVELS, target).matched


def algorithm_1(boxes: torch.Tensor) -> torch.Tensor:
    """(A,) row of the box of each anchor: the paper's lines, box by box."""
    iou = box_iou(boxes, ANCHORS)
    centres = (ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2
    best = torch.zeros(len(ANCHORS))
    matched = torch.full((len(ANCHORS),), BACKGROUND)
    for row, box in enumerate(boxes):
        distance = (centres - (box[:2] + box[2:]) / 2).norm(dim=1)
        candidates, first = [], 0
        for count in LEVELS:
            candidates.append(distance[first : first + count].topk(9, largest=False).indices + first)
            first += count
        places = torch.cat(candidates)
        threshold = iou[row, places].mean() + iou[row, places].std()
        for place in places.tolist():
            x, y = centres[place].tolist()
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and iou[row, place] >= threshold and iou[row, place] >= best[place]:
                best[place], matched[place] = iou[row, place], row
    return matched


def test_match__equals_the_algorithm_of_the_paper():
    boxes = (random_boxes(3, 9) / 4).clamp(max=160)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 64)  # large enough that none is forced
    target = Target(boxes, torch.ones(3, 9, dtype=torch.int64), torch.zeros(3, 9, dtype=torch.bool))
    matched = match(target)
    for row in range(3):
        assert torch.equal(matched[row], algorithm_1(boxes[row]))
    assert (matched >= 0).any(dim=1).all()


def test_match__a_box_without_a_centre_takes_its_best_candidate_and_keeps_it():
    # Centres lie at 4, 12, 20, ...: the first box holds none, the second has many.
    tiny, wide = [5.0, 5, 7, 7], [0.0, 0, 40, 40]
    matched = match(target_of([tiny, wide]))
    assert (matched[0] == 0).sum() == 1
    assert matched[0, 0] == 0  # the anchor at (4, 4), though the wide box overlaps it more
    assert (matched[0] == 1).sum() > 1


def test_match__padding_and_ignore_regions():
    box, region = [40.0, 40, 90, 90], [100.0, 100, 160, 160]
    alone = match(target_of([box]))
    matched = match(target_of([box, region, [0, 0, 0, 0]], labels=[1, 1, 0], ignore=[False, True, False]))
    assert torch.equal(alone == 0, matched == 0)
    assert (matched == IGNORED).any()
    assert not (alone == IGNORED).any()
    inside = ((ANCHORS >= 100) & (ANCHORS <= 160)).all(dim=1)
    assert (matched[0, inside] == IGNORED).all()


def test_match__no_boxes():
    assert (match(target_of([[0, 0, 0, 0]], labels=[0])) == BACKGROUND).all()

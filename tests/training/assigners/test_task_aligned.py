"""Task-aligned assignment against its definition, box by box."""

import torch
from torchvision.ops import box_iou

from detect.model.box_coder import decode, encode
from detect.training.assigners import BACKGROUND, IGNORED, ATSSAssigner, TaskAlignedAssigner
from detect.training.assigners.base import Assignment
from detect.types import HeadOutputs, Target
from tests.test_boxes import random_boxes
from tests.training.assigners.test_atss import ANCHORS, LEVELS
from tests.training.assigners.test_max_iou import target_of

K = 3


def random_outputs(images: int = 2) -> HeadOutputs:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, len(ANCHORS), K + 1, generator=generator)
    return HeadOutputs(logits, torch.randn(images, len(ANCHORS), 4, generator=generator))


def assign(outputs: HeadOutputs | None, target: Target) -> Assignment:
    assignment: Assignment = TaskAlignedAssigner()(outputs, ANCHORS, LEVELS, target)
    return assignment


def definition(
    outputs: HeadOutputs, boxes: torch.Tensor, labels: torch.Tensor, image: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A,) rows and (A,) soft targets, as TOOD's release has them, box by box."""
    iou = box_iou(boxes, decode(outputs.box_deltas[image], ANCHORS))
    scores = outputs.cls_logits[image].sigmoid()
    x, y = ((ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2).unbind(-1)
    wanted = torch.zeros(iou.shape)
    fits = torch.zeros(iou.shape)
    for row, (box, label) in enumerate(zip(boxes, labels.tolist(), strict=True)):
        fits[row] = scores[:, label] * iou[row] ** 6
        inside = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
        best = torch.where(inside, fits[row], -1).topk(13)
        wanted[row, best.indices[best.values >= 0]] = 1
    matched = torch.full((len(ANCHORS),), BACKGROUND)
    soft = torch.zeros(len(ANCHORS))
    for place in wanted.any(dim=0).nonzero().flatten().tolist():
        overlap = wanted[:, place] * (iou[:, place] + 1)
        matched[place] = (overlap == overlap.max()).nonzero().max()  # of equal ones the later box
    for row in range(len(boxes)):
        mine = matched == row
        if mine.any():
            soft[mine] = fits[row, mine] / fits[row, mine].max() * iou[row, mine].max()
    return matched, soft


def test_assign__equals_the_definition():
    boxes = (random_boxes(2, 6) / 4).clamp(max=160)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 24)  # each holds a centre
    labels = torch.tensor([[1, 2, 3, 1, 2, 3]] * 2)
    outputs = random_outputs()
    assignment = assign(outputs, Target(boxes, labels, torch.zeros(2, 6, dtype=torch.bool)))
    for image in range(2):
        matched, soft = definition(outputs, boxes[image], labels[image], image)
        assert torch.equal(assignment.matched[image], matched)
        torch.testing.assert_close(assignment.soft_targets[image], soft)
        assert torch.equal(assignment.labels[image] > 0, matched >= 0)


def test_assign__a_perfect_anchor_gets_the_highest_target():
    box = torch.tensor([40.0, 40, 90, 90])
    outputs = random_outputs(1)
    outputs.box_deltas[:] = encode(box.expand_as(ANCHORS), ANCHORS)  # every anchor predicts the box
    outputs.cls_logits[:] = -4
    outputs.cls_logits[0, 150, 2] = 4
    x, y = ((ANCHORS[150, :2] + ANCHORS[150, 2:]) / 2).tolist()
    assert 40 < x < 90
    assert 40 < y < 90
    assignment = assign(outputs, target_of([box.tolist()], labels=[2]))
    assert assignment.foreground.sum() == 13
    assert assignment.soft_targets.argmax() == 150
    assert assignment.soft_targets.max() == torch.ones(())


def test_assign__a_box_without_a_centre_takes_the_anchor_that_overlaps_it_most():
    assignment = assign(random_outputs(1), target_of([[5.0, 5, 7, 7]]))
    assert assignment.foreground.nonzero().tolist() == [[0, 0]]


def test_assign__padding_and_ignore_regions():
    box, region = [40.0, 40, 90, 90], [100.0, 100, 160, 160]
    alone = assign(random_outputs(1), target_of([box]))
    matched = assign(
        random_outputs(1),
        target_of([box, region, [0, 0, 0, 0]], labels=[1, 1, 0], ignore=[False, True, False]),
    )
    assert torch.equal(alone.foreground, matched.foreground)
    assert (matched.matched[0, ((ANCHORS >= 100) & (ANCHORS <= 160)).all(dim=1)] == IGNORED).all()


def test_assign__without_a_network_as_atss():
    target = target_of([[40.0, 40, 90, 90], [10, 90, 50, 140]])
    assert torch.equal(assign(None, target).matched, ATSSAssigner()(None, ANCHORS, LEVELS, target).matched)

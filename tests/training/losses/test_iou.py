"""Losses on the overlap: by hand, and in which order they rank boxes."""

import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detect.model.box_coder import decode, encode
from detect.training.losses import BoxLoss, CIoULoss, DIoULoss, GIoULoss
from detect.types import HeadOutputs
from tests.test_boxes import random_boxes

BOX = torch.tensor([[0.0, 0, 10, 10]])


def loss_of(loss: BoxLoss, predicted: list[float]) -> float:
    anchors = torch.tensor([[2.0, 2, 12, 12]])
    deltas = encode(torch.tensor([[predicted]]), anchors)
    value: torch.Tensor = loss(HeadOutputs(torch.zeros(1, 1, 2), deltas), BOX[None], anchors)
    assert value.shape == (1, 1)
    return value.item()


@pytest.mark.parametrize("loss", [GIoULoss(), DIoULoss(), CIoULoss()], ids=lambda loss: type(loss).__name__)
def test_iou_losses__nothing_for_the_box_itself(loss):
    assert loss_of(loss, [0, 0, 10, 10]) == pytest.approx(0, abs=1e-5)


def test_giou__by_hand():
    # Side by side with a gap of 10: IoU 0, hull 300, of which 100 are empty.
    assert loss_of(GIoULoss(), [20, 0, 30, 10]) == pytest.approx(1 + 1 / 3, abs=1e-4)
    # Half of the box: IoU 1/2, the hull is the box.
    assert loss_of(GIoULoss(), [0, 0, 5, 10]) == pytest.approx(0.5, abs=1e-4)


def test_diou_and_ciou__by_hand():
    # Half of the box: IoU 1/2, centres 2.5 apart, diagonal^2 200.
    distance = 2.5**2 / 200
    assert loss_of(DIoULoss(), [0, 0, 5, 10]) == pytest.approx(0.5 + distance, abs=1e-4)
    ratio = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    assert loss_of(CIoULoss(), [0, 0, 5, 10]) == pytest.approx(
        0.5 + distance + ratio**2 / (0.5 + ratio), abs=1e-4
    )


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        (GIoULoss(), generalized_box_iou_loss),
        (DIoULoss(), distance_box_iou_loss),
        (CIoULoss(), complete_box_iou_loss),
    ],
    ids=["GIoU", "DIoU", "CIoU"],
)
def test_iou_losses__equal_torchvision_in_value_and_gradient(loss, theirs):
    boxes, anchors = random_boxes(2, 200, seed=1), random_boxes(1, 200, seed=2)[0]
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(2, 200, 4, generator=generator).requires_grad_()
    logits = torch.zeros(2, 200, 2)
    ours = loss(HeadOutputs(logits, deltas), boxes, anchors)
    expected = theirs(decode(deltas, anchors), boxes)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad(value.sum(), deltas)[0] for value in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)

"""Losses on the overlap: by hand, and in which order they rank boxes."""

import math

import pytest
import torch

from detect.model.box_coder import encode
from detect.training.losses import BoxLoss, CIoULoss, DIoULoss, GIoULoss
from detect.types import HeadOutputs

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

"""Box losses on the overlap itself: they weigh the four coordinates as the metric does.

Torchvision has the same functions; theirs pick the overlapping pairs out by a mask, whose number the host
must know, so that a step would wait for the device and torch.compile would break its graph there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from detect.boxes import paired_overlap
from detect.model.box_coder import decode
from detect.training.losses.box import BoxLoss
from detect.types import HeadOutputs

EPS = 1e-7
"""Added to every divisor, as torchvision does."""


class GIoULoss(BoxLoss):
    """1 - generalized IoU, from 0 to 2.

    Source: arXiv 1902.09630 eq. 1 and algorithm 1.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        pairs = _Pairs.of(decode(head_outputs.box_deltas, anchors), boxes)
        hull = pairs.hull_size.prod(-1)
        return 1 - pairs.iou + (hull - pairs.union) / (hull + EPS)


class DIoULoss(BoxLoss):
    """1 - IoU, and the squared distance of the centres in diagonals of the smallest box around both.

    Source: arXiv 1911.08287 eq. 7.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        return _distance_loss(_Pairs.of(decode(head_outputs.box_deltas, anchors), boxes))


class CIoULoss(BoxLoss):
    """DIoU, and the difference of the aspect ratios.

    Source: arXiv 1911.08287 eq. 10; the weight of the ratios has no gradient.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        pairs = _Pairs.of(decode(head_outputs.box_deltas, anchors), boxes)
        ratios = 4 / math.pi**2 * (_angle(pairs.boxes) - _angle(pairs.predicted)).square()
        weight = (ratios / (1 - pairs.iou + ratios + EPS)).detach()
        return _distance_loss(pairs) + weight * ratios


class _Pairs(NamedTuple):
    """Predicted boxes and their ground truth, row by row."""

    predicted: Tensor
    """(..., 4) xyxy px."""
    boxes: Tensor
    """(..., 4) xyxy px."""
    iou: Tensor
    """(...)"""
    union: Tensor
    """(...) px^2."""
    hull_size: Tensor
    """(..., 2) width and height in px of the smallest box around both."""

    @classmethod
    def of(cls, predicted: Tensor, boxes: Tensor) -> _Pairs:
        shared, union = paired_overlap(predicted, boxes)
        top_left = torch.minimum(predicted[..., :2], boxes[..., :2])
        hull_size = torch.maximum(predicted[..., 2:], boxes[..., 2:]) - top_left
        return cls(predicted, boxes, shared / (union + EPS), union, hull_size)


def _distance_loss(pairs: _Pairs) -> Tensor:
    """(...) the loss of `DIoULoss`."""
    diagonal = pairs.hull_size.square().sum(-1)
    apart = (_centre(pairs.predicted) - _centre(pairs.boxes)).square().sum(-1)
    return 1 - pairs.iou + apart / (diagonal + EPS)


def _centre(boxes: Tensor) -> Tensor:
    """(..., 4) boxes to (..., 2) centres."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _angle(boxes: Tensor) -> Tensor:
    """(..., 4) boxes to (...) the angle whose tangent is width over height."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan(width / height)

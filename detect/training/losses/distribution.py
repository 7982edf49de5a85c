"""A box loss on the distributions that a detector with `model.box_bins` gives."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from detect.errors import InputError
from detect.model.box_bins import BIN_RANGE
from detect.model.box_coder import encode
from detect.training.losses.box import BoxLoss
from detect.training.losses.iou import GIoULoss
from detect.types import HeadOutputs


class DistributionFocalLoss(BoxLoss):
    """Another box loss and cross-entropy with the two bins next to each true delta; with `model.box_bins`.

    Args:
        weight: of the cross-entropy, the mean of the four deltas, beside the other box loss: 0.25 beside 2
            in the paper.
        base: a class of detect.training.losses, the other box loss; null: GIoULoss.

    Source: Generalized Focal Loss (arXiv 2006.04388) eq. 6; the weights, section 3.
    """

    needs_bins: ClassVar[bool] = True

    def __init__(self, *, weight: float = 0.125, base: BoxLoss | None = None) -> None:
        super().__init__()
        if weight < 0:
            raise InputError(f"DistributionFocalLoss: weight is {weight}; give 0 or more")
        self.weight = weight
        self.base = GIoULoss() if base is None else base

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        if head_outputs.box_logits is None:
            raise TypeError("DistributionFocalLoss is for the outputs of a network with box_bins")
        cross_entropy = neighbour_cross_entropy(head_outputs.box_logits, encode(boxes, anchors)).mean(-1)
        base: Tensor = self.base(head_outputs, boxes, anchors)
        return base + self.weight * cross_entropy


def neighbour_cross_entropy(box_logits: Tensor, deltas: Tensor) -> Tensor:
    """Cross-entropy with the distribution on the two bins around each delta whose expectation the delta is.

    Args:
        box_logits: (..., n) over the values of `BoxBins`.
        deltas: (...) true ones; those beyond the bins count as the last bin.

    Returns:
        (...), at least the entropy of that distribution.
    """
    last = box_logits.shape[-1] - 1
    position = (deltas.clamp(-BIN_RANGE, BIN_RANGE) + BIN_RANGE) * (last / (2 * BIN_RANGE))
    left = position.floor().clamp(max=last - 1)
    right_share = position - left
    shares = torch.stack([1 - right_share, right_share], dim=-1)
    neighbours = torch.stack([left, left + 1], dim=-1).long()
    return -(shares * box_logits.log_softmax(-1).gather(-1, neighbours)).sum(-1)

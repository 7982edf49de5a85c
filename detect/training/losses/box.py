"""How far predicted boxes lie from their ground truth, one number per anchor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from detect.errors import InputError
from detect.model.box_coder import encode
from detect.model.configurable import Configurable
from detect.types import HeadOutputs

BETA = 1.0


class BoxLoss(Configurable, nn.Module, ABC):
    """The box part of a detection loss; named in a configuration by `model.loss.init_args.box_loss`."""

    needs_bins: ClassVar[bool] = False
    """Whether it reads the distributions that a detector with `box_bins` gives."""

    @abstractmethod
    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        """(B, A) loss of every anchor; those that are not positive are left out by the caller.

        Args:
            head_outputs: box_deltas (B, A, 4) and, where the detector has bins, their logits; float32.
            boxes: (B, A, 4) xyxy px of the input, the box of each anchor; itself where it has none.
            anchors: (A, 4) xyxy, px of the input.
        """


class SmoothL1Loss(BoxLoss):
    """Smooth L1 on the deltas of SSD eq. 2, summed over the four.

    Args:
        beta: where smooth L1 turns from square to line, in units of box_deltas.

    Source: Fast R-CNN eq. 3; SSD eq. 2.
    """

    def __init__(self, *, beta: float = BETA) -> None:
        super().__init__()
        if beta < 0:
            raise InputError(f"loss.box_beta is {beta}; give 0 or more")
        self.beta = beta

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        deltas = encode(boxes, anchors)
        return F.smooth_l1_loss(head_outputs.box_deltas, deltas, reduction="none", beta=self.beta).sum(-1)

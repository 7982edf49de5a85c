"""The contract of an assigner: ground truth laid out along the anchors, for a batch at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detect.model.configurable import Configurable
from detect.types import HeadOutputs, Target

BACKGROUND = -1
IGNORED = -2


class Assignment(NamedTuple):
    """What every anchor must predict, and how much it counts; every shape is static."""

    matched: Tensor
    """(B, A) int64 row of `target.boxes`, BACKGROUND (-1), or IGNORED (-2): excluded from the loss."""
    foreground: Tensor
    """(B, A) bool: positive for a box."""
    background: Tensor
    """(B, A) bool; ignored anchors are neither."""
    labels: Tensor
    """(B, A) int64, 0 where not foreground."""
    boxes: Tensor
    """(B, A, 4) xyxy px of the input; the anchor itself where not foreground, so that encoding is 0."""
    weights: Tensor
    """(B, A) float32: factor on the class and box loss of the anchor; 1 where the assigner says nothing."""
    soft_targets: Tensor | None = None
    """(B, A) float32 in 0..1: the score that a positive anchor must give its label; None: 1."""


class Assigner(Configurable, nn.Module, ABC):
    """Decides which anchors are positive; named in a configuration by `model.loss.init_args.assigner`."""

    @abstractmethod
    def forward(
        self, head_outputs: HeadOutputs | None, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        """Assign a whole batch with static shapes: no loop over images, nothing that waits for the device.

        Args:
            head_outputs: logits (B, A, K + 1) and deltas (B, A, 4), detached; None where no network is at
                hand, as in `detect data preview`: then boxes and anchors alone decide.
            anchors: (A, 4) xyxy, px of the input.
            levels: anchors of each map, from fine to coarse; their sum is A.
            target: boxes (B, G, 4) in the same frame, labels (B, G), ignore (B, G).
        """


def lay_out(
    matched: Tensor,
    anchors: Tensor,
    target: Target,
    *,
    weights: Tensor | None = None,
    soft_targets: Tensor | None = None,
) -> Assignment:
    """Gather label and box of every anchor.

    Args:
        matched: (B, A) int64, as in `Assignment`.
        anchors: (A, 4) xyxy, px of the input.
        target: ground truth of the batch, same frame.
        weights: (B, A) float32; None: 1.
        soft_targets: (B, A) float32 in 0..1; None: 1.
    """
    foreground = matched >= 0
    rows = matched.clamp(min=0)
    labels = torch.where(foreground, target.labels.gather(1, rows), 0)
    boxes = target.boxes.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    return Assignment(
        matched=matched,
        foreground=foreground,
        background=matched == BACKGROUND,
        labels=labels,
        boxes=torch.where(foreground.unsqueeze(-1), boxes, anchors),
        weights=anchors.new_ones(matched.shape) if weights is None else weights,
        soft_targets=soft_targets,
    )

"""The contract of a loss: named sums over a batch.

A loss returns sums; who divides by the number of positives sees all ranks and the whole accumulation window
(`module`), this package sees one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.configurable import Configurable
from detect.training.assigners import Assigner, Assignment, MaxIoUAssigner
from detect.training.assigners.max_iou import IOU_THRESHOLD
from detect.training.losses.box import BETA, BoxLoss, SmoothL1Loss
from detect.types import HeadOutputs, ScoreActivation, Target

TOTAL = "loss"
"""Name of the sum of all terms."""


class LossTerms(NamedTuple):
    """Sums over a batch, float32 scalars; divided by `positives` they are the losses of the papers."""

    terms: dict[str, Tensor]
    """By name, such as loss_cls; logs, tables and curves follow the names."""
    image_positives: Tensor
    """(B,) positive anchors of each image; the sum of their qualities where a loss weighs them by it."""

    @property
    def positives(self) -> Tensor:
        """Those of the batch, a scalar."""
        return self.image_positives.sum()

    @property
    def total(self) -> Tensor:
        """The sum of all terms, which is what training minimises."""
        return reduce(add, self.terms.values())

    def stacked(self) -> Tensor:
        """(T + 1,) every term in order, then positives; detached."""
        return torch.stack([value.detach() for value in (*self.terms.values(), self.positives)])

    @classmethod
    def of(cls, names: Sequence[str], stacked: Tensor) -> LossTerms:
        """The inverse of `stacked`."""
        *terms, positives = stacked
        return cls(dict(zip(names, terms, strict=True)), positives.reshape(1))

    def per_positive(self) -> dict[str, Tensor]:
        """The total under the name `loss`, then every term; each divided by the positives, detached."""
        positives = self.positives.detach().clamp(min=1)
        named = {TOTAL: self.total, **self.terms}
        return {name: value.detach() / positives for name, value in named.items()}


class DetectionLoss(Configurable, nn.Module, ABC):
    """A class loss that the subclass defines and a box loss, both on the anchors that an assigner chooses.

    A subclass that has further terms overrides `term_names` and `terms`.

    Args:
        assigner: decides which anchors are positive; null: MaxIoUAssigner with `iou_threshold`.
        iou_threshold: of MaxIoUAssigner; null: 0.5.
        box_loss: of positive anchors; null: SmoothL1Loss with `box_beta`.
        box_weight: factor on the box loss.
        box_beta: of SmoothL1Loss; null: 1.

    Raises:
        InputError: a value is out of range, or one that another part was given instead of.
    """

    score_activation: ScoreActivation
    """What turns the logits that this loss trains into scores."""
    term_names: tuple[str, ...] = ("loss_cls", "loss_box")
    """The terms that `forward` returns, in order: logged as train/NAME and val/NAME."""

    def __init__(
        self,
        *,
        assigner: Assigner | None = None,
        iou_threshold: float | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 1.0,
        box_beta: float | None = None,
    ) -> None:
        super().__init__()
        require_not_negative(box_weight=box_weight)
        _refuse_both(assigner=assigner, iou_threshold=iou_threshold)
        _refuse_both(box_loss=box_loss, box_beta=box_beta)
        if assigner is None:
            threshold = IOU_THRESHOLD if iou_threshold is None else iou_threshold
            assigner = MaxIoUAssigner(iou_threshold=threshold)
        if box_loss is None:
            box_loss = SmoothL1Loss(beta=BETA if box_beta is None else box_beta)
        self.assigner = assigner
        self.box_loss = box_loss
        self.box_weight = box_weight

    def forward(
        self, head_outputs: HeadOutputs, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> LossTerms:
        """Sums over the batch in float32, whatever the autocast state; nothing waits for the device.

        Args:
            head_outputs: logits (B, A, K + 1), box_deltas (B, A, 4) and what they are made of.
            anchors: (A, 4) xyxy, px of the input.
            levels: anchors of each map; their sum is A.
            target: ground truth, boxes (B, G, 4) in the same frame.
        """
        with torch.autocast(device_type=anchors.device.type, enabled=False):
            head_outputs = head_outputs.map(Tensor.float)
            assignment = self.assign(head_outputs.map(Tensor.detach), anchors, levels, target)
            terms = self.terms(head_outputs, anchors, assignment)
            if tuple(terms) != self.term_names:
                raise InputError(
                    f"{type(self).__name__} returns the terms {', '.join(terms)}; its term_names are "
                    f"{', '.join(self.term_names)}"
                )
            return LossTerms(terms, self.positives(assignment))

    def assign(
        self, head_outputs: HeadOutputs, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        """What the assigner says; the arguments are as in `forward`, float32 and detached."""
        assignment: Assignment = self.assigner(head_outputs, anchors, levels, target)
        return assignment

    def positives(self, assignment: Assignment) -> Tensor:
        """(B,) what each image adds to the number that divides the terms; see `LossTerms`."""
        return assignment.foreground.sum(1).float()

    def terms(self, head_outputs: HeadOutputs, anchors: Tensor, assignment: Assignment) -> dict[str, Tensor]:
        """Sums over the batch, scalars by name; the arguments are float32 and as in `forward`."""
        box_loss = self.box_loss(head_outputs, assignment.boxes, anchors) * assignment.weights
        box_sum = torch.where(assignment.foreground, box_loss, 0.0).sum()
        class_sum = self.class_loss(head_outputs.cls_logits, assignment)
        return {"loss_cls": class_sum, "loss_box": self.box_weight * box_sum}

    @abstractmethod
    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        """Sum over the batch of the loss of (B, A, K + 1) float32 logits."""

    @abstractmethod
    def prior_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) bias of a fresh class head, for one anchor."""


def require_not_negative(**settings: float) -> None:
    """Check settings of a loss by their names.

    Raises:
        InputError: one is below 0.
    """
    for name, value in settings.items():
        if value < 0:
            raise InputError(f"loss.{name} is {value}; give 0 or more")


def _refuse_both(**settings: object) -> None:
    """A part and the setting of the part that it replaces."""
    (part, given), (name, value) = settings.items()
    if given is not None and value is not None:
        raise InputError(
            f"loss.{name} is {value}, and loss.{part} is {type(given).__name__}, which takes it as an "
            f"argument of its own or not at all: give loss.{part} alone"
        )

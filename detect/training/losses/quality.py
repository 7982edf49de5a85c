"""Class losses whose target is how well the predicted box lies: scores then rank boxes as the metric does."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from detect.boxes import paired_iou
from detect.model.box_coder import decode
from detect.training.assigners import Assigner, Assignment
from detect.training.losses.base import require_not_negative
from detect.training.losses.box import BoxLoss
from detect.training.losses.iou import GIoULoss
from detect.training.losses.sigmoid import SigmoidLoss, checked_prior, is_label, sum_of_counted
from detect.types import HeadOutputs, Target


class QualityLoss(SigmoidLoss):
    """Sigmoid scores on the K object columns; the target of a positive anchor is the quality of its box.

    The quality is the soft target of the assigner where it gives one, else the IoU of the predicted box.

    Args:
        prior: probability of an object that a fresh head starts from.
        weigh: weigh positive anchors by their quality and divide every term by its sum, as the papers; else
            positives weigh 1 and their number divides. Boxes that lie badly at first, small ones above all,
            then learn as quickly as others: in short runs from random weights they hardly learn otherwise.
        assigner: see `DetectionLoss`.
        box_loss: null: GIoULoss.
        cls_weight: factor on the class loss.
        box_weight: factor on the box loss.
    """

    def __init__(
        self,
        *,
        prior: float,
        weigh: bool,
        assigner: Assigner | None,
        box_loss: BoxLoss | None,
        cls_weight: float,
        box_weight: float,
    ) -> None:
        box_loss = GIoULoss() if box_loss is None else box_loss
        super().__init__(assigner=assigner, box_loss=box_loss, box_weight=box_weight)
        require_not_negative(cls_weight=cls_weight)
        self.prior = checked_prior(prior)
        self.weigh = weigh
        self.cls_weight = cls_weight

    def assign(
        self, head_outputs: HeadOutputs, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        assignment = super().assign(head_outputs, anchors, levels, target)
        quality = assignment.soft_targets
        if quality is None:
            quality = paired_iou(decode(head_outputs.box_deltas, anchors), assignment.boxes)
        return assignment._replace(soft_targets=torch.where(assignment.foreground, quality, 0.0))

    def positives(self, assignment: Assignment) -> Tensor:
        return _quality(assignment).sum(1) if self.weigh else super().positives(assignment)

    def terms(self, head_outputs: HeadOutputs, anchors: Tensor, assignment: Assignment) -> dict[str, Tensor]:
        weights = assignment.weights * (_quality(assignment) if self.weigh else 1.0)
        box_loss = self.box_loss(head_outputs, assignment.boxes, anchors) * weights
        class_sum = self.class_loss(head_outputs.cls_logits, assignment)
        return {
            "loss_cls": self.cls_weight * class_sum,
            "loss_box": self.box_weight * torch.where(assignment.foreground, box_loss, 0.0).sum(),
        }

    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        logits = cls_logits[..., 1:]
        labelled = is_label(assignment, logits.shape[-1])  # (B, A, K)
        truth = torch.where(labelled, _quality(assignment).unsqueeze(-1), 0.0)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return sum_of_counted(self.factor(logits, truth, labelled) * cross_entropy, assignment)

    @abstractmethod
    def factor(self, logits: Tensor, truth: Tensor, labelled: Tensor) -> Tensor:
        """(B, A, K) on the cross-entropy of logits (B, A, K) with `truth`, 0 but where `labelled`."""


def _quality(assignment: Assignment) -> Tensor:
    """(B, A) in 0..1, 0 where not positive; `assign` has set it."""
    if assignment.soft_targets is None:
        raise TypeError("the assignment of a QualityLoss comes from its `assign`")
    return assignment.soft_targets


class QualityFocalLoss(QualityLoss):
    """|quality - score|^beta times cross-entropy, for every anchor and class.

    Args:
        beta: how fast easy examples fade.
        prior: probability of an object that a fresh head starts from.
        weigh: weigh positives by the quality of their boxes, as the paper; slow for small objects in short
            runs from random weights.
        assigner: a class of detect.training.assigners, which decides which anchors are positive; null:
            MaxIoUAssigner.
        box_loss: a class of detect.training.losses for the boxes of positive anchors; null: GIoULoss.
        cls_weight: factor on the class loss.
        box_weight: factor on the box loss.

    Source: Generalized Focal Loss (arXiv 2006.04388) eq. 2.
    """

    def __init__(
        self,
        *,
        beta: float = 2.0,
        prior: float = 0.01,
        weigh: bool = False,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        cls_weight: float = 1.0,
        box_weight: float = 2.5,
    ) -> None:
        super().__init__(
            prior=prior,
            weigh=weigh,
            assigner=assigner,
            box_loss=box_loss,
            cls_weight=cls_weight,
            box_weight=box_weight,
        )
        require_not_negative(beta=beta)
        self.beta = beta

    def factor(self, logits: Tensor, truth: Tensor, labelled: Tensor) -> Tensor:
        return (truth - logits.sigmoid()).abs() ** self.beta


class VarifocalLoss(QualityLoss):
    """Cross-entropy, weighted by alpha * score^gamma where not positive and, with `weigh`, by the quality.

    Args:
        alpha: weight of what is not positive.
        gamma: how fast easy background fades.
        prior: probability of an object that a fresh head starts from.
        weigh: weigh positives by the quality of their boxes, as the paper; slow for small objects in short
            runs from random weights.
        assigner: a class of detect.training.assigners, which decides which anchors are positive; null:
            MaxIoUAssigner.
        box_loss: a class of detect.training.losses for the boxes of positive anchors; null: GIoULoss.
        cls_weight: factor on the class loss.
        box_weight: factor on the box loss.

    Source: VarifocalNet (arXiv 2008.13367) eq. 2; that the factor has no gradient, PaddleDetection's
    `varifocal_loss.py`.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        prior: float = 0.01,
        weigh: bool = False,
        assigner: Assigner | None = None,
        box_loss: BoxLoss | None = None,
        cls_weight: float = 1.0,
        box_weight: float = 2.5,
    ) -> None:
        super().__init__(
            prior=prior,
            weigh=weigh,
            assigner=assigner,
            box_loss=box_loss,
            cls_weight=cls_weight,
            box_weight=box_weight,
        )
        require_not_negative(alpha=alpha, gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma

    def factor(self, logits: Tensor, truth: Tensor, labelled: Tensor) -> Tensor:
        of_positives = truth if self.weigh else torch.ones_like(truth)
        return torch.where(labelled, of_positives, self.alpha * logits.detach().sigmoid() ** self.gamma)

"""SSD's loss: softmax cross-entropy with hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detect.training.assigners import Assigner, Assignment
from detect.training.losses.base import DetectionLoss, require_not_negative
from detect.training.losses.box import BoxLoss
from detect.types import ScoreActivation


class MultiBoxLoss(DetectionLoss):
    """Softmax cross-entropy over K + 1 classes with hard negatives.

    Args:
        negative_ratio: background anchors kept per positive of the image, hardest first.
        min_negatives: background anchors kept at least, so that images without boxes train too.
            0 is SSD's and torchvision's behaviour.
        assigner: a class of detect.training.assigners, which decides which anchors are positive; null:
            MaxIoUAssigner with `iou_threshold`.
        iou_threshold: an anchor with at least this IoU with a box is positive for it; null: 0.5.
        box_loss: a class of detect.training.losses for the boxes of positive anchors; null: SmoothL1Loss
            with `box_beta`.
        box_weight: factor on the box loss; raise it where classes are right and boxes lie badly.
        box_beta: where smooth L1 turns from square to line, in units of box_deltas; null: 1.

    Source: SSD section 2.2; `min_negatives` from TensorFlow's `min_negatives_per_image`.
    """

    score_activation: ScoreActivation = "softmax"

    def __init__(
        self,
        *,
        negative_ratio: float = 3.0,
        min_negatives: int = 3,
        assigner: Assigner | None = None,
        iou_threshold: float | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 1.0,
        box_beta: float | None = None,
    ) -> None:
        super().__init__(
            assigner=assigner,
            iou_threshold=iou_threshold,
            box_loss=box_loss,
            box_weight=box_weight,
            box_beta=box_beta,
        )
        require_not_negative(negative_ratio=negative_ratio, min_negatives=min_negatives)
        self.negative_ratio = negative_ratio
        self.min_negatives = min_negatives

    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        cross_entropy = assignment.weights * _cross_entropy(cls_logits, assignment)  # (B, A)
        positive = torch.where(assignment.foreground, cross_entropy, 0.0).sum()

        keep = (self.negative_ratio * assignment.foreground.sum(1)).clamp(min=self.min_negatives)  # (B,)
        # Cross-entropy is never negative, so -1 sorts all that is not background behind it.
        hardest = torch.where(assignment.background, cross_entropy, -1.0).sort(dim=1, descending=True).values
        rank = torch.arange(hardest.shape[1], device=hardest.device)
        kept = (rank < keep.unsqueeze(1)) & (hardest >= 0)
        return positive + torch.where(kept, hardest, 0.0).sum()

    def prior_bias(self, num_classes: int) -> Tensor:
        return torch.zeros(num_classes + 1)


def _cross_entropy(cls_logits: Tensor, assignment: Assignment) -> Tensor:
    """(B, A); a soft target is shared between the label and background."""
    labels, logits = assignment.labels, cls_logits.flatten(0, 1)
    of_label = F.cross_entropy(logits, labels.flatten(), reduction="none").view_as(labels)
    if assignment.soft_targets is None:
        return of_label
    nothing = torch.zeros_like(labels.flatten())
    of_background = F.cross_entropy(logits, nothing, reduction="none").view_as(labels)
    return torch.lerp(of_background, of_label, assignment.soft_targets)

"""RetinaNet's loss: every anchor counts, easy ones little."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detect.errors import InputError
from detect.training.assigners import Assigner, Assignment
from detect.training.losses.base import require_not_negative
from detect.training.losses.box import BoxLoss
from detect.training.losses.sigmoid import SigmoidLoss, checked_prior, is_label, sum_of_counted


class FocalLoss(SigmoidLoss):
    """Sigmoid focal loss on the K object columns; the background column gets no weight.

    Args:
        alpha: weight of positives against negatives (1 - alpha). TensorFlow's SSDLite configs use 0.75.
        gamma: how fast easy examples fade; 0: cross-entropy.
        prior: probability of an object that a fresh head starts from.
        assigner: a class of detect.training.assigners, which decides which anchors are positive; null:
            MaxIoUAssigner with `iou_threshold`.
        iou_threshold: an anchor with at least this IoU with a box is positive for it; null: 0.5.
        box_loss: a class of detect.training.losses for the boxes of positive anchors; null: SmoothL1Loss
            with `box_beta`.
        box_weight: factor on the box loss; raise it where classes are right and boxes lie badly.
        box_beta: where smooth L1 turns from square to line, in units of box_deltas; null: 1.

    Source: RetinaNet (arXiv 1708.02002) eq. 5 and section 4.1 (prior); with soft targets, quality focal loss
    (arXiv 2006.04388) eq. 2.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        prior: float = 0.01,
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
        if not 0 <= alpha <= 1:
            raise InputError(f"loss.alpha is {alpha}; give a share from 0 to 1")
        require_not_negative(gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma
        self.prior = checked_prior(prior)

    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        logits = cls_logits[..., 1:]
        truth = is_label(assignment, logits.shape[-1]).to(logits.dtype)  # (B, A, K)
        weight = self.alpha * truth + (1 - self.alpha) * (1 - truth)
        probability = logits.sigmoid()
        if assignment.soft_targets is None:
            miss = probability + truth - 2 * probability * truth  # 1 - p_t
        else:
            truth = truth * assignment.soft_targets.unsqueeze(-1)
            miss = (truth - probability).abs()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return sum_of_counted(weight * miss**self.gamma * cross_entropy, assignment)

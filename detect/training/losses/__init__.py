"""What the network is taught: classes and boxes of matched anchors, for a batch at once.

Both losses return sums; who divides by the number of positives sees all ranks and the whole accumulation
window (`module`), this file sees one batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detect.errors import InputError
from detect.model.box_coder import encode
from detect.model.configurable import Configurable
from detect.training.assigners.max_iou import IGNORED, match_anchors
from detect.types import HeadOutputs, ScoreActivation, Target


class LossSums(NamedTuple):
    """Sums over a batch, float32 scalars; divided by `positives` they are the losses of the papers."""

    loss_cls: Tensor
    loss_box: Tensor
    positives: Tensor


class Assignment(NamedTuple):
    """Ground truth laid out along the anchors."""

    foreground: Tensor
    """(B, A) bool."""
    background: Tensor
    """(B, A) bool; anchors in ignore regions are neither."""
    labels: Tensor
    """(B, A) int64, 0 where not foreground."""
    boxes: Tensor
    """(B, A, 4) xyxy px of the input; the anchor itself where not foreground, so that encoding is 0."""


def assign(anchors: Tensor, target: Target, iou_threshold: float) -> Assignment:
    """Give every anchor the label and box that it must predict.

    Args:
        anchors: (A, 4) xyxy, px of the input.
        target: ground truth of the batch, same frame.
        iou_threshold: see `match_anchors`.
    """
    matched_idx = match_anchors(anchors, target, iou_threshold=iou_threshold)
    foreground = matched_idx >= 0
    rows = matched_idx.clamp(min=0)
    labels = torch.where(foreground, target.labels.gather(1, rows), 0)
    boxes = target.boxes.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    boxes = torch.where(foreground.unsqueeze(-1), boxes, anchors)
    return Assignment(foreground, ~foreground & (matched_idx != IGNORED), labels, boxes)


def _require_not_negative(**settings: float) -> None:
    for name, value in settings.items():
        if value < 0:
            raise InputError(f"loss.{name} is {value}; give 0 or more")


class DetectionLoss(Configurable, nn.Module, ABC):
    """Smooth L1 on the boxes of matched anchors, and a class loss that the subclass defines.

    Args:
        iou_threshold: an anchor with at least this IoU with a box answers for it.
        box_weight: factor on the box loss.
        box_beta: where smooth L1 turns from square to line, in units of box_deltas.
    """

    score_activation: ScoreActivation
    """What turns the logits that this loss trains into scores."""

    def __init__(self, *, iou_threshold: float = 0.5, box_weight: float = 1.0, box_beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise InputError(f"loss.iou_threshold is {iou_threshold}; give a number above 0, at most 1")
        _require_not_negative(box_weight=box_weight, box_beta=box_beta)
        self.iou_threshold = iou_threshold
        self.box_weight = box_weight
        self.box_beta = box_beta

    def forward(self, head_outputs: HeadOutputs, anchors: Tensor, target: Target) -> LossSums:
        """Sums over the batch in float32, whatever the autocast state; nothing waits for the device.

        Args:
            head_outputs: logits (B, A, K + 1) and box_deltas (B, A, 4).
            anchors: (A, 4) xyxy, px of the input.
            target: ground truth, boxes (B, G, 4) in the same frame.
        """
        with torch.autocast(device_type=anchors.device.type, enabled=False):
            assignment = assign(anchors, target, self.iou_threshold)
            loss_cls = self.class_loss(head_outputs.cls_logits.float(), assignment)
            deltas = encode(assignment.boxes, anchors)
            loss_box = F.smooth_l1_loss(
                head_outputs.box_deltas.float(), deltas, reduction="none", beta=self.box_beta
            )
            loss_box = torch.where(assignment.foreground, loss_box.sum(-1), 0.0).sum()
            return LossSums(loss_cls, self.box_weight * loss_box, assignment.foreground.sum().float())

    @abstractmethod
    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        """Sum over the batch of the loss of (B, A, K + 1) float32 logits."""

    @abstractmethod
    def prior_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) bias of a fresh class head, for one anchor."""


class MultiBoxLoss(DetectionLoss):
    """Softmax cross-entropy over K + 1 classes with hard negatives.

    Args:
        negative_ratio: background anchors kept for each positive of the image, hardest first.
        min_negatives: background anchors kept at least, so that images without boxes train too.
            0 is SSD's and torchvision's behaviour.
        iou_threshold: an anchor with at least this IoU with a box answers for it.
        box_weight: factor on the box loss; raise it where classes are right and boxes lie badly.
        box_beta: where smooth L1 turns from square to line, in units of box_deltas.

    Source: SSD section 2.2; `min_negatives` from TensorFlow's `min_negatives_per_image`.
    """

    score_activation: ScoreActivation = "softmax"

    def __init__(
        self,
        *,
        negative_ratio: float = 3.0,
        min_negatives: int = 3,
        iou_threshold: float = 0.5,
        box_weight: float = 1.0,
        box_beta: float = 1.0,
    ) -> None:
        super().__init__(iou_threshold=iou_threshold, box_weight=box_weight, box_beta=box_beta)
        _require_not_negative(negative_ratio=negative_ratio, min_negatives=min_negatives)
        self.negative_ratio = negative_ratio
        self.min_negatives = min_negatives

    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        cross_entropy = F.cross_entropy(
            cls_logits.flatten(0, 1), assignment.labels.flatten(), reduction="none"
        )
        cross_entropy = cross_entropy.view_as(assignment.labels)  # (B, A)
        positive = torch.where(assignment.foreground, cross_entropy, 0.0).sum()

        keep = (self.negative_ratio * assignment.foreground.sum(1)).clamp(min=self.min_negatives)  # (B,)
        # Cross-entropy is never negative, so -1 sorts all that is not background behind it.
        hardest = torch.where(assignment.background, cross_entropy, -1.0).sort(dim=1, descending=True).values
        rank = torch.arange(hardest.shape[1], device=hardest.device)
        kept = (rank < keep.unsqueeze(1)) & (hardest >= 0)
        return positive + torch.where(kept, hardest, 0.0).sum()

    def prior_bias(self, num_classes: int) -> Tensor:
        return torch.zeros(num_classes + 1)


class FocalLoss(DetectionLoss):
    """Sigmoid focal loss on the K object columns; the background column gets no weight.

    Args:
        alpha: weight of positives against negatives (1 - alpha). TensorFlow's SSDLite configs use 0.75.
        gamma: how fast easy examples fade; 0: cross-entropy.
        prior: probability of an object that a fresh head starts from.
        iou_threshold: an anchor with at least this IoU with a box answers for it.
        box_weight: factor on the box loss; raise it where classes are right and boxes lie badly.
        box_beta: where smooth L1 turns from square to line, in units of box_deltas.

    Source: RetinaNet (arXiv 1708.02002) eq. 5 and section 4.1 (prior).
    """

    score_activation: ScoreActivation = "sigmoid"

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        prior: float = 0.01,
        iou_threshold: float = 0.5,
        box_weight: float = 1.0,
        box_beta: float = 1.0,
    ) -> None:
        super().__init__(iou_threshold=iou_threshold, box_weight=box_weight, box_beta=box_beta)
        if not 0 < prior < 1:
            raise InputError(f"loss.prior is {prior}; give a probability between 0 and 1")
        if not 0 <= alpha <= 1:
            raise InputError(f"loss.alpha is {alpha}; give a share from 0 to 1")
        _require_not_negative(gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma
        self.prior = prior

    def class_loss(self, cls_logits: Tensor, assignment: Assignment) -> Tensor:
        logits = cls_logits[..., 1:]
        classes = torch.arange(1, logits.shape[-1] + 1, device=logits.device)
        truth = (assignment.labels.unsqueeze(-1) == classes).to(logits.dtype)  # (B, A, K)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability = logits.sigmoid()
        miss = probability + truth - 2 * probability * truth  # 1 - p_t
        weight = self.alpha * truth + (1 - self.alpha) * (1 - truth)
        loss = (weight * miss**self.gamma * cross_entropy).sum(-1)
        return torch.where(assignment.foreground | assignment.background, loss, 0.0).sum()

    def prior_bias(self, num_classes: int) -> Tensor:
        bias = torch.full((num_classes + 1,), -math.log((1 - self.prior) / self.prior))
        bias[0] = 0.0
        return bias

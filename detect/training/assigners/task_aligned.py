"""Task-aligned assignment: positive is where the network itself is good at class and box at once."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import box_iou
from detect.errors import InputError
from detect.model.box_coder import decode
from detect.training.assigners.atss import ATSSAssigner
from detect.training.assigners.base import Assigner, Assignment, lay_out
from detect.training.assigners.candidates import centres_inside, ignore_regions, settle
from detect.types import HeadOutputs, Target


class TaskAlignedAssigner(Assigner):
    """The anchors whose score and predicted box fit a box best are positive, each as much as it fits.

    The fit is t = score^alpha * IoU^beta of the predicted box; the best anchors whose centres lie inside the
    box are positive. An anchor that several boxes want goes to the one that its box overlaps most. A box
    without a centre inside takes the anchor whose own square overlaps it most. Scores are those of a
    sigmoid. The soft target of an anchor is t, scaled so that the best anchor of a box gets the highest IoU
    of its anchors. Where no network is at hand, as in a preview, ATSS decides.

    Args:
        candidates: most anchors per box.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        ignore_threshold: minimum share of an anchor's area inside one region to ignore.

    Source: TOOD (arXiv 2108.07755) section 3.2; values of its release.
    """

    def __init__(
        self, *, candidates: int = 13, alpha: float = 1.0, beta: float = 6.0, ignore_threshold: float = 0.5
    ) -> None:
        super().__init__()
        if candidates < 1 or min(alpha, beta) < 0 or not 0 < ignore_threshold <= 1:
            raise InputError(
                f"TaskAlignedAssigner: candidates is {candidates}, alpha {alpha}, beta {beta}, "
                f"ignore_threshold {ignore_threshold}; at least 1, twice at least 0, and a share above 0"
            )
        self.candidates, self.alpha, self.beta = candidates, alpha, beta
        self.ignore_threshold = ignore_threshold
        self.without_network = ATSSAssigner(ignore_threshold=ignore_threshold)

    def forward(
        self, head_outputs: HeadOutputs | None, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        if head_outputs is None:
            assignment: Assignment = self.without_network(None, anchors, levels, target)
            return assignment
        usable = ((target.labels > 0) & ~target.ignore).unsqueeze(-1)  # (B, G, 1)
        boxes = target.boxes.float()
        iou = box_iou(boxes, decode(head_outputs.box_deltas, anchors))  # (B, G, A)
        scores = head_outputs.cls_logits.float().sigmoid().transpose(1, 2)  # (B, K + 1, A)
        labels = target.labels.unsqueeze(-1).expand(-1, -1, scores.shape[-1])
        fit = scores.gather(1, labels) ** self.alpha * iou**self.beta

        inside = centres_inside(anchors, boxes)
        forced = box_iou(boxes, anchors).argmax(-1, keepdim=True)
        none_inside = ~inside.any(-1, keepdim=True)
        allowed = inside | torch.zeros_like(inside).scatter(-1, forced, none_inside)
        ranked = torch.where(allowed, fit, -1.0)
        best = ranked.topk(min(self.candidates, len(anchors)), dim=-1)
        claims = usable & (best.values >= 0)
        overlap = iou.gather(-1, best.indices)
        matched = settle(claims, overlap, best.indices, len(anchors))

        rows = matched.clamp(min=0).unsqueeze(1)
        mine = matched.unsqueeze(1) == torch.arange(boxes.shape[1], device=rows.device).view(1, -1, 1)
        peak_fit = torch.where(mine, fit, 0.0).amax(-1)  # (B, G)
        peak_iou = torch.where(mine, iou, 0.0).amax(-1)
        scale = peak_iou / peak_fit.clamp(min=torch.finfo(torch.float32).tiny)
        soft = (fit * scale.unsqueeze(-1)).gather(1, rows).squeeze(1)
        soft = torch.where(matched >= 0, soft, 0.0)
        matched = ignore_regions(matched, anchors, target, threshold=self.ignore_threshold)
        return lay_out(matched, anchors, target, soft_targets=soft)

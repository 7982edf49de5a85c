"""SSD's rule: an anchor is positive for the box that it overlaps most, if it overlaps it enough."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import box_area, intersection
from detect.errors import InputError
from detect.training.assigners.base import BACKGROUND, IGNORED, Assigner, Assignment, lay_out
from detect.types import HeadOutputs, Target

IOU_THRESHOLD = 0.5


class MaxIoUAssigner(Assigner):
    """An anchor takes the box that it overlaps most, if their IoU is high enough; every box gets an anchor.

    Then every box takes the anchor that overlaps it most, whatever the IoU; where two boxes want the same
    anchor, the later box gets it. An unmatched anchor in an ignore region is excluded from the loss.

    Args:
        iou_threshold: minimum IoU of a match, above 0.
        ignore_threshold: minimum share of an anchor's area inside one ignore region.

    Source: SSD section 2.2; the order of the two steps as in torchvision's `SSDMatcher`.
    """

    def __init__(self, *, iou_threshold: float = IOU_THRESHOLD, ignore_threshold: float = 0.5) -> None:
        super().__init__()
        for name, value in (("iou_threshold", iou_threshold), ("ignore_threshold", ignore_threshold)):
            if not 0 < value <= 1:
                raise InputError(f"loss.{name} is {value}; give a number above 0, at most 1")
        self.iou_threshold = iou_threshold
        self.ignore_threshold = ignore_threshold

    def forward(
        self, head_outputs: HeadOutputs | None, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        return lay_out(self.match(anchors, target), anchors, target)

    def match(self, anchors: Tensor, target: Target) -> Tensor:
        """(B, A) int64 row of `target.boxes`, -1 background, -2 ignored.

        Args:
            anchors: (A, 4) xyxy, px of the input.
            target: boxes (B, G, 4) in the same frame, labels (B, G), ignore (B, G).
        """
        exists = target.labels > 0  # (B, G)
        usable, region = exists & ~target.ignore, exists & target.ignore
        shared = intersection(target.boxes.float(), anchors)  # (B, G, A)
        anchor_area = box_area(anchors)
        covered = (shared * region.unsqueeze(-1)).amax(dim=1)  # (B, A)
        in_region = region.any(dim=1, keepdim=True) & (covered >= self.ignore_threshold * anchor_area)

        # An infinite area makes the IoU of rows that may not match 0, without a pass over (B, G, A); in
        # place, because at many boxes moving memory is what this costs.
        area = torch.where(usable, box_area(target.boxes.float()), torch.inf)
        iou = shared.div_((area.unsqueeze(-1) + anchor_area).sub_(shared))
        best_iou, best_box = iou.max(dim=1)  # (B, A)
        matched = torch.where(best_iou >= self.iou_threshold, best_box, BACKGROUND)
        matched = torch.where(in_region & (matched == BACKGROUND), IGNORED, matched)

        # amax settles anchors wanted by several boxes: the later one wins. Unusable rows offer -1.
        best_anchor = iou.max(dim=2).indices  # (B, G)
        rows = torch.arange(usable.shape[1], device=usable.device).expand_as(best_anchor)
        claims = torch.full_like(matched, BACKGROUND)
        claims = claims.scatter_reduce(1, best_anchor, torch.where(usable, rows, BACKGROUND), "amax")
        return torch.where(claims >= 0, claims, matched)

"""Which anchor answers for which ground-truth box."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import box_area, box_iou, intersection
from detect.types import Target

BACKGROUND = -1
IGNORED = -2


def match_anchors(
    anchors: Tensor, target: Target, *, iou_threshold: float = 0.5, ignore_threshold: float = 0.5
) -> Tensor:
    """Match a batch of images at once; every shape is static.

    An anchor takes the box that it overlaps most, if their IoU is at least `iou_threshold`. Then every box
    takes the anchor that overlaps it most, whatever the IoU; where two boxes want the same anchor, the
    later box gets it. An unmatched anchor that lies in an ignore region is left out of the loss.

    Args:
        anchors: (A, 4) xyxy, px of the input.
        target: boxes (B, G, 4) in the same frame, labels (B, G), ignore (B, G).
        iou_threshold: least IoU of a match.
        ignore_threshold: least share of an anchor's area inside one ignore region.

    Returns:
        matched_idx: (B, A) int64 row of `target.boxes`, -1 background, -2 ignored.

    Source: SSD section 2.2; the order of the two steps as in torchvision's `SSDMatcher`.
    """
    usable = (target.labels > 0) & ~target.ignore  # (B, G)
    iou = box_iou(target.boxes, anchors)  # (B, G, A)
    iou = torch.where(usable.unsqueeze(-1), iou, -1.0)

    best_iou, best_box = iou.max(dim=1)  # (B, A)
    matched_idx = torch.where(best_iou >= iou_threshold, best_box, BACKGROUND)

    region = (target.labels > 0) & target.ignore
    covered = intersection(target.boxes, anchors) >= ignore_threshold * box_area(anchors)  # (B, G, A)
    in_region = (covered & region.unsqueeze(-1)).any(dim=1)
    matched_idx = torch.where(in_region & (matched_idx == BACKGROUND), IGNORED, matched_idx)

    # amax settles anchors wanted by several boxes: the later one wins. Unusable rows offer -1.
    best_anchor = iou.argmax(dim=2)  # (B, G)
    rows = torch.arange(usable.shape[1], device=usable.device).expand_as(best_anchor)
    claims = torch.full_like(matched_idx, BACKGROUND)
    claims = claims.scatter_reduce(1, best_anchor, torch.where(usable, rows, BACKGROUND), "amax")
    return torch.where(claims >= 0, claims, matched_idx)

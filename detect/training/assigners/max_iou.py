"""Which anchor answers for which ground-truth box."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import box_area, intersection
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
        iou_threshold: least IoU of a match, above 0.
        ignore_threshold: least share of an anchor's area inside one ignore region.

    Returns:
        matched_idx: (B, A) int64 row of `target.boxes`, -1 background, -2 ignored.

    Source: SSD section 2.2; the order of the two steps as in torchvision's `SSDMatcher`.
    """
    exists = target.labels > 0  # (B, G)
    usable, region = exists & ~target.ignore, exists & target.ignore
    shared = intersection(target.boxes.float(), anchors)  # (B, G, A)
    anchor_area = box_area(anchors)
    covered = (shared * region.unsqueeze(-1)).amax(dim=1)  # (B, A)
    in_region = region.any(dim=1, keepdim=True) & (covered >= ignore_threshold * anchor_area)

    # An infinite area makes the IoU of rows that may not match 0, without a pass over (B, G, A); in place,
    # because at many boxes moving memory is what this costs.
    area = torch.where(usable, box_area(target.boxes.float()), torch.inf)
    iou = shared.div_((area.unsqueeze(-1) + anchor_area).sub_(shared))
    best_iou, best_box = iou.max(dim=1)  # (B, A)
    matched_idx = torch.where(best_iou >= iou_threshold, best_box, BACKGROUND)
    matched_idx = torch.where(in_region & (matched_idx == BACKGROUND), IGNORED, matched_idx)

    # amax settles anchors wanted by several boxes: the later one wins. Unusable rows offer -1.
    best_anchor = iou.max(dim=2).indices  # (B, G)
    rows = torch.arange(usable.shape[1], device=usable.device).expand_as(best_anchor)
    claims = torch.full_like(matched_idx, BACKGROUND)
    claims = claims.scatter_reduce(1, best_anchor, torch.where(usable, rows, BACKGROUND), "amax")
    return torch.where(claims >= 0, claims, matched_idx)

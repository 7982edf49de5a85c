"""What assigners have in common that choose some candidates for each box: conflicts, boxes left out, regions.

Candidates are (B, G, C) places of anchors, so that no table of all boxes by all anchors is needed after they
are chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import box_area, intersection
from detect.training.assigners.base import BACKGROUND, IGNORED
from detect.types import Target

NOTHING = -1.0


def centres_inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Whether the centre of each of (A, 4) anchors lies inside each of (B, G, 4) boxes: (B, G, A) bool."""
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(-1)
    x0, y0, x1, y1 = boxes.unsqueeze(-2).unbind(-1)  # each (B, G, 1)
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def settle(claims: Tensor, quality: Tensor, anchors_wanted: Tensor, num_anchors: int) -> Tensor:
    """Give each anchor to the box that wants it with the highest quality; of equal ones to the later box.

    Args:
        claims: (B, G, C) bool, whether the box wants the candidate.
        quality: (B, G, C) float, at least 0.
        anchors_wanted: (B, G, C) int64, the anchor that each candidate is.
        num_anchors: A.

    Returns:
        (B, A) int64 row of the box, BACKGROUND where none wants the anchor.
    """
    wanted = torch.where(claims, quality, NOTHING).flatten(1)
    place = anchors_wanted.flatten(1)
    best = wanted.new_full((len(wanted), num_anchors), NOTHING).scatter_reduce(1, place, wanted, "amax")
    rows = torch.arange(claims.shape[1], device=claims.device).view(1, -1, 1).expand_as(claims).flatten(1)
    wins = claims.flatten(1) & (wanted == best.gather(1, place))
    matched = torch.full_like(best, BACKGROUND, dtype=torch.int64)
    return matched.scatter_reduce(1, place, torch.where(wins, rows, BACKGROUND), "amax")


def ignore_regions(matched: Tensor, anchors: Tensor, target: Target, *, threshold: float) -> Tensor:
    """`matched` (B, A), where background that lies inside a region to ignore is IGNORED.

    Args:
        matched: as in `Assignment`.
        anchors: (A, 4) xyxy, px of the input.
        target: ground truth, same frame.
        threshold: minimum share of an anchor's area inside one region.
    """
    region = (target.labels > 0) & target.ignore
    shared = intersection(target.boxes.float(), anchors) * region.unsqueeze(-1)
    inside = region.any(dim=1, keepdim=True) & (shared.amax(dim=1) >= threshold * box_area(anchors))
    return torch.where(inside & (matched == BACKGROUND), IGNORED, matched)

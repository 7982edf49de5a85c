"""Adaptive training sample selection: the threshold of each box follows from its own candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes import paired_iou
from detect.errors import InputError
from detect.training.assigners.base import Assigner, Assignment, lay_out
from detect.training.assigners.candidates import ignore_regions, settle
from detect.types import HeadOutputs, Target


class ATSSAssigner(Assigner):
    """Of the anchors nearest to a box on each map, those with an IoU above mean + deviation are positive.

    Their centres must lie inside the box, but for the candidate with the highest IoU, which every box keeps:
    a box smaller than a cell may hold no centre. An anchor that several boxes want goes to the one that it
    overlaps most.

    Args:
        candidates: anchors nearest to the centre of a box, per map.
        ignore_threshold: minimum share of an anchor's area inside one region to ignore.

    Source: ATSS (arXiv 1912.02424) algorithm 1.
    """

    def __init__(self, *, candidates: int = 9, ignore_threshold: float = 0.5) -> None:
        super().__init__()
        if candidates < 1 or not 0 < ignore_threshold <= 1:
            raise InputError(
                f"ATSSAssigner: candidates is {candidates}, ignore_threshold {ignore_threshold}; at least 1, "
                "and a share above 0"
            )
        self.candidates = candidates
        self.ignore_threshold = ignore_threshold

    def forward(
        self, head_outputs: HeadOutputs | None, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        usable = (target.labels > 0) & ~target.ignore  # (B, G)
        boxes = target.boxes.float()
        nearest = self._nearest(boxes, anchors, levels)  # (B, G, C)
        near = anchors[nearest]
        iou = paired_iou(boxes.unsqueeze(2), near)
        threshold = iou.mean(-1, keepdim=True) + iou.std(-1, keepdim=True)
        centre = (near[..., :2] + near[..., 2:]) / 2
        inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1)
        best = torch.zeros_like(inside).scatter(-1, iou.argmax(-1, keepdim=True), True)
        # A forced anchor outweighs the wish of a box that has others.
        chosen = (iou >= threshold) & inside
        lonely = ~chosen.any(-1, keepdim=True)
        claims = usable.unsqueeze(-1) & (chosen | (best & lonely))
        matched = settle(claims, iou + lonely, nearest, len(anchors))
        matched = ignore_regions(matched, anchors, target, threshold=self.ignore_threshold)
        return lay_out(matched, anchors, target)

    def _nearest(self, boxes: Tensor, anchors: Tensor, levels: tuple[int, ...]) -> Tensor:
        """(B, G, C) places of the anchors nearest to the centre of each of (B, G, 4) boxes, map by map."""
        centres = (boxes[..., :2] + boxes[..., 2:]).unsqueeze(2) / 2  # (B, G, 1, 2)
        found, first = [], 0
        for count in levels:
            part = anchors[first : first + count]
            offset = centres - (part[:, :2] + part[:, 2:]) / 2
            distance = offset.square().sum(-1)  # (B, G, count)
            k = min(self.candidates, count)
            found.append(distance.topk(k, dim=-1, largest=False).indices + first)
            first += count
        return torch.cat(found, dim=-1)

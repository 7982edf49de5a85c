"""Boxes relative to anchors: what the box head learns. Between the input's frame and the anchors'."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.model.thresholds import CENTRE_VARIANCE, MAX_LOG_RATIO, SIZE_VARIANCE


def _centres_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) xyxy to (..., 2) centres and (..., 2) sizes."""
    top_left, bottom_right = boxes.split(2, dim=-1)
    size = bottom_right - top_left
    return top_left + size / 2, size


def encode(gt_boxes: Tensor, anchors: Tensor) -> Tensor:
    """Express each box relative to its anchor, so that `decode(encode(b, a), a) == b`.

    Args:
        gt_boxes: (..., 4) xyxy, px of the network input; width and height > 0.
        anchors: (..., 4) xyxy, same frame; row i is the anchor matched to gt_boxes[i].

    Returns:
        box_deltas: (..., 4) as (tx, ty, tw, th), unitless: centre shift in anchor sizes divided by
        variance 0.1, log size ratio divided by variance 0.2. A box of no area gives -inf: the readers
        let none through, and there is no check here because it would wait for the device.

    Source: SSD (arXiv 1512.02325) eq. 2; variances from the Caffe release, not in the paper.
    """
    centre, size = _centres_sizes(gt_boxes)
    anchor_centre, anchor_size = _centres_sizes(anchors)
    shift = (centre - anchor_centre) / anchor_size / CENTRE_VARIANCE
    return torch.cat([shift, torch.log(size / anchor_size) / SIZE_VARIANCE], dim=-1)


def decode(box_deltas: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode`; sizes are bounded to 62.5 times the anchor's.

    Args:
        box_deltas: (..., 4) as (tx, ty, tw, th), unitless.
        anchors: (..., 4) xyxy, px of the network input; broadcast against `box_deltas`.

    Returns:
        (..., 4) xyxy in float32, px of the network input, not clipped to it.
    """
    box_deltas = box_deltas.float()
    # Slices, for ExecuTorch plans the parts of a split for one batch size alone.
    shift, log_ratio = box_deltas[..., :2], box_deltas[..., 2:]
    anchor_centre, anchor_size = _centres_sizes(anchors)
    centre = shift * CENTRE_VARIANCE * anchor_size + anchor_centre
    half = torch.exp((log_ratio * SIZE_VARIANCE).clamp(max=MAX_LOG_RATIO)) * anchor_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)

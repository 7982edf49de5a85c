"""Arithmetic on boxes: forms, areas, overlap, and the one way from the input's frame to the file's.

Everything here is pure and works on any number of leading dimensions; shape letters as in `types`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners to (..., 4) left, top, width, height: the form of COCO files."""
    top_left, bottom_right = boxes.split(2, dim=-1)
    return torch.cat([top_left, bottom_right - top_left], dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) boxes to (...,) areas in px^2; a box turned inside out has area 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Area that each of (..., N, 4) `boxes` shares with each of (..., M, 4) `others`: (..., N, M) px^2.

    Written one coordinate at a time and in place: that moves a fraction of the memory of the
    (..., N, M, 2) form.
    """
    x0, y0, x1, y1 = boxes.unsqueeze(-2).unbind(-1)  # each (..., N, 1)
    other_x0, other_y0, other_x1, other_y1 = others.unsqueeze(-3).unbind(-1)  # each (..., 1, M)
    width = torch.minimum(x1, other_x1).sub_(torch.maximum(x0, other_x0)).clamp_(min=0)
    height = torch.minimum(y1, other_y1).sub_(torch.maximum(y0, other_y0)).clamp_(min=0)
    return width.mul_(height)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (..., N, 4) with (..., M, 4): (..., N, M), 0 where either has no area.

    Computed in float32 whatever the autocast state: areas of large boxes overflow float16.
    """
    shared = intersection(boxes.float(), others.float())
    union = box_area(boxes.float()).unsqueeze(-1) + box_area(others.float()).unsqueeze(-2) - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(torch.float32).tiny), 0.0)


def paired_overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union in px^2 of (..., 4) boxes with (..., 4), row by row: (...) each, float32."""
    boxes, others = boxes.float(), others.float()
    top_left = torch.maximum(boxes[..., :2], others[..., :2])
    width, height = (torch.minimum(boxes[..., 2:], others[..., 2:]) - top_left).clamp(min=0).unbind(-1)
    shared = width * height
    return shared, box_area(boxes) + box_area(others) - shared


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (..., 4) boxes with (..., 4), row by row: (...), 0 where either has no area.

    Computed in float32, as `box_iou`; `data.array_boxes.iou_of_pairs` is the same in NumPy.
    """
    shared, union = paired_overlap(boxes, others)
    return shared / union.clamp(min=torch.finfo(torch.float32).tiny)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Cut (..., 4) boxes to an image of `image_size` (H, W)."""
    height, width = image_size
    if height == width:  # one pass, and no tensor of limits
        return boxes.clamp(min=0, max=width)
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def rescale_boxes(boxes: Tensor, image_size: tuple[int, int], orig_size: Tensor) -> Tensor:
    """Input frame to file frame, the only place: the whole file was stretched onto the whole input.

    Args:
        boxes: (B, D, 4) xyxy, px of the network input.
        image_size: (H, W) of the network input.
        orig_size: (B, 2) height and width of each file in px.

    Returns:
        (B, D, 4) xyxy, px of the file.
    """
    # Made on the device: a list would be copied there, for which the host waits.
    size = torch.cat([boxes.new_full((1,), side) for side in image_size])
    scale = orig_size.to(boxes.dtype) / size  # (B, 2) as (sy, sx)
    corners = boxes.unflatten(-1, (2, 2))  # (B, D, 2, 2) as (x, y) of two corners
    return (corners * scale.flip(-1)[:, None, None]).flatten(-2)

"""The structures that cross module borders; every shape letter of the project is explained here.

B images, G ground-truth boxes (padded), A anchors, D detections (padded), K object classes, H W pixels.
Boxes are xyxy float32 pixels. Three frames exist: pixels of the file, pixels of the network input, and
deltas relative to an anchor.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

ScoreActivation = Literal["softmax", "sigmoid"]
"""Softmax over K + 1 columns, or a sigmoid for each of the K object columns."""

ResizeRule = Literal["antialias", "torchvision"]
"""How a file is stretched onto the input: Pillow's antialiased bilinear on uint8 (ours), or float32 bilinear
without antialias, as torchvision's detectors do after normalisation."""


class Target(NamedTuple):
    """Ground truth of a batch, padded to one number of boxes so that every shape is static."""

    boxes: Tensor
    """(B, G, 4) float32 xyxy, px of the network input; padding rows are zero."""
    labels: Tensor
    """(B, G) int64, 1..K; 0 marks a padding row."""
    ignore: Tensor
    """(B, G) bool: crowd and difficult boxes. They match no anchor; anchors inside them cost nothing."""


class Batch(NamedTuple):
    """What the loader hands to the training and validation step."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB."""
    target: Target
    sample_idx: Tensor
    """(B,) int64, the row of each image in its split."""
    orig_size: Tensor
    """(B, 2) int64, height and width of the upright file in px."""


class HeadOutputs(NamedTuple):
    """What the network gives, before softmax, decoding and NMS."""

    cls_logits: Tensor
    """(B, A, K + 1); column 0 is background."""
    box_deltas: Tensor
    """(B, A, 4), unitless (tx, ty, tw, th) of SSD eq. 2."""


class Detections(NamedTuple):
    """What is left after NMS, sorted by falling score."""

    boxes: Tensor
    """(B, D, 4) float32 xyxy; px of the network input until rescaled to the file."""
    scores: Tensor
    """(B, D) float32 in 0..1; 0 marks a padding row."""
    labels: Tensor
    """(B, D) int64, 1..K; 0 marks a padding row."""

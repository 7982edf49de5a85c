"""The structures that cross module borders; every shape letter of the project is explained here.

B images, G ground-truth boxes (padded), A anchors, D detections (padded), K object classes, H W pixels.
Boxes are xyxy float32 pixels. Three frames exist: pixels of the file, pixels of the network input, and
deltas relative to an anchor.

A `label` is 1..K inside the project (0 is background); a `category_id` is whatever the data set says, with
gaps. `ClassMap` is the only place where one becomes the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from detect.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

INPUT_SIZE = (320, 320)
"""(H, W) px of a network's input unless a configuration says otherwise: the papers'."""

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
    """(B, G) bool: crowd and difficult boxes. They match no anchor; those inside are not in the loss."""


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
    box_logits: Tensor | None = None
    """(B, A, 4, n) logits of the bins whose expectation box_deltas is; None without `model.box_bins`. Only a
    loss reads them."""

    def map(self, function: Callable[[Tensor], Tensor]) -> HeadOutputs:
        """`function` of every tensor."""
        box_logits = None if self.box_logits is None else function(self.box_logits)
        return HeadOutputs(function(self.cls_logits), function(self.box_deltas), box_logits)


class Detections(NamedTuple):
    """What is left after NMS, sorted by falling score."""

    boxes: Tensor
    """(B, D, 4) float32 xyxy; px of the network input until rescaled to the file."""
    scores: Tensor
    """(B, D) float32 in 0..1; 0 marks a padding row."""
    labels: Tensor
    """(B, D) int64, 1..K; 0 marks a padding row."""


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set: `names[label - 1]` and `category_ids[label - 1]` belong to `label`."""

    names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise InputError(f"{len(self.names)} class names for {len(self.category_ids)} category ids")
        for what, values in (("class name", self.names), ("category id", self.category_ids)):
            seen: set[int | str] = set()
            for value in values:
                if value in seen:
                    raise InputError(f"{what} {value!r} occurs twice; labels would be ambiguous")
                seen.add(value)

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return len(self.names)

    def name(self, label: int) -> str:
        """The name of `label` (1..K)."""
        return self.names[label - 1]

    def category_id(self, label: int) -> int | str:
        """The data set's id of `label` (1..K)."""
        return self.category_ids[label - 1]

    def to_list(self) -> list[dict[str, int | str]]:
        """One `{label, category_id, name}` a class: how checkpoints and exported files store the map."""
        return [
            {"label": label, "category_id": category_id, "name": name}
            for label, (name, category_id) in enumerate(zip(self.names, self.category_ids, strict=True), 1)
        ]

    @classmethod
    def from_list(cls, rows: list[dict[str, int | str]]) -> ClassMap:
        """The inverse of `to_list`.

        Raises:
            InputError: labels are not 1..K in order.
        """
        for expected, row in enumerate(rows, 1):
            if row["label"] != expected:
                raise InputError(f"class map: expected label {expected}, found {row['label']!r}")
        return cls(tuple(str(r["name"]) for r in rows), tuple(r["category_id"] for r in rows))

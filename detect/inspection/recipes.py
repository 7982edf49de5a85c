"""How `detect init` lays a detector out and trains it: as SSDLite, or as SSDLite+ where objects are small."""

from __future__ import annotations

from typing import Any, NamedTuple

SMALL_MEDIAN = 80.0
"""px of an input of 320: from random weights SSDLite+ was more accurate on both sets with a median below 60;
on three with 101 to 222 one seed showed no gain (docs/plus.md). Nothing was tried between."""
LOSSES, ASSIGNERS = "detect.training.losses", "detect.training.assigners"


class Recipe(NamedTuple):
    """Settings that were measured together."""

    finest_stride: int
    """Input px per cell of the first map."""
    small: dict[str, Any]
    """Of the `model:` section, with MobileNetV3-Small."""
    large: dict[str, Any]
    """The same with MobileNetV3-Large."""
    loss: dict[str, Any]
    batches: dict[int, int]
    """Total batch size from so many training images on."""
    learning_rate: float
    """Of SGD for the first of the batches and those above it; less below, by the linear rule."""
    min_crop: float | None
    """The least side of a crop, share of the image's; None for that of SSD."""
    weak_share: float
    """Of the epochs, the last ones, without crops."""
    callbacks: tuple[str, ...]


SSDLITE = Recipe(
    finest_stride=16,
    small={},
    large={},
    loss={"class_path": f"{LOSSES}.MultiBoxLoss"},
    batches={0: 8, 1000: 16, 10_000: 32},
    learning_rate=0.02,
    min_crop=None,
    weak_share=0.0,
    callbacks=(),
)
SSDLITE_PLUS = Recipe(
    finest_stride=8,
    small={"taps": ["c3", "c4", "c5"]},
    large={"taps": ["out3", "out4", "out5"], "neck": {"class_path": "detect.model.necks.TopDown"}},
    loss={
        "class_path": f"{LOSSES}.MultiBoxLoss",
        "init_args": {"assigner": {"class_path": f"{ASSIGNERS}.ATSSAssigner"}},
    },
    batches={0: 4},
    learning_rate=0.03,
    min_crop=0.8,
    weak_share=0.25,
    callbacks=("detect.training.averaging.AveragedWeights",),
)
"""As configs/plus/chess.yaml and v3_small.yaml."""

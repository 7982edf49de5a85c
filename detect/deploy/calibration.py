"""Images that show a network's usual activations: what int8 needs to choose its scales."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from detect.data.annotations import Annotations, spread_rows
from detect.data.augment.view import input_batch
from detect.data.images.decode import load_pixels
from detect.deploy.exported_file import file_sha256
from detect.deploy.spec import ModelSpec
from detect.errors import InputError


class Calibration(NamedTuple):
    """Images of a training split, as the network takes them."""

    images: Tensor
    """(N, 3, H, W) of the input's type."""
    description: dict[str, Any]
    """Which images, by number and hash: goes into the exported file."""


def calibration_of(annotations: Annotations, spec: ModelSpec, count: int) -> Calibration:
    """Read images spread evenly over a split.

    Args:
        annotations: the split.
        spec: of the network: input size and resize rule.
        count: how many; all where the split has fewer.

    Raises:
        InputError: none is asked for, or an image cannot be read.
    """
    if count < 1:
        raise InputError(f"--calibration_images is {count}; give at least 1")
    files = [annotations.path(int(row)) for row in spread_rows(len(annotations), count)]
    return Calibration(
        input_batch(map(load_pixels, files), spec.image_size, spec.resize_rule).contiguous(),
        {"source": annotations.source.name, "images": len(files), "sha256": file_sha256(files)},
    )

"""Images that show a network's usual activations: what int8 needs to choose its scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detect.data.annotations import Annotations
from detect.data.augment.view import resize_pixels
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
    rows = np.unique(np.linspace(0, len(annotations) - 1, min(count, len(annotations))).round().astype(int))
    files: list[Path] = [annotations.path(int(row)) for row in rows]
    images = np.stack([resize_pixels(load_pixels(file), spec.image_size, spec.resize_rule) for file in files])
    return Calibration(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        {"source": annotations.source.name, "images": len(files), "sha256": file_sha256(files)},
    )

"""Tensors of TensorFlow and Keras in PyTorch's layout and words."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detect.errors import InputError, install_hint

Arrays = dict[str, NDArray[Any]]

KINDS = {
    **{"weights": "weight", "depthwise_weights": "weight", "kernel": "weight", "depthwise_kernel": "weight"},
    **{"biases": "bias", "bias": "bias", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}
"""What slim and Keras call the tensors of a layer, and what PyTorch does."""


def in_torch_layout(array: NDArray[Any]) -> Tensor:
    """Kernels (h, w, in, out) to (out, in, h, w), depthwise (h, w, channels, 1) to (channels, 1, h, w)."""
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if tensor.ndim != 4:
        return tensor
    depthwise = tensor.shape[3] == 1
    return tensor.permute(*((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))).contiguous()


def size_of_images(shape: Iterable[int]) -> tuple[int, int] | None:
    """The (H, W) of a static (N, H, W, 3)."""
    sizes = [int(size) for size in shape]
    return (sizes[1], sizes[2]) if len(sizes) == 4 and min(sizes[1:3]) > 0 else None


def with_step_counts(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what PyTorch's BatchNorm counts, and TensorFlow's does not."""
    norms = [key.removesuffix("running_mean") for key in state_dict if key.endswith(".running_mean")]
    return state_dict | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}


def package(name: str, what: str) -> Any:
    """A package of the extra `tensorflow`.

    Raises:
        InputError: it is not installed; says which file needs it, and what installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{what} is read with {name}: {install_hint('tensorflow')}") from error

"""BatchNorm's statistics for a validation: of the weights that are validated, from training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.data.dataset import SampleKey
from detect.data.sampler import TrainLoader

IMAGES_PER_PASS = 16
"""At most; whatever a device's batch is, so that the statistics are the same on any number of devices."""


def norms_in_training(module: nn.Module) -> list[_BatchNorm]:
    """The layers whose running statistics follow the batches."""
    found = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    return [norm for norm in found if norm.training and norm.track_running_stats]


def images_of_epoch(loader: TrainLoader, *, epoch: int, count: int) -> Iterator[Tensor]:
    """The first images of an epoch in its order, augmented as in it, decoded in this process.

    Args:
        loader: of the training split; where it stands does not change.
        epoch: from 0.
        count: images, 2 or more; all of a smaller split.

    Yields:
        (B, 3, H, W) uint8 images, B at most IMAGES_PER_PASS and at least 2: a 1 x 1 map needs two.
    """
    rows, copies = (column[:count] for column in loader.batch_sampler.order(epoch))
    passes = -(-len(rows) // IMAGES_PER_PASS)
    for some in np.array_split(np.arange(len(rows)), passes):
        keys = [SampleKey(epoch, int(rows[i]), 0, int(copies[i])) for i in some]
        yield torch.from_numpy(np.stack([loader.dataset[key].image for key in keys])).permute(0, 3, 1, 2)


@torch.no_grad()
def recompute_statistics(
    norms: Iterable[_BatchNorm], forward: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> None:
    """Set running mean and variance of `norms` to the means of those of `batches`; no weight changes.

    Running averages lag behind weights that move quickly, and behind averaged weights.

    Args:
        norms: layers of a network in evaluation mode, which they are in afterwards as well: what draws
            random numbers in training (dropout) draws none.
        forward: the network.
        batches: what it is shown.

    Source: PreciseBN (arXiv 2105.07576) section 3; torch's `swa_utils.update_bn` knows no frozen parts.
    """
    before = [(norm, norm.momentum, norm.get_buffer("num_batches_tracked").clone()) for norm in norms]
    for norm, _, _ in before:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean over all batches
        norm.train()
    for images in batches:
        forward(images)
    for norm, momentum, tracked in before:
        norm.momentum = momentum
        norm.get_buffer("num_batches_tracked").copy_(tracked)
        norm.eval()

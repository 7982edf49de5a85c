"""The law of every loader of training: workers and ranks change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from detect.data.dataset import DetectionDataset, collate
from detect.data.multi_scale import MultiScale
from detect.data.sampler import BatchPlan, TrainLoader, TrainSampler
from detect.types import Batch


def loader_of(
    dataset: DetectionDataset,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    multi_scale: MultiScale | None = None,
) -> TrainLoader:
    """Global batches of four images."""
    sampler = TrainSampler(
        np.diff(dataset.annotations.offsets),
        BatchPlan.derive(4, world_size=world_size, accumulate=accumulate),
        rank=rank,
        seed=5,
        count_boxes=dataset.count_boxes,
        multi_scale=multi_scale,
    )
    return TrainLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def same_on_workers_and_ranks(loader: Callable[..., TrainLoader], *, epochs: int) -> list[Batch]:
    """Every batch of one process, after two workers and two ranks have given the same.

    Args:
        loader: takes `workers`, `rank` and `world_size`, as `loader_of`.
        epochs: from 0.
    """
    loaders = [loader(), loader(workers=2), *(loader(rank=rank, world_size=2) for rank in (0, 1))]
    seen = []
    for epoch in range(epochs):
        for one in loaders:
            one.batch_sampler.set_epoch(epoch)
        for alone, helped, *parts in zip(*loaders, strict=True):
            assert torch.equal(alone.images, helped.images)
            assert torch.equal(alone.images, torch.cat([part.images for part in parts]))
            for field, expected in enumerate(alone.target):
                assert torch.equal(expected, helped.target[field])
                assert torch.equal(expected, torch.cat([part.target[field] for part in parts]))
            seen.append(alone)
    return seen

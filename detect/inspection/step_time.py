"""The time of a training step on this machine, from a few real ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from logging import WARNING, getLogger
from typing import Any

import torch

from detect.data.datamodule import DetectionData
from detect.model.checkpoint import without_weights
from detect.training.build import build_module
from detect.training.parameters import parameter_groups
from detect.types import Batch

WARM_STEPS = 2
"""Not timed: workers start, memory is taken, a GPU compiles its kernels."""
TIMED_STEPS = 4
ENOUGH_S = 20.0
"""On a slow machine fewer steps are timed."""


@contextmanager
def without_log() -> Iterator[None]:
    """Keep what data and loaders log of themselves off the terminal."""
    logger = getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def measure_step(model: dict[str, Any], data: DetectionData) -> float:
    """Seconds of a training step, its share of loading included, on one device of this machine.

    Args:
        model: plain values of a `model:` section; weights that it names are not read.
        data: opened; gives the batches.
    """
    device = torch.device(best_device())
    settings = without_weights(model) | {"num_classes": data.classes.num_classes}
    module = build_module(settings).to(device).train()
    optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
    began = time.perf_counter()
    ended: list[float] = []
    for batch in islice(endless_batches(data), WARM_STEPS + TIMED_STEPS):
        target = type(batch.target)._make(column.to(device) for column in batch.target)
        sums = module.loss_terms(module.detector.layout(batch.images.to(device)), target)
        optimizer.zero_grad()
        (sums.total / sums.positives.clamp(min=1)).backward()
        optimizer.step()
        _ = sums.total.item()  # waits for the device
        ended.append(time.perf_counter())
        if len(ended) > WARM_STEPS and ended[-1] - began > ENOUGH_S:
            break
    timed = ended[WARM_STEPS - 1 :] if len(ended) > WARM_STEPS else [began, *ended]
    return (timed[-1] - timed[0]) / (len(timed) - 1)


def best_device() -> str:
    """The device that `trainer.accelerator: auto` takes."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def endless_batches(data: DetectionData) -> Iterator[Batch]:
    """Training batches without an end: a small split has fewer than are needed."""
    loader = data.train_dataloader()
    while True:
        yield from loader

"""`detect fit` and the memory of its GPU: the batch that fits, and what is said of it before the start."""

from __future__ import annotations

from typing import Literal

import lightning as L
import torch

from detect.data.datamodule import DetectionData
from detect.data.dataset import padded_box_count
from detect.training.averaging import AveragedWeights
from detect.training.memory_estimate import GB, StepMemory, StepShape, estimate
from detect.training.module import DetectionModule

HONEST = "estimated from shapes, not yet compared with a real GPU"
LEAST_BATCH = 2
"""BatchNorm on a map of one cell needs two images."""


def settle_memory(
    given: int | Literal["auto"] | None,
    module: DetectionModule,
    trainer: L.Trainer,
    data: DetectionData,
) -> str | None:
    """Set `data.batch_size` where it is "auto", and say what a step takes of the GPU; None without either.

    Args:
        given: `data.batch_size` of the settings.
        module: what is trained.
        trainer: on its devices.
        data: opened.
    """
    available = gpu_bytes(trainer)
    if available is None:
        if given != "auto":
            return None
        return "data.batch_size auto: there is no GPU to fill, so a forward pass takes all images of a device"
    total, ranks = data.total_batch_size, trainer.world_size
    if given == "auto":
        sizes = batch_sizes(total, ranks)
    else:
        share = total // (ranks * trainer.accumulate_grad_batches)
        sizes = [data.batch_size or max(LEAST_BATCH, share)]
    try:
        shape, memory = largest_that_fits(sizes, module, trainer, data, available=available)
    except Exception as error:  # parts of the user's own may read values, which shapes do not have
        return (
            f"memory: a step cannot be estimated from shapes ({type(error).__name__}), so nothing is divided"
        )
    if given == "auto":
        data.batch_size = shape.batch_size
    return sentence(shape, memory, available, auto=given == "auto")


def gpu_bytes(trainer: L.Trainer) -> int | None:
    """Memory of the smallest GPU that trains on this machine; None: it trains on none.

    All of it, whoever else uses some: what a run does must not depend on what runs beside it.
    """
    if trainer.strategy.root_device.type != "cuda":
        return None
    return min(torch.cuda.get_device_properties(index).total_memory for index in trainer.device_ids)


def batch_sizes(total_batch_size: int, ranks: int) -> list[int]:
    """Images per device and forward pass that divide a step, the largest first.

    All of a device's where nothing divides: `BatchPlan` says then what would.
    """
    share = total_batch_size // ranks
    divisors = [size for size in range(share, LEAST_BATCH - 1, -1) if total_batch_size % (ranks * size) == 0]
    return divisors or [share]


def largest_that_fits(
    sizes: list[int],
    module: DetectionModule,
    trainer: L.Trainer,
    data: DetectionData,
    *,
    available: int,
) -> tuple[StepShape, StepMemory]:
    """The first of `sizes`, which fall, whose step takes no more than `available` bytes; else the last."""
    averages = any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    boxes = padded_box_count(data.train_dataset().most_boxes)
    for size in sizes:
        shape = StepShape(
            size,
            data.train_sizes[-1],
            boxes,
            precision=trainer.precision,
            accumulates=data.total_batch_size > size * trainer.world_size,
            averages=averages,
            ranks=trainer.world_size,
        )
        memory = estimate(module, shape)
        if memory.total <= available:
            break
    return shape, memory


def sentence(shape: StepShape, memory: StepMemory, available: int, *, auto: bool) -> str:
    """What a step takes, and what to do where that is too much."""
    height, width = shape.image_size
    step = f"{shape.batch_size} images of {height} x {width} per forward pass"
    takes = f"about {memory.total / GB:.1f} GB of this GPU's {available / GB:.1f} GB"
    if memory.total <= available:
        chosen = f"data.batch_size auto: {step}" if auto else f"memory: {step}"
        return f"{chosen} take {takes} ({HONEST})"
    instead = "give a smaller model.image_size" if auto else "--data.batch_size auto takes as many as fit"
    return f"memory: {step} take {takes} ({HONEST}) and may not fit: {instead}"

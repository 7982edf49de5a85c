"""Where a run stands, in units that no number of devices changes."""

from __future__ import annotations

from typing import NamedTuple

import lightning as L

from detect.data.datamodule import DetectionData
from detect.data.sampler import TrainLoader
from detect.errors import InputError


class RunLength(NamedTuple):
    """How far a run goes, in optimizer steps; no number of devices changes it."""

    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Epochs begun; the last one may be shorter."""
        return -(-self.total_steps // self.steps_per_epoch)

    def steps_of(self, epoch: int) -> int:
        """Steps of an epoch, from 0."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)


class TrainingState(NamedTuple):
    """What is behind a run: whole epochs, and optimizer steps of the epoch that runs."""

    epoch: int
    """Finished epochs, validation included."""
    steps: int
    """Optimizer steps of the running epoch; all of them: only its validation is missing."""
    steps_per_epoch: int

    @property
    def global_step(self) -> int:
        """Optimizer steps since the start."""
        return self.epoch * self.steps_per_epoch + self.steps

    def __str__(self) -> str:
        if self.steps == 0:
            return f"after epoch {self.epoch}"
        return f"in epoch {self.epoch + 1}, after step {self.steps} of {self.steps_per_epoch}"


def data_of(trainer: L.Trainer) -> DetectionData:
    """The data that `trainer` trains on."""
    data: DetectionData = trainer.datamodule  # type: ignore[attr-defined]
    return data


def train_loader(trainer: L.Trainer) -> TrainLoader:
    """The loader of its training split, once training has begun."""
    loader: TrainLoader = trainer.train_dataloader  # type: ignore[assignment]
    return loader


def steps_per_epoch(trainer: L.Trainer) -> int:
    """Optimizer steps of an epoch, on any number of devices.

    Raises:
        InputError: `trainer.limit_train_batches` would cut a total batch in two.
    """
    data = data_of(trainer)
    plan = data.plan_batches()
    steps = len(data.train) // plan.total_batch_size
    limit = trainer.limit_train_batches
    if isinstance(limit, float) and limit == 1.0:  # the number 1 is one batch
        return steps
    if isinstance(limit, float) or limit % plan.accumulate or limit < 1:
        raise InputError(
            f"trainer.limit_train_batches is {limit}: give a number of batches that is a multiple of the "
            f"{plan.accumulate} forward pass(es) that make a step"
        )
    return min(steps, limit // plan.accumulate)


def run_length(trainer: L.Trainer, max_steps: int | None) -> RunLength:
    """How far `trainer.max_epochs` goes, and no further than `max_steps`."""
    steps = steps_per_epoch(trainer)
    total = (trainer.max_epochs or 0) * steps
    return RunLength(steps, total if max_steps is None else min(total, max_steps))

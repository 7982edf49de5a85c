"""Says once, before the first epoch ends, how long the run will take."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detect.training.run_module import RunModule
from detect.training.run_state import data_of
from detect.training.run_time import RunTime

FIRST_BATCHES = 3
"""Not timed: workers start, a GPU compiles its kernels."""
LOOK_AFTER = 20
"""Batches, or one less than the epoch has."""


class TimeEstimate(Callback):
    """Times the first steps and prints one line; of a resumed run, the time that is left."""

    def __init__(self) -> None:
        self._batches = 0
        self._began_s = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batches, self._began_s = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1
        look = max(1, min(LOOK_AFTER, int(trainer.num_training_batches) - 1))
        first = min(FIRST_BATCHES, look - 1)
        if self._batches == first:
            self._began_s = time.perf_counter()
        if self._batches == look and trainer.is_global_zero:
            assert isinstance(pl_module, RunModule)
            batch_s = (time.perf_counter() - self._began_s) / (look - first)
            print(time_left(trainer, pl_module, batch_s * trainer.accumulate_grad_batches), flush=True)


def time_left(trainer: L.Trainer, module: RunModule, step_s: float) -> RunTime:
    """What the running epoch and those after it consist of."""
    length, data = module.length, data_of(trainer)
    behind = trainer.current_epoch
    every = trainer.check_val_every_n_epoch or 1
    validations = 0
    if trainer.enable_validation:
        validations = length.epochs // every - behind // every + bool(length.epochs % every)
    return RunTime(
        length.epochs - behind,
        length.total_steps - behind * length.steps_per_epoch,
        step_s,
        validations,
        len(data.val) / data.total_batch_size,
    )

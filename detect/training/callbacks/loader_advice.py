"""Says once, while a detector trains, that loading holds it up, and which one setting would help most."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detect.data.advice import best_change, decoded_gb
from detect.data.profile import profile_dataset
from detect.training.run_state import data_of, train_loader

FIRST_BATCHES = 10
"""Not looked at: workers start, files come from a cold disk, a GPU compiles its kernels."""
LOOK_AFTER = 60
WORTH_SAYING = 0.1
"""Share of the time that a step may wait for its batch."""
PROFILED_IMAGES = 64
"""A fraction of a second of work."""
LEAST_USE = 0.5
"""On a GPU the host may wait while the device works; a loader that is not busy holds nothing up."""


class LoaderAdvice(Callback):
    """Measures the share of waiting over `LOOK_AFTER` steps; prints at most one line in a run."""

    def __init__(self) -> None:
        self._batches = 0
        self._images = 0
        self._waited_s = self._worked_s = 0.0
        self._began_s = 0.0
        self._ended_s: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended_s = None  # what lies between two epochs is no waiting

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began_s = time.perf_counter()
        if self._ended_s is not None and self._batches >= FIRST_BATCHES:
            self._waited_s += self._began_s - self._ended_s

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ended_s = time.perf_counter()
        if self._batches >= FIRST_BATCHES:
            self._worked_s += self._ended_s - self._began_s
            self._images += len(batch.images)
        self._batches += 1
        if self._batches == LOOK_AFTER and trainer.is_global_zero:
            self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        all_s = self._waited_s + self._worked_s
        share = self._waited_s / all_s
        if share < WORTH_SAYING:
            return
        dataset = train_loader(trainer).dataset
        data = data_of(trainer)
        settings = data.loader_settings()
        measured = profile_dataset(dataset, data.total_batch_size, images=PROFILED_IMAGES)
        possible = measured.images_per_s * settings.workers
        if settings.workers and self._images / all_s < LEAST_USE * possible:
            return
        change = best_change(measured, settings, decoded_gb=decoded_gb(dataset), waiting=share)
        print(
            f"training waits {share:.0%} of the time for the loader ({self._images / all_s:.0f} images/s a "
            f"device); what helps most: {change}",
            flush=True,
        )

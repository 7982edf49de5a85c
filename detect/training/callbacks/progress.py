"""What a person sees while a network trains: a bar, and one row of a table per epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from detect.training.run_module import RunModule

LEAST_WIDTH = 9
"""Characters of a column."""
HEADER_EVERY = 20


class TrainingProgress(ProgressBar):
    """A Rich bar within the epoch; a row with losses, metrics, speed and remaining time after it.

    "wait" is the share of the time that the training step waited for the loader.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(soft_wrap=True, highlight=False)
        self._enabled = True
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._rows = 0
        self._run_started = 0.0
        self._first_epoch = 0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._run_started = time.perf_counter()
        self._first_epoch = trainer.current_epoch
        self._start_epoch(trainer)  # the hook of that name is left out where an epoch is resumed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_epoch(trainer)

    def _start_epoch(self, trainer: L.Trainer) -> None:
        self._epoch_started = self._batch_ended = time.perf_counter()
        self._waited = self._trained = 0.0
        self._images = 0
        if self._enabled and self.console.is_terminal:
            self._open_bar("training", int(trainer.num_training_batches))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch.images) * trainer.world_size
        self._batch_ended = time.perf_counter()
        self._trained = self._batch_ended - self._epoch_started
        speed = f"{self.images_per_second:.0f} img/s, waiting {self.wait_share:.0%}"
        self._advance(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", speed)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._enabled and self.console.is_terminal:
            self._open_bar("validation", int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance("validation", "")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()
        if self._enabled:
            assert isinstance(pl_module, RunModule)
            self._print_row(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close_bar()

    @property
    def images_per_second(self) -> float:
        """Of the running epoch, over all ranks, waiting included."""
        return self._images / self._trained if self._trained else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the running epoch's training time that was spent waiting for the loader."""
        return self._waited / self._trained if self._trained else 0.0

    def _print_row(self, trainer: L.Trainer, module: RunModule) -> None:
        losses = module.train_losses()
        values = {name: float(value) for name, value in {**trainer.callback_metrics, **losses}.items()}

        def show(name: str, digits: int = 3) -> str:
            value = values.get(name)
            return "-" if value is None or value < 0 else f"{value:.{digits}f}"

        done = trainer.current_epoch + 1 - self._first_epoch
        to_do = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        left = (time.perf_counter() - self._run_started) / done * to_do
        cells = {
            "epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            **{name.removeprefix("train/"): show(name) for name in losses},
            **{name: show(f"val/{name}") for name in module.brief_metrics},
            "img/s": f"{self.images_per_second:.1f}",
            "wait": f"{self.wait_share:.0%}",
            "left": f"{int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}",
        }
        widths = [max(LEAST_WIDTH, len(name) + 2) for name in cells]
        if self._rows % HEADER_EVERY == 0:
            self.console.print(_line(cells, widths), style="bold")
        self._rows += 1
        self.console.print(_line(cells.values(), widths))

    def _open_bar(self, name: str, total: int) -> None:
        self._close_bar()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total, note="")
        self._bar.start()

    def _advance(self, description: str, note: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, description=description, note=note)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _line(cells: Iterable[str], widths: list[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))

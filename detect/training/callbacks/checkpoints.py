"""When a run's checkpoints are written: last.ckpt after steps and epochs, best.ckpt after the best one."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from detect.errors import DISK_IS_FULL, EXIT_STOPPED, InputError, RunStopped
from detect.system.files import remove_leftovers
from detect.system.ranks import max_over_ranks
from detect.training.finite_guard import READ_EVERY
from detect.training.lightning_loops import current_state, loops_at, shorten_last_epoch, validation_follows
from detect.training.run_module import RunModule
from detect.training.run_state import RunLength, TrainingState
from detect.training.stop_signals import StopSignals

SECONDS_PER_MINUTE = 60


class RunCheckpoints(Checkpoint):
    """Keeps RUN/checkpoints/last.ckpt and best.ckpt so that a run killed at any moment ends the same.

    A checkpoint is written after an optimizer step and nowhere else: every `every_minutes` within an epoch,
    after an epoch's last step, and after its validation. Lightning's ModelCheckpoint saves what its loops
    count, which fits only the devices that counted, and a validation that was cut short is left out.

    Args:
        folder: RUN/checkpoints.
        run: what a later process needs to know of this one, plain values.
        every_minutes: time between two checkpoints within an epoch.
        signals: notes Ctrl-C and SIGTERM.
    """

    def __init__(
        self, folder: Path, run: dict[str, Any], *, every_minutes: float, signals: StopSignals
    ) -> None:
        self.folder = folder
        self.run = run
        self.every_minutes = every_minutes
        self.signals = signals
        self.best_map: float | None = None
        """The score of best.ckpt, whatever the score is: checkpoints have it under this name."""

    @property
    def last(self) -> Path:
        """The checkpoint that a run resumes from."""
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest score: mAP of a detector, top-1 accuracy of a classifier."""
        return self.folder / "best.ckpt"

    # ---- when

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        launcher = trainer.strategy.launcher
        self.signals.install(pass_on=launcher.kill if launcher is not None else None)
        shorten_last_epoch(trainer, _length(pl_module))
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self._ask_every = 1 if on_cpu else READ_EVERY  # asking the other ranks waits for the device
        self._saved_at = time.monotonic()
        self._validated = False
        if trainer.is_global_zero:
            remove_leftovers(self.last)
            remove_leftovers(self.best)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        shorten_last_epoch(trainer, _length(pl_module))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # inside an accumulation window
        position = current_state(trainer, _length(pl_module))
        if position.steps == _length(pl_module).steps_of(position.epoch):
            if validation_follows(trainer):
                self._save(trainer, pl_module)
                self._stop_if_asked(trainer)
        elif position.global_step % self._ask_every == 0:
            due = time.monotonic() - self._saved_at >= self.every_minutes * SECONDS_PER_MINUTE
            signum, due = self._agreed(trainer, due)
            if signum or due:
                self._save(trainer, pl_module)
            self._stop_by(signum)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._stop_by(self.signals.signum)  # saved after the step before, so nothing is lost

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        better = self._validated and self._is_better(pl_module)
        self._validated = False
        self._save(trainer, pl_module, best=better)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.remove()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.signals.remove()

    # ---- what

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        del checkpoint["loops"]  # see `lightning_loops.loops_at`
        checkpoint["position"] = current_state(trainer, _length(pl_module))._asdict()
        checkpoint["best_map"] = self.best_map
        checkpoint["run"] = self.run

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        position, length = TrainingState(**checkpoint["position"]), _length(pl_module)
        if position.steps_per_epoch != length.steps_per_epoch:
            raise InputError(
                f"the checkpoint is of a run with {position.steps_per_epoch} steps per epoch, this one has "
                f"{length.steps_per_epoch}: continue with the same data and data.total_batch_size"
            )
        if position.epoch > length.epochs:
            raise InputError(
                f"the checkpoint has {position.epoch} epochs behind it, trainer.max_epochs is {length.epochs}"
            )
        checkpoint["loops"] = loops_at(position, length, trainer)
        self.best_map = checkpoint["best_map"]

    # ---- how

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, *, best: bool = False) -> None:
        """Write last.ckpt, and best.ckpt before it where asked for: the same file under two names.

        Raises:
            NonFiniteError: the weights stand still since a step that was not finite.
            RunStopped: the disk is full.
        """
        assert isinstance(pl_module, RunModule)
        pl_module.guard.raise_if_bad()
        failure = None
        try:
            # In this order: were the run killed in between, it would validate again and find the same.
            trainer.save_checkpoint(self.best if best else self.last, weights_only=False)
            if best and trainer.is_global_zero:
                replace_with_link(self.best, self.last)
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            failure = disk_is_full(error, self.last)
            trainer.strategy.barrier()  # where the other ranks are
        if failure := trainer.strategy.broadcast(failure):
            raise RunStopped(failure, exit_code=EXIT_STOPPED)
        self._saved_at = time.monotonic()

    def _is_better(self, pl_module: L.LightningModule) -> bool:
        assert isinstance(pl_module, RunModule)
        score = pl_module.score
        if self.best_map is not None and score <= self.best_map:
            return False
        self.best_map = score
        return True

    def _agreed(self, trainer: L.Trainer, due: bool) -> tuple[int, bool]:
        """The signal and the time of the rank that has one: all must save and stop after the same step."""
        asked = torch.tensor([self.signals.signum, int(due)], device=trainer.strategy.root_device)
        signum, due_anywhere = max_over_ranks(asked).tolist()
        return signum, bool(due_anywhere)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        self._stop_by(self._agreed(trainer, due=False)[0])

    def _stop_by(self, signum: int) -> None:
        if signum:
            name = signal.Signals(signum).name
            raise RunStopped(
                f"stopped by {name}; everything up to here is in {self.last}: "
                f"continue with --out {self.folder.parent} --ckpt_path last",
                exit_code=128 + signum,
            )


def _length(pl_module: L.LightningModule) -> RunLength:
    assert isinstance(pl_module, RunModule)
    return pl_module.length


def disk_is_full(error: OSError, last: Path) -> str:
    """What to tell the user."""
    return (
        f"{error.strerror} while writing {error.filename or last}; {last} is whole, of the time when it was "
        f"last written: free some space, then continue with --out {last.parent.parent} --ckpt_path last"
    )


def replace_with_link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, at once; a copy where the disk knows no links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)

"""Where a run stands, in units that no number of devices changes, and how Lightning is put there."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.loops.progress import _ProcessedTracker

from detect.data.datamodule import DetectionData
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


class Position(NamedTuple):
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


def shorten_last_epoch(trainer: L.Trainer, length: RunLength) -> None:
    """Tell Lightning how many batches the epoch that begins has, where it ends before the data does.

    Its own `max_steps` ends an epoch without validation, and restarts as if no epoch were ever finished.
    """
    steps = length.steps_of(trainer.current_epoch)
    if steps < length.steps_per_epoch:
        batches = steps * trainer.accumulate_grad_batches
        trainer.fit_loop.max_batches = trainer.val_check_batch = batches


def validate_on_every_rank(trainer: L.Trainer) -> None:
    """Have a rank without validation images take part in the validation that begins.

    Lightning leaves out all its hooks there, and with them what the ranks do together: the others would wait.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.setup_data()
    if trainer.world_size > 1 and sum(loop.max_batches) == 0:
        loop._max_batches = [1]  # of a loader that has none: the loop begins, finds nothing and ends


def current_position(trainer: L.Trainer, length: RunLength) -> Position:
    """Where the trainer stands, at the end of an optimizer step or of an epoch."""
    epochs = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    assert isinstance(epochs, _ProcessedTracker)
    epoch_ended = epochs.processed != epochs.completed
    steps = 0 if epoch_ended else batches.ready // trainer.accumulate_grad_batches
    return Position(epochs.processed, steps, length.steps_per_epoch)


def loops_at(position: Position, length: RunLength, trainer: L.Trainer) -> dict[str, Any]:
    """The state of Lightning's loops at `position`, for this trainer's devices and accumulation.

    Lightning saves counts of batches, which belong to one number of devices, and what its loops make of them
    depends on the hook that saved. Here they are written as if every hook of a finished batch had run.
    """
    running = int(position.steps > 0)
    validation_due = position.steps == length.steps_of(position.epoch)
    forward_passes = trainer.accumulate_grad_batches

    state = trainer.fit_loop.state_dict()
    epochs = {"ready": position.epoch + running, "started": position.epoch + running}
    epochs |= {"processed": position.epoch, "completed": position.epoch}
    state["epoch_progress"] = {"total": dict(epochs), "current": dict(epochs)}

    batches = _done(position, times=forward_passes, counters=("ready", "started", "processed", "completed"))
    state["epoch_loop.batch_progress"] = {**batches, "is_last_batch": validation_due}
    state["epoch_loop.scheduler_progress"] = _done(position, counters=("ready", "completed"))
    state["epoch_loop.automatic_optimization.optim_progress"] = {
        "optimizer": {
            "step": _done(position, counters=("ready", "completed")),
            "zero_grad": _done(position, counters=("ready", "started", "completed")),
        }
    }
    # Of loggers. It grows behind the validation, not before it.
    state["epoch_loop.state_dict"] = {"_batches_that_stepped": position.global_step - int(validation_due)}
    if validation_due:
        # One batch begun and not finished: the sign by which Lightning goes back into the validation.
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        nothing = dict.fromkeys(begun, 0)
        state["epoch_loop.val_loop.batch_progress"] |= {"total": begun, "current": nothing}

    images = position.steps * data_of(trainer).total_batch_size
    state["state_dict"] = {"combined_loader": [{"epoch": position.epoch, "images": images}]}
    return {"fit_loop": state}


def _done(position: Position, *, counters: tuple[str, ...], times: int = 1) -> dict[str, dict[str, int]]:
    return {
        "total": dict.fromkeys(counters, position.global_step * times),
        "current": dict.fromkeys(counters, position.steps * times),
    }

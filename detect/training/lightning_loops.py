"""What a run needs of Lightning's loops beyond their interface: no other file touches their insides.

Tried on lightning 2.6.6. A new version that moves them fails in `tests/training/test_resume.py` and
`tests/test_kill_and_resume.py`, which compare weights bit for bit.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from detect.system.ranks import rank_by_environment
from detect.training.run_state import RunLength, TrainingState, data_of


def set_epochs(trainer: L.Trainer, epochs: int) -> None:
    """End the run after so many epochs, and validate the last whatever `check_val_every_n_epoch` is."""
    trainer.fit_loop.max_epochs = epochs
    loop = trainer.fit_loop.epoch_loop
    loop._should_check_val_epoch = partial(validation_follows, trainer)  # type: ignore[method-assign]


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether the running epoch ends with a validation."""
    every, done = trainer.check_val_every_n_epoch or 1, trainer.current_epoch + 1
    return trainer.enable_validation and (done % every == 0 or done == trainer.max_epochs)


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


def current_state(trainer: L.Trainer, length: RunLength) -> TrainingState:
    """Where the trainer stands, at the end of an optimizer step or of an epoch."""
    epochs = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    assert isinstance(epochs, _ProcessedTracker)
    epoch_ended = epochs.processed != epochs.completed
    steps = 0 if epoch_ended else batches.ready // trainer.accumulate_grad_batches
    return TrainingState(epochs.processed, steps, length.steps_per_epoch)


def loops_at(at: TrainingState, length: RunLength, trainer: L.Trainer) -> dict[str, Any]:
    """The state of Lightning's loops at `at`, for this trainer's devices and accumulation.

    Lightning saves counts of batches, which belong to one number of devices, and what its loops make of them
    depends on the hook that saved. Here they are written as if every hook of a finished batch had run.
    """
    running = int(at.steps > 0)
    validation_due = at.steps == length.steps_of(at.epoch)
    forward_passes = trainer.accumulate_grad_batches

    state = trainer.fit_loop.state_dict()
    epochs = {"ready": at.epoch + running, "started": at.epoch + running}
    epochs |= {"processed": at.epoch, "completed": at.epoch}
    state["epoch_progress"] = {"total": dict(epochs), "current": dict(epochs)}

    batches = _done(at, times=forward_passes, counters=("ready", "started", "processed", "completed"))
    state["epoch_loop.batch_progress"] = {**batches, "is_last_batch": validation_due}
    state["epoch_loop.scheduler_progress"] = _done(at, counters=("ready", "completed"))
    state["epoch_loop.automatic_optimization.optim_progress"] = {
        "optimizer": {
            "step": _done(at, counters=("ready", "completed")),
            "zero_grad": _done(at, counters=("ready", "started", "completed")),
        }
    }
    # Of loggers. It grows behind the validation, not before it.
    state["epoch_loop.state_dict"] = {"_batches_that_stepped": at.global_step - int(validation_due)}
    if validation_due:
        # One batch begun and not finished: the sign by which Lightning goes back into the validation.
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        nothing = dict.fromkeys(begun, 0)
        state["epoch_loop.val_loop.batch_progress"] |= {"total": begun, "current": nothing}

    images = at.steps * data_of(trainer).total_batch_size
    state["state_dict"] = {"combined_loader": [{"epoch": at.epoch, "images": images}]}
    return {"fit_loop": state}


def _done(at: TrainingState, *, counters: tuple[str, ...], times: int = 1) -> dict[str, dict[str, int]]:
    return {
        "total": dict.fromkeys(counters, at.global_step * times),
        "current": dict.fromkeys(counters, at.steps * times),
    }


def end_processes_of_lightning(trainer: L.Trainer) -> None:
    """End the ranks that Lightning started; rank 0, which started them, speaks and sets the exit code.

    Lightning kills rank 0 when another ends with an error, which could come before rank 0 has written.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    if not isinstance(launcher.cluster_environment, LightningEnvironment):
        return  # torchrun and SLURM started them, and want to know
    if rank_by_environment():
        os._exit(0)
    launcher.kill(signal.SIGKILL)

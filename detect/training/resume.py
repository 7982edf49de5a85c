"""What a run takes over from a checkpoint, and what of it may be given anew."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detect.config.renames import renamed_run
from detect.config.trusted_classes import refuse_foreign_classes
from detect.errors import InputError
from detect.model.checkpoint import Checkpoint, Task, read_checkpoint
from detect.training.run_state import TrainingState
from detect.training.schedules import Schedule

MAY_CHANGE = (
    "checkpoint_minutes",
    "data.batch_size",
    "data.cache",
    "data.prefetch",
    "data.root",
    "data.train_annotations",
    "data.train_images",
    "data.val_annotations",
    "data.val_images",
    "data.workers",
    "model.compile",
    "model.teacher",
    "trainer.accelerator",
    "trainer.accumulate_grad_batches",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.max_epochs",
    "trainer.num_nodes",
    "trainer.profiler",
    "trainer.strategy",
)
"""Settings that leave the result alone, or say how far to go. Data and teacher may move; what is in them is
compared."""

HEADINGS = ("setting", "checkpoint", "given")


class Resume(NamedTuple):
    """A checkpoint that a run resumes from."""

    checkpoint: Checkpoint
    config: dict[str, Any]
    """Every resolved value of the run that wrote it."""
    position: TrainingState

    @property
    def path(self) -> Path:
        """The file."""
        return self.checkpoint.path


def find_resume(args: list[str], *, task: Task = "detection") -> Resume | None:
    """The checkpoint that `--ckpt_path` in `args` names; None for a fresh start.

    `last` is RUN/checkpoints/last.ckpt of `--out RUN`, or a fresh start where there is none.

    Raises:
        InputError: no such file, it holds no run, or the run in `--out` is another.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ckpt_path")
    try:
        given, _ = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    if given.ckpt_path is None:
        return None
    last = None if given.out is None else given.out / "checkpoints" / "last.ckpt"
    if given.ckpt_path == "last":
        if last is None:
            raise InputError("--ckpt_path last is the last checkpoint of a run: say of which with --out RUN")
        return read_resume(last, task=task) if last.exists() else None
    path = Path(given.ckpt_path)
    if not path.is_file():
        raise InputError(f"--ckpt_path {path}: no such file; give 'last' or a checkpoint")
    if last is not None and last.exists() and not last.samefile(path):
        raise InputError(
            f"{given.out} holds a run of its own, whose last checkpoint is not {path}: continue it with "
            "--ckpt_path last, or choose another --out"
        )
    return read_resume(path, task=task)


def read_resume(path: Path, *, task: Task = "detection") -> Resume:
    """Read what a run needs to go on.

    Raises:
        InputError: the checkpoint holds weights alone, or names classes that a file may not name.
    """
    checkpoint = read_checkpoint(path, task=task)
    if "run" not in checkpoint.raw or "position" not in checkpoint.raw:
        raise InputError(
            f"{path} holds weights and no run to continue: start from it with --model.init_from {path}"
        )
    config = renamed_run(without_strategy(checkpoint.raw["run"]["config"]))
    refuse_foreign_classes(config, path)
    return Resume(checkpoint, config, TrainingState(**checkpoint.raw["position"]))


def without_strategy(config: dict[str, Any]) -> dict[str, Any]:
    """The settings but for a strategy that is a class.

    It belongs to the machines at hand, and its arguments can name any function: it is given anew, never taken
    from a file.
    """
    trainer = config.get("trainer", {})
    if not isinstance(trainer.get("strategy"), dict):
        return config
    return {**config, "trainer": {key: value for key, value in trainer.items() if key != "strategy"}}


def refuse_changes(resume: Resume, config: dict[str, Any]) -> None:
    """Compare the settings of a resumed run with its checkpoint's.

    Raises:
        InputError: one that decides the result is another; the message has a table of all such.
    """
    old, new = flat(resume.config), flat(config)
    changed = {
        key: (old.get(key), new.get(key))
        for key in sorted(old | new)
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
    }
    if changed:
        raise InputError(
            f"these settings are not those of {resume.path}:\n{difference_table(changed, HEADINGS)}"
            "leave them out to continue that run, or start a new one without --ckpt_path"
        )


def refuse_other_data(resume: Resume, data: dict[str, Any]) -> None:
    """Compare the data of a resumed run with its checkpoint's.

    Args:
        resume: the checkpoint.
        data: of each split, `manifest.describe_split`.

    Raises:
        InputError: a split has other images or boxes; the message has a table.
    """
    old, new = flat(resume.checkpoint.raw["run"]["data"]), flat(data)
    changed = {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}
    if changed:
        raise InputError(
            f"the data is not that of {resume.path}:\n{difference_table(changed, HEADINGS)}"
            "continue with the same data, or start a new run from its weights with --model.init_from"
        )


def refuse_other_teacher(resume: Resume, teacher: dict[str, Any] | None) -> None:
    """Compare the teacher of a resumed run with its checkpoint's.

    Args:
        resume: the checkpoint.
        teacher: `distillation.describe_teacher`; None without one.

    Raises:
        InputError: its weights are others, or one of the two has none.
    """
    old = resume.checkpoint.raw["run"].get("teacher")
    if (old or {}).get("weights_sha256") != (teacher or {}).get("weights_sha256"):
        was, now = ("none" if one is None else one["path"] for one in (old, teacher))
        raise InputError(
            f"the teacher of {resume.path} was {was}, and now it is {now}, with other weights: give "
            "model.teacher the file that the run began with, or start a new run without --ckpt_path"
        )


def describe_resume(resume: Resume, trainer: dict[str, Any], schedule: Schedule) -> list[str]:
    """What a person should know when a run is resumed.

    Args:
        resume: the checkpoint.
        trainer: settings of this run's `trainer:` section.
        schedule: of the learning rate.
    """
    position = resume.position
    lines = [f"continuing {resume.path}, {position} ({position.global_step} steps)"]
    max_epochs, old_epochs = trainer["max_epochs"], resume.config["trainer"]["max_epochs"]
    if max_epochs != old_epochs and trainer["max_steps"] == -1:

        def factor(epochs: int) -> float:
            total_steps = epochs * position.steps_per_epoch
            return schedule.factor(position.global_step, total_steps=total_steps)

        lines.append(
            f"trainer.max_epochs is {max_epochs}, it was {old_epochs}: the schedule now spans {max_epochs} "
            f"epochs, so the learning rate resumes at {factor(max_epochs):.3g} of its base and not at "
            f"{factor(old_epochs):.3g}"
        )
    return lines


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; lists are values."""
    if not isinstance(value, dict):
        return {prefix: value}
    entries: dict[str, Any] = {}
    for key, inner in value.items():
        entries |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return entries


def difference_table(changed: dict[str, tuple[Any, Any]], headings: tuple[str, str, str]) -> str:
    """A table of what two things give for the same names, as text."""
    table = Table(*headings)
    for key, (old, new) in changed.items():
        table.add_row(key, Text(str(old)), Text(str(new)))
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text

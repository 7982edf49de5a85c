"""Trainings from scratch around a search: of a start without weights, and of what was found beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect.commands.arguments import split_fit_flags
from detect.commands.fit_cli import settings_reader
from detect.commands.sweep import SWEEPS_IN, SweepOptions, run_jobs, sweep
from detect.commands.sweep_jobs import STATE_FILE, Job, SweepState, plan_jobs
from detect.config.model_section import read_config
from detect.errors import InputError
from detect.system.devices import CPU, Slot
from detect.system.output_folder import alone_in

FOUND_FILE = "found.yaml"


@dataclass(frozen=True)
class SearchFolder:
    """A search's start, its folder, and how networks are trained there by `detect fit`."""

    config: Path
    """Of `detect fit`: the start."""
    out: Path
    fit_flags: Sequence[str] = ()
    """`--data.*`, `--model.*` and `--trainer.*`, for every training."""
    slots: Sequence[Slot] = (CPU,)
    seeds: Sequence[int] = (0,)
    """Of the trainings from scratch."""
    runtime: str = "onnxruntime"
    """In which the trained networks are timed."""
    trust: Sequence[str] = ()
    """The user's own modules."""
    search_only: bool = False
    """Train nothing at the end."""

    def check(self) -> None:
        """Stop where both networks would have one name.

        Raises:
            InputError: says what to do.
        """
        if not self.search_only and self.config.name == FOUND_FILE:
            raise InputError(
                f"{self.config}: what is found is trained beside it under the same name: rename this one, or "
                "give --search_only"
            )

    @property
    def trained(self) -> Path:
        """The folder of the trainings."""
        return self.out / "trained"

    def settings(self) -> dict[str, Any]:
        """Every value of the configuration, with the flags."""
        return settings_reader().read_words(["--config", str(self.config), *self.fit_flags])

    def config_with_flags(self) -> dict[str, Any]:
        """The configuration with what the flags change, but for the place of the data."""
        values, settings = read_config(self.config), self.settings()
        alone = settings_reader().read_words(["--config", str(self.config)])
        for section in ("model", "data", "trainer"):
            changed = {
                key: value
                for key, value in settings[section].items()
                if key != "root" and value != alone[section].get(key)
            }
            if changed:
                values[section] = (values.get(section) or {}) | changed
        return values

    def jobs_of_start(self) -> list[Job]:
        """The start under every seed."""
        return plan_jobs([self.config], self.seeds, self.trained, self.fit_flags, trust=self.trust)

    def trained_start(self) -> Path:
        """The best checkpoint of the start, trained first where it is not.

        Raises:
            InputError: the training failed, or another process trains there; says why.
            RunStopped: on a signal, once it has saved.
        """
        job = self.jobs_of_start()[0]
        with alone_in(self.trained, SWEEPS_IN):
            (self.trained / "logs").mkdir(exist_ok=True)
            state = SweepState(self.trained / STATE_FILE)
            state.begin([job])
            print("no --ckpt_path: the start is trained first")
            if failures := run_jobs([job], ["fit"], self.slots, state=state, out=self.trained):
                raise InputError(f"the start could not be trained: {failures[0]}")
        return job.best

    def compare_with_start(self, found: Path) -> int:
        """Train start and found network with the start's schedule, time and compare them; the exit code.

        Args:
            found: its configuration, which has what the `--model.*` flags say of the start already.

        Raises:
            InputError, RunStopped: see `sweep`.
        """
        flags, _ = split_fit_flags(self.fit_flags, ("--model.",))
        jobs = self.jobs_of_start()
        jobs += plan_jobs([found], self.seeds, self.trained, flags, trust=self.trust)
        return sweep(jobs, self.trained, SweepOptions(self.slots, [self.runtime]))

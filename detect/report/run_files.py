"""Reads a run folder as it is: finished, stopped half-way or broken. What is missing is said, not raised."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from detect.config.renames import renamed_run
from detect.errors import InputError
from detect.report.scored_files import Scored, read_scored

RUN_FILES = ("config.yaml", "metrics.csv", "metrics.json", "manifest.json", "checkpoints", "detections.json")
"""A folder with none of these is no run."""


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds."""

    folder: Path
    config: dict[str, Any]
    """Resolved values; empty where config.yaml is missing or broken."""
    curves: dict[str, NDArray[np.float64]]
    """Columns of metrics.csv, a value per epoch, NaN where an epoch has none."""
    speed: dict[str, NDArray[np.float64]]
    """Columns of speed.csv; empty where nothing was timed."""
    metrics: dict[str, Any] | None
    """Metrics of the best checkpoint."""
    manifest: dict[str, Any] | None
    scored: Scored | None
    notices: tuple[str, ...]
    """What is missing or broken, in sentences."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.absolute().name

    @property
    def seed(self) -> int | None:
        """What the run was seeded with."""
        seed = self.config.get("seed_everything")
        return None if isinstance(seed, bool) or not isinstance(seed, int) else seed

    def section(self, name: str) -> dict[str, Any]:
        """A section of the configuration; empty where there is none."""
        section = self.config.get(name)
        return section if isinstance(section, dict) else {}


def is_run(folder: Path) -> bool:
    """Whether `folder` holds anything of a run."""
    return folder.is_dir() and any((folder / name).exists() for name in RUN_FILES)


def read_run(folder: Path) -> RunFiles:
    """Read whatever is there.

    Raises:
        InputError: no such folder, or nothing of a run in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    if not is_run(folder):
        raise InputError(f"{folder} is no run folder: it has none of {', '.join(RUN_FILES)}")
    notices: list[str] = []
    config = renamed_run(_read(folder / "config.yaml", yaml.safe_load, dict, notices))
    curves = read_columns(folder / "metrics.csv")
    if not curves:
        notices.append("metrics.csv is missing or empty: no epoch was finished.")
    metrics = _read(folder / "metrics.json", json.loads, dict, notices)
    if metrics is None:
        notices.append(_why_no_metrics(folder))
    manifest = None
    if (folder / "manifest.json").exists():
        manifest = _read(folder / "manifest.json", json.loads, dict, notices)
    scored = None
    try:
        scored = read_scored(folder)
    except InputError as error:
        notices.append(str(error))
    return RunFiles(
        folder,
        config or {},
        curves,
        read_columns(folder / "speed.csv"),
        metrics,
        manifest,
        scored,
        tuple(notices),
    )


def _why_no_metrics(folder: Path) -> str:
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))
    if not checkpoints:
        return "The run has no checkpoint: it ended, or was stopped, before the first one was written."
    return (
        f"The run has {' and '.join(checkpoints)} but was not scored at its end: it was stopped. "
        "Continue it with --ckpt_path last."
    )


def read_columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a CSV file; a cell that is no number is NaN. Empty where there is no file or no row."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(line.replace("\0", "") for line in file))
    names = [name for name in rows[0] if name is not None] if rows else []
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.nan


def _read(path: Path, load: Any, kind: type, notices: list[str]) -> Any:
    """The content of a small file; None, with a notice, where it is missing or not what it should be."""
    try:
        content = load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notices.append(f"{path.name} is missing.")
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notices.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}")
        return None
    if not isinstance(content, kind):
        notices.append(f"{path.name} holds a {type(content).__name__}, expected named values.")
        return None
    return content

"""A run's folder: where it is, chosen once for all ranks, and what is written there besides checkpoints."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detect.errors import InputError

RUN_VARIABLE = "DETECT_RUN"
"""Hands the folder that the first process chose to the processes that Lightning starts."""


def choose_run_folder(out: Path | None, *, name: str, resume: bool) -> Path:
    """The folder of this run: `out`, or the first free `runs/NAME-NNN`.

    Args:
        out: what the user gave.
        name: stem of the configuration file.
        resume: the run continues an old one, so its folder may exist.

    Raises:
        InputError: the folder holds a run and this one is new.
    """
    if RUN_VARIABLE in os.environ:
        return Path(os.environ[RUN_VARIABLE])
    if out is None:
        out = _claim_numbered_folder(Path("runs"), name)
    elif not resume and out.exists() and any(out.iterdir()):
        raise InputError(
            f"{out} exists and is not empty: continue it with --ckpt_path last, or choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    os.environ[RUN_VARIABLE] = str(out)
    return out


def _claim_numbered_folder(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100_000):
        folder = parent / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{parent}: 99,999 runs named {name} exist; give --out")


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class MetricsFile(Callback):
    """Keeps metrics.csv: one row an epoch, which a resumed run continues.

    Rows of epochs that a resumed run does again are replaced, so that each epoch stands there once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {
            name.removesuffix("_epoch"): value.item()
            for name, value in sorted(trainer.callback_metrics.items())
            if not name.endswith("_step") and f"{name}_epoch" not in trainer.callback_metrics
        }
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        rows = [old for old in self.read() if int(old["epoch"]) < trainer.current_epoch]
        rows.append({name: str(value) for name, value in row.items()})
        names = list(dict.fromkeys(name for old in rows for name in old))
        lines = [names, *([old.get(name, "") for name in names] for old in rows)]
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
        os.replace(temporary, self.path)

    def read(self) -> list[dict[str, str]]:
        """The rows written so far."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

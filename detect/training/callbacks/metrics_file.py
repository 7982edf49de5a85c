"""metrics.csv: what an epoch gave, one row each, however often the run was interrupted."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detect.system.files import write_atomically
from detect.training.callbacks.progress import TrainingProgress
from detect.training.run_module import RunModule


class EpochFile:
    """A CSV file with a row per epoch; a row replaces those of its own and all later epochs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, row: dict[str, Any]) -> None:
        """Write `row`, whose `epoch` says where it belongs; columns may come and go."""
        rows = [old for old in self.read() if int(old["epoch"]) < row["epoch"]]
        rows.append({name: str(value) for name, value in row.items()})
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())

    def read(self) -> list[dict[str, str]]:
        """The rows written so far."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


class MetricsFile(Callback):
    """Keeps metrics.csv: one row per epoch (1, 2, ...), which a resumed run continues.

    Rows of epochs that a resumed run does again are replaced, so that each epoch stands there once.
    """

    def __init__(self, path: Path) -> None:
        self.file = EpochFile(path)
        self._validated = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        validated, self._validated = self._validated, False
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, RunModule)
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: value.item() for name, value in pl_module.train_losses().items()}
        if validated:
            metrics = sorted(trainer.callback_metrics.items())
            row |= {name: value.item() for name, value in metrics if name.startswith("val/")}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.file.put(row)


class SpeedFile(Callback):
    """Keeps speed.csv: how fast each epoch went, and how much of it was waiting for the loader.

    Apart from metrics.csv, which is the same whatever the machine. Without a progress bar nothing is timed.
    """

    def __init__(self, path: Path) -> None:
        self.file = EpochFile(path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        progress = trainer.progress_bar_callback
        if trainer.is_global_zero and isinstance(progress, TrainingProgress):
            speed = {"images_per_second": progress.images_per_second, "wait_share": progress.wait_share}
            self.file.put({"epoch": trainer.current_epoch + 1, **speed})

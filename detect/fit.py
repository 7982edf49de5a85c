"""`detect fit`: LightningCLI with our module, our data and a run folder."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from detect.backbones.pretrained import transfer_table
from detect.checkpoint import (
    AtomicCheckpointIO,
    build_from_checkpoint,
    plain_settings,
    read_checkpoint,
)
from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.module import DetectionModule
from detect.progress import TrainingProgress
from detect.run_folder import MetricsFile, choose_run_folder, write_atomically
from detect.weights import init_from, match_table

TRAINER_DEFAULTS = {
    # Half a validation set has no mAP; the self-test before step 0 checks the evaluator instead.
    "num_sanity_val_steps": 0,
    # Our samplers split the data themselves: every image once, no padding.
    "use_distributed_sampler": False,
    "max_epochs": 30,
    "log_every_n_steps": 10,
    # Counts and shapes are what `detect models` is for.
    "enable_model_summary": False,
}

NOISE = ("💡", "TPU available", "GPU available", "Loading `train_dataloader`", "HPU available")
"""Lines of Lightning's log that tell a user nothing."""

RESULTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.json", "metrics.csv", "config.yaml")


class FitCLI(LightningCLI):
    """Parse a YAML and flags, choose the run folder, build data, model and trainer; starts nothing."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            DetectionModule,
            DetectionData,
            run=False,
            args=args,
            save_config_callback=None,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={
                "exit_on_error": False,
                "prog": "detect fit",
                "description": "Train a detector. Example: "
                "detect fit --config configs/bccd.yaml --data.root path/to/bccd",
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str | None, default=None, help="run folder; null: runs/NAME-NNN")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="continue from a checkpoint: 'last' or a file"
        )
        # Derived values have one home: the model says what it takes, the data follows.
        parser.link_arguments("model.image_size", "data.image_size")
        parser.link_arguments("model.resize_rule", "data.resize_rule")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        if self.config.model.num_classes is None:
            self.config.model.num_classes = open_data(self.config.data).classes.num_classes
        self.resume = self.config.ckpt_path is not None
        configs = self.config.get("config") or []
        name = Path(str(configs[0])).stem if configs else "run"
        out = None if self.config.out is None else Path(self.config.out)
        self.run_folder = choose_run_folder(out, name=name, resume=self.resume)
        self._settle_precision()

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        self.model.settings = plain_settings(self.config.model)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config_init.trainer.as_dict()
        if config.get("logger") in (None, True):
            kwargs["logger"] = TensorBoardLogger(self.run_folder, name="tensorboard", version="")
        kwargs["plugins"] = [*(config.get("plugins") or []), AtomicCheckpointIO()]
        kwargs["callbacks"] = [*(config.get("callbacks") or []), *self._callbacks()]
        kwargs["default_root_dir"] = str(self.run_folder)
        return L.Trainer(**{**config, **kwargs})

    def _callbacks(self) -> list[Callback]:
        folder = self.run_folder / "checkpoints"
        shared: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
        return [
            TrainingProgress(),
            MetricsFile(self.run_folder / "metrics.csv"),
            ModelCheckpoint(filename="best", monitor="val/mAP", mode="max", **shared),
            # After the epoch and its validation are over, when no averaged weights are swapped in.
            ModelCheckpoint(filename="last", monitor=None, save_on_train_epoch_end=True, **shared),
        ]

    def _settle_precision(self) -> None:
        """A GPU without bfloat16 computes it in software: take float16 there, and say so."""
        precision = self.config.trainer.precision
        if precision == "bf16-mixed" and torch.cuda.is_available():
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                print("this GPU has no bfloat16: trainer.precision is 16-mixed instead of bf16-mixed")
                self.config.trainer.precision = "16-mixed"


def open_data(config: Namespace) -> DetectionData:
    """Build the data of a `data:` section alone and read its annotations."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionData, "data")
    alone = Namespace(data=config)  # type: ignore[no-untyped-call]
    data: DetectionData = parser.instantiate_classes(alone).data
    data.open()
    return data


def fit(args: list[str]) -> int:
    """Run `detect fit ARGS`; returns the exit code."""
    quiet_lightning()
    try:
        cli = FitCLI(args)
    except ArgumentError as error:
        raise InputError(explain(error, args)) from error
    console = Console(soft_wrap=True)
    settle_threads(cli.trainer)
    first = cli.trainer.is_global_zero
    if first:
        write_atomically(cli.run_folder / "config.yaml", cli.parser.dump(cli.config, skip_none=False))
        console.print(f"run folder: {cli.run_folder}", highlight=False, markup=False)
    ckpt_path = resolve_ckpt_path(cli.config.ckpt_path, cli.run_folder)
    start_from_weights(cli, console, resumed=ckpt_path is not None)
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
    if first:
        finish(cli, console)
    return 0


def start_from_weights(cli: FitCLI, console: Console, *, resumed: bool) -> None:
    """Say what pretrained weights filled, and copy what `model.init_from` has; a resumed run has its own."""
    first = cli.trainer.is_global_zero and not resumed
    if first and cli.model.net.backbone.transfer_report:
        console.print(transfer_table(cli.model.net.backbone))
    if cli.model.init_from is None or resumed:
        return
    cli.datamodule.open()
    match = init_from(cli.model.net, cli.datamodule.classes, Path(cli.model.init_from))
    if first:
        console.print(match_table(match, source=cli.model.init_from))


def finish(cli: FitCLI, console: Console) -> None:
    """Score the best checkpoint as it lies on the disk, and say where everything is."""
    best = cli.run_folder / "checkpoints" / "best.ckpt"
    if not best.exists():
        console.print("no validation ran, so there is no best checkpoint")
        return
    from detect.metrics_table import metrics_table
    from detect.validate import validate_module

    metrics = validate_module(build_from_checkpoint(read_checkpoint(best)), cli.datamodule)
    write_atomically(cli.run_folder / "metrics.json", json.dumps(metrics.to_json(), indent=1))
    console.print(metrics_table(metrics))
    for name in (
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.json",
        "metrics.csv",
        "config.yaml",
    ):
        console.print(f"  {cli.run_folder / name}", highlight=False, markup=False)


def quiet_lightning() -> None:
    """Keep Lightning's advertisements and hardware lists out of the log, and one deprecation of its own."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(NOISE))
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)


def settle_threads(trainer: L.Trainer) -> None:
    """Share the cores between the ranks of this machine: more threads than cores make all of them wait."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // max(1, trainer.num_devices)))


def resolve_ckpt_path(ckpt_path: str | None, run_folder: Path) -> Path | None:
    """`last` is RUN/checkpoints/last.ckpt, or a fresh start where there is none; else a file."""
    if ckpt_path is None:
        return None
    if ckpt_path == "last":
        path = run_folder / "checkpoints" / "last.ckpt"
        return path if path.exists() else None
    if not Path(ckpt_path).is_file():
        raise InputError(f"--ckpt_path {ckpt_path}: no such file; give 'last' or a checkpoint")
    return Path(ckpt_path)


def explain(error: ArgumentError, args: list[str]) -> str:
    """Jsonargparse's message with the nearest valid key, where a key was unknown."""
    message = str(error)
    flags = [word.split("=")[0].lstrip("-") for word in args if word.startswith("--")]
    quoted = re.findall(r"[\w.]*\w", message)
    keys = list(valid_keys())
    for key in (key for key in [*quoted, *flags] if key not in keys and (key in quoted or key in message)):
        nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.8)
        if nearest:
            return f"{message}\nnearest valid key: {nearest[0]}"
    return message


def valid_keys() -> Iterator[str]:
    """Every key that `detect fit` takes, by its full path."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(DetectionModule, "model")
    parser.add_lightning_class_args(DetectionData, "data")
    parser.add_lightning_class_args(L.Trainer, "trainer")
    yield from parser.get_defaults().keys()
    yield from ("out", "ckpt_path", "seed_everything", "config")

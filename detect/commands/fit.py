"""`detect fit`: train, validate, keep the best and the last checkpoint, and say where everything is."""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from detect.commands.fit_cli import FitCLI
from detect.commands.run_cli import RunCLI
from detect.config.trusted_classes import hash_own_code
from detect.data.checks.findings import summarise
from detect.errors import DISK_IS_FULL, EXIT_STOPPED, InputError, RunStopped
from detect.evaluation.metrics_table import metrics_table
from detect.inspection.anchor_fit import first_look
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.run_advice import explain_weak, gather_facts, is_weak
from detect.model.backbones.pretrained import transfer_table
from detect.model.checkpoint import build_from_checkpoint, read_checkpoint
from detect.model.weights import describe_origin, init_from, match_table
from detect.report.run_page import score_run, write_report
from detect.system.cores import available_cores
from detect.system.files import write_atomically
from detect.training.callbacks.checkpoints import disk_is_full
from detect.training.callbacks.metrics_file import EpochFile
from detect.training.finite_guard import NonFiniteError
from detect.training.lightning_loops import end_processes_of_lightning
from detect.training.manifest import (
    MANIFEST_FILE,
    append_manifest,
    describe_result,
    hash_files,
    hash_weights,
    make_manifest,
    update_manifest,
)
from detect.training.nan_report import write_nan_report
from detect.training.resume import describe_resume, flat

Cli = TypeVar("Cli", bound=RunCLI)

NOISE = (
    "💡",
    "-----",  # a frame around the number of processes, which the sentence about the batch says too
    "GPU available",
    "HPU available",
    "Initializing distributed",
    "Loading `train_dataloader`",
    "TPU available",
    "`Trainer.fit` stopped: `max_epochs",
)
"""Lines of Lightning's log that tell a user nothing."""
QUIETED = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.distributed",
)
"""Loggers that write them."""

MUTED: dict[str, type[Warning]] = {
    r".*isinstance\(treespec, LeafSpec\)": FutureWarning,
    # What is logged was summed over all ranks before.
    r".*recommended to use `self\.log\(.*sync_dist=True": UserWarning,
    # A run of few steps logs at the end of each epoch all the same.
    r".*is smaller than the logging interval": UserWarning,
}
"""Warnings of Lightning's that do not hold here."""

RESULTS = (
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.json", "metrics.csv", "config.yaml"),
    "report.html",
)


def fit(args: list[str], *, before_training: Callable[[Path], None] | None = None) -> int:
    """Run `detect fit ARGS`; returns the exit code.

    Args:
        args: of the command line.
        before_training: called with the run folder on rank 0, once its manifest is complete.

    Raises:
        InputError: something that the user gave is wrong.
        RunStopped: the run ended before its last epoch, on a signal, a NaN or a full disk.
    """
    cli, console = begin(FitCLI, args)
    if cli.anchors is not None:
        console.print(cli.anchors.sentence, highlight=False, markup=False)
    if cli.model.distillation is not None:
        console.print(cli.model.distillation.sentence(cli.model.net), highlight=False, markup=False)
    if cli.memory is not None:
        console.print(cli.memory, highlight=False, markup=False)
    if cli.resume is None:
        start_from_weights(cli, console)
        look_at_anchors(cli, console)
    else:
        say_resumed(cli, console)
    log_settings(cli)
    if before_training is not None and cli.trainer.is_global_zero:
        before_training(cli.run_folder)
    train(cli, lambda step: write_nan_report(cli.trainer, cli.model, cli.run_folder / "nan", step=step))
    finish(cli, console)
    return 0


def begin(kind: type[Cli], args: list[str]) -> tuple[Cli, Console]:
    """Build all that a run needs from the words of its command, and describe the run in its folder.

    Raises:
        InputError: something that the user gave is wrong.
    """
    quiet_lightning()
    try:
        cli = kind(args)
    except MisconfigurationException as error:  # Lightning's word for trainer settings that do not fit
        raise InputError(f"detect {kind.command}: {error}") from error
    settle_threads(cli.trainer)
    console = Console(soft_wrap=True, quiet=not cli.trainer.is_global_zero)
    if cli.trainer.is_global_zero:
        write_descriptions(cli, args)
    console.print(f"run folder: {cli.run_folder}", highlight=False, markup=False)
    return cli, console


def say_resumed(cli: RunCLI, console: Console) -> None:
    """Say from where a run is resumed."""
    assert cli.resume is not None
    for line in describe_resume(cli.resume, cli.run["config"]["trainer"], cli.model.schedule):
        console.print(line, highlight=False, markup=False)


def write_descriptions(cli: RunCLI, args: list[str]) -> None:
    """Write config.yaml and manifest.json."""
    path = cli.run_folder / MANIFEST_FILE
    splits = {"train": cli.data.train, "val": cli.data.val}
    manifest = make_manifest(
        command=cli.command,
        args=args,
        config=cli.run["config"],
        data={
            name: description | {"files_sha256": hash_files(splits[name])}
            for name, description in cli.described_data.items()
        },
        device=cli.trainer.strategy.root_device.type,
        processes=cli.trainer.world_size,
    )
    findings = {
        role: summarise(found, examples=1).splitlines() for role, found in cli.data.findings.items() if found
    }
    manifest |= {"findings": findings, "own_code": hash_own_code()}
    if "teacher" in cli.run:
        manifest["teacher"] = cli.run["teacher"]
    # First, for it tells that the folder is a run's.
    write_atomically(path, append_manifest(path, manifest))
    text = cli.parser.dump(cli.config, skip_unset=False, skip_validation=True)
    write_atomically(cli.run_folder / "config.yaml", text)


def log_settings(cli: RunCLI) -> None:
    """Hand every setting to the loggers that show runs beside each other by their settings."""
    for logger in cli.trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(flat(cli.run["config"]))


def start_from_weights(cli: FitCLI, console: Console) -> None:
    """Say what pretrained weights filled, and copy what `model.init_from` has."""
    if cli.model.net.backbone.transfer_report:
        console.print(transfer_table(cli.model.net.backbone))
    if cli.start is not None:
        match = init_from(cli.model.net, cli.data.classes, cli.start)
        console.print(match_table(match, source=str(cli.start)))
    origin = cli.model.net.backbone.weights_origin
    if origin is not None and cli.start is not None:
        console.print(f"origin: {describe_origin(origin)}", highlight=False, markup=False)
    if cli.trainer.is_global_zero:
        weights = hash_weights(cli.model.detector.state_dict())
        update_manifest(cli.run_folder, initial_weights=weights, weights_origin=origin)


def look_at_anchors(cli: FitCLI, console: Console) -> None:
    """Say how many of the training boxes some anchor meets, and what would meet more where they are few."""
    if not cli.trainer.is_global_zero:
        return
    trained_before = cli.config.model.init_from is not None
    for line in first_look(cli.data.train, AnchorLayout.of(cli.model.net), keep_anchors=trained_before):
        console.print(line, highlight=False, markup=False)


def train(cli: RunCLI, explain_bad_step: Callable[[int], str]) -> None:
    """Run the trainer, and turn what can stop it into a message and an exit code.

    Args:
        cli: the run.
        explain_bad_step: what to tell the user of an optimizer step, from 0, that was not finite.

    Raises:
        RunStopped: see `fit`.
    """
    ckpt_path = cli.resume.path if cli.resume else None
    try:
        try:
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
        except NonFiniteError as error:
            raise RunStopped(explain_bad_step(error.step), exit_code=EXIT_STOPPED) from error
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            message = disk_is_full(error, cli.checkpoints.last)
            raise RunStopped(message, exit_code=EXIT_STOPPED) from error
    except RunStopped:
        end_processes_of_lightning(cli.trainer)
        raise


def finish(cli: FitCLI, console: Console) -> None:
    """Score the best checkpoint as it lies on the disk, on all ranks together."""
    if not cli.checkpoints.best.exists():
        console.print("no validation ran, so there is no best checkpoint")
        return
    detector = build_from_checkpoint(read_checkpoint(cli.checkpoints.best))
    metrics = score_run(cli.run_folder, detector, cli.datamodule)
    console.print(metrics_table(metrics))
    if not cli.trainer.is_global_zero:
        return
    update_manifest(cli.run_folder, result=describe_result(cli.run_folder))
    write_report(cli.run_folder)
    lines = [f"  {cli.run_folder / name}" for name in RESULTS]
    if is_weak(metrics):
        layout, rows = AnchorLayout.of(detector.net), EpochFile(cli.run_folder / "metrics.csv").read()
        facts = gather_facts(cli.run["config"], cli.data, layout, rows=rows, metrics=metrics)
        lines += explain_weak(metrics, facts)
    for line in [*lines, "next:", *next_commands(cli.run_folder, images=cli.data.val.root)]:
        console.print(line, highlight=False, markup=False)


def next_commands(run: Path, *, images: Path) -> list[str]:
    """What to do with a finished run, to be copied; compared with the newest other run beside it, if any."""
    best = run / "checkpoints" / "best.ckpt"
    others = [path.parent for path in run.parent.glob("*/metrics.json") if path.parent != run]
    newest = max(others, key=lambda other: other.stat().st_mtime, default=None)
    commands = [
        ["predict", "--ckpt_path", best, "--source", images, "--out", f"{run.name}-found"],
        ["export", "--ckpt_path", best, "--format", "onnx", "--out", f"{run.name}.onnx"],
    ]
    if newest is not None:
        commands.append(["compare", newest, run, "--out", f"{run.name}-compared"])
    return [f"  detect {shlex.join(map(str, words))}" for words in commands]


def quiet_lightning() -> None:
    """Keep Lightning's advertisements, hardware lists and wrong warnings out of the log."""
    for name in QUIETED:
        logging.getLogger(name).addFilter(_tells_something)
    for message, category in MUTED.items():
        warnings.filterwarnings("ignore", message=message, category=category)


def _tells_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NOISE)


def settle_threads(trainer: L.Trainer) -> None:
    """Share the cores between the ranks of this machine: more threads than cores make all of them wait."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // max(1, trainer.num_devices)))

"""From the words of a command that trains to data, module and trainer: what `fit` and `pretrain` share."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from detect.commands.arguments import add_trust_argument
from detect.commands.fit_checks import (
    check_monitor,
    refuse_frozen_noise,
    refuse_loggers,
    refuse_running_averages,
    refuse_trainer_settings,
)
from detect.config.trusted_classes import refuse_foreign_classes, refuse_foreign_words
from detect.config.unknown_keys import constructor_errors, explain
from detect.data.datamodule import DetectionData
from detect.data.sampler import require_full_batch
from detect.errors import InputError
from detect.model.checkpoint import Task, without_weights
from detect.system.ranks import rank_by_environment
from detect.training.build import MODEL_DEFAULTS
from detect.training.callbacks.checkpoints import RunCheckpoints
from detect.training.callbacks.loader_advice import LoaderAdvice
from detect.training.callbacks.metrics_file import MetricsFile, SpeedFile
from detect.training.callbacks.progress import TrainingProgress
from detect.training.callbacks.run_time import TimeEstimate
from detect.training.checkpoint_io import AtomicCheckpointIO
from detect.training.losses import TOTAL
from detect.training.manifest import describe_split
from detect.training.resume import (
    Resume,
    find_resume,
    refuse_changes,
    refuse_other_data,
    refuse_other_teacher,
)
from detect.training.run_folder import choose_run_folder
from detect.training.run_module import RunModule, check_class_count
from detect.training.stop_signals import StopSignals

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

LARGEST_SEED = 2**32 - 1
"""That numpy takes."""

NOT_SETTINGS = ("config", "out", "ckpt_path", "trust")
"""Keys that name files of one call, not what is trained."""


class RunCLI(LightningCLI):
    """Parse YAML files and flags, choose the run folder, build data, model and trainer; starts nothing.

    Args:
        args: of the command line.
    """

    command: str
    """The word of the command line."""
    does: str
    """What it does, with an example, for its help."""
    task: Task
    data_class: type[DetectionData]

    def __init__(self, args: list[str]) -> None:
        self.resume: Resume | None = find_resume(args, task=self.task)
        super().__init__(
            self.module_function(),
            self.data_class,
            run=False,
            args=args,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "prog": f"detect {self.command}",
                "description": self.does,
            },
        )

    def module_function(self) -> Callable[..., RunModule]:
        """What builds the module from a `model:` section."""
        raise NotImplementedError

    def section_parser(self) -> ArgumentParser:
        """The parser of a `model:` section."""
        raise NotImplementedError

    def metric_modes(self) -> dict[str, str]:
        """What validation logs, by name, and whether more is better ("max") or less ("min")."""
        raise NotImplementedError

    def settle_model(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Decide what follows from the data, which is open; returns the settings as they then are.

        Raises:
            InputError: the settings do not fit the data or a file that they name.
        """
        return settings

    def further_facts(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint notes of the run beside its settings and its data."""
        return {}

    def own_callbacks(self) -> list[Callback]:
        """Callbacks of this command alone."""
        return []

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str | None, default=None, help="run folder; null: runs/NAME-NNN")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="checkpoint to resume from: 'last' or a file"
        )
        parser.add_argument(
            "--checkpoint_minutes", type=float, default=10.0, help="between two checkpoints within an epoch"
        )
        add_trust_argument(parser)
        parser.set_defaults(MODEL_DEFAULTS)
        # Derived values have one home: the model says what it takes, the data follows.
        parser.link_arguments("model.image_size", "data.image_size")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`, on top of the checkpoint's settings where a run is resumed.

        Raises:
            InputError: a key or a value that is not valid, or a class that is not trusted.
        """
        refuse_foreign_words(args)
        try:
            if self.resume is None:
                self.config = parser.parse_args(args)
            else:
                self.resume = self.resume._replace(config=self.resolved(self.resume.config))
                with as_file(self.resume.config) as saved:
                    self.config = parser.parse_args(["--config", str(saved), *args])
                self.config.config = self.config.config[1:]
            # parse_args takes a file's null for any type.
            parser.validate(self.config, skip_unset=False)
        except (ArgumentError, TypeError) as error:
            raise InputError(f"detect {self.command}: {explain(str(error), parser)}") from error
        if self.config.pop("trust") and not any(word.partition("=")[0] == "--trust" for word in args):
            raise InputError("give --trust on the command line, not in a configuration file")
        seed = self.config.seed_everything
        if not 0 <= int(seed) <= LARGEST_SEED:
            raise InputError(f"seed_everything is {seed}; give a number from 0 to {LARGEST_SEED}")

    def before_instantiate_classes(self) -> None:
        if self.config.ckpt_path is not None and self.resume is None and self.config.ckpt_path != "last":
            raise InputError("give --ckpt_path on the command line, not in a configuration file")
        refuse_trainer_settings(self.config.trainer, self.command)
        refuse_loggers(self.config.trainer.get("logger"))
        if self.resume is None:
            refuse_frozen_noise(self.config.model)
        self._settle_precision()
        self.data = open_data(self.config.data, self.data_class)
        require_full_batch(len(self.data.train), self.config.data.total_batch_size)
        self.described_data = {
            "train": describe_split(self.data.train),
            "val": describe_split(self.data.val),
        }
        if self.config.model.num_classes is None:
            self.config.model.num_classes = self.data.classes.num_classes
        check_class_count(self.config.model.num_classes, self.data.classes)
        settings = self.plain_config()
        refuse_foreign_classes(settings, "the configuration", follow_files=True)
        settings = self.settle_model(settings)
        self.run = {"config": settings, "data": self.described_data} | self.further_facts(settings)
        if self.resume is not None:
            refuse_changes(self.resume, settings)
            refuse_other_data(self.resume, self.described_data)
            refuse_other_teacher(self.resume, self.run.get("teacher"))
            self._build_without_other_weights(self.resume)
        configs = self.config.get("config") or []
        name = Path(str(configs[0])).stem if configs else "run"
        out = None if self.config.out is None else Path(self.config.out)
        self._folder_was_there = out is not None and out.exists()
        self.run_folder = choose_run_folder(out, name=name, resume=self.config.ckpt_path is not None)

    def instantiate_classes(self) -> None:
        # As Lightning's own, which calls the parser by a name that jsonargparse 5 drops.
        with self._no_empty_folder(), constructor_errors():
            self.config_init = self.parser.instantiate(self.config)
            self.model = self.config_init.model
            self.trainer = self.instantiate_trainer()
        self.datamodule = self.data  # the one that has read its annotations
        if self.resume is not None:
            origin = self.resume.checkpoint.description.get("weights_origin")
            self.model.net.backbone.weights_origin = origin

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config_init.trainer.as_dict()
        if config.get("logger") in (None, True):
            # What a killed run logged behind its last checkpoint is logged again.
            done = self.resume.position.global_step if self.resume else None
            kwargs["logger"] = TensorBoardLogger(
                self.run_folder, name="tensorboard", version="", purge_step=done
            )
        callbacks = config.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        for callback in callbacks:
            check_monitor(
                callback,
                train_losses=[TOTAL, *self.model.term_names],
                val_losses=[TOTAL, *self.model.val_term_names],
                metrics=self.metric_modes(),
            )
            refuse_running_averages(callback, self.model.statistics_images)
        kwargs["plugins"] = [*(config.get("plugins") or []), AtomicCheckpointIO()]
        kwargs["callbacks"] = [*callbacks, *self._callbacks()]
        kwargs["default_root_dir"] = str(self.run_folder)
        # See `lightning_loops.shorten_last_epoch`.
        self.model.max_steps, kwargs["max_steps"] = self._max_steps(), -1
        try:
            return L.Trainer(**{**config, **kwargs})
        except (TypeError, ValueError) as error:  # what Lightning says of devices and accelerators
            raise InputError(f"trainer settings: {error}") from error

    def plain_config(self) -> dict[str, Any]:
        """Every resolved value of this run as YAML would hold it."""
        return self.plain(self.config)

    def plain(self, config: Namespace) -> dict[str, Any]:
        """Parsed values as YAML would hold them."""
        config = config.clone()
        for key in NOT_SETTINGS:
            config.pop(key, None)
        text = self.parser.dump(config, skip_unset=False, skip_validation=True)
        settings: dict[str, Any] = get_loader("yaml")(text)
        return settings

    def resolved(self, config: dict[str, Any]) -> dict[str, Any]:
        """Settings of a run as this version resolves them: earlier ones knew fewer, and other forms."""
        with as_file(config) as saved:
            return self.plain(self.parser.parse_args(["--config", str(saved)]))

    @contextmanager
    def _no_empty_folder(self) -> Iterator[None]:
        """Remove the run folder that was made for this start where the block fails with nothing in it yet."""
        try:
            yield
        except BaseException:
            if not self._folder_was_there and not rank_by_environment():
                with suppress(OSError):  # a folder that holds something stays
                    self.run_folder.rmdir()
            raise

    def _callbacks(self) -> list[Callback]:
        self.checkpoints = RunCheckpoints(
            self.run_folder / "checkpoints",
            self.run,
            every_minutes=self.config.checkpoint_minutes,
            signals=StopSignals(),
        )
        progress = [TrainingProgress()] if self.config.trainer.enable_progress_bar is not False else []
        return [
            *progress,
            *self.own_callbacks(),
            MetricsFile(self.run_folder / "metrics.csv"),
            SpeedFile(self.run_folder / "speed.csv"),
            TimeEstimate(),
            LoaderAdvice(),
            self.checkpoints,
        ]

    def _max_steps(self) -> int | None:
        max_steps: int = self.config.trainer.max_steps
        return None if max_steps == -1 else max_steps

    def _settle_precision(self) -> None:
        """A GPU without bfloat16 computes it in software: take float16 there, and say so."""
        precision = self.config.trainer.precision
        if precision == "bf16-mixed" and torch.cuda.is_available():
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                print("this GPU has no bfloat16: trainer.precision is 16-mixed instead of bf16-mixed")
                self.config.trainer.precision = "16-mixed"

    def _build_without_other_weights(self, resume: Resume) -> None:
        """Build the network from what the checkpoint says; its weights are the only ones that are read."""
        settings = self.plain_config()["model"] | resume.checkpoint.description["model"]
        settings = without_weights(settings)
        self.config.model = self.section_parser().parse_object({"model": settings}).model


@contextmanager
def as_file(config: dict[str, Any]) -> Iterator[Path]:
    """Settings as a configuration file, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved.json"  # JSON is YAML too
        path.write_text(json.dumps(config), encoding="utf-8")
        yield path


def open_data(config: Namespace, kind: type[DetectionData] = DetectionData) -> DetectionData:
    """Build the data of a `data:` section alone and read its annotations."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "data")
    alone = Namespace(data=config)  # type: ignore[no-untyped-call]
    with constructor_errors():
        data: DetectionData = parser.instantiate(alone).data
    data.open()
    return data

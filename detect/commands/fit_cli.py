"""`detect fit` in its own part: a detector's settings, and those of finished runs as it reads them today."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from detect.commands.auto_anchors import settle_anchors
from detect.commands.fit_checks import refuse_start
from detect.commands.fit_memory import settle_memory
from detect.commands.run_cli import RunCLI
from detect.config.trusted_classes import refuse_foreign_classes, refuse_foreign_words
from detect.config.unknown_keys import explain
from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.evaluation.metrics import METRICS
from detect.model.published import find_start
from detect.training.build import detection_module, model_parser
from detect.training.callbacks.run_checks import RunChecks
from detect.training.callbacks.validation_images import ValidationPictures
from detect.training.distillation import describe_teacher
from detect.training.run_module import RunModule


class FitCLI(RunCLI):
    """`detect fit`: a detector in training."""

    command, task, data_class = "fit", "detection", DetectionData
    does = "Train a detector. Example: detect fit --config configs/bccd.yaml --data.root path/to/bccd"

    def __init__(self, args: list[str]) -> None:
        self.memory: str | None = None
        """What to say of the memory of a GPU."""
        self.start: Path | None = None
        """The checkpoint that `model.init_from` names."""
        super().__init__(args)

    def module_function(self) -> Callable[..., RunModule]:
        return detection_module

    def section_parser(self) -> ArgumentParser:
        return model_parser()

    def metric_modes(self) -> dict[str, str]:
        return {metric.name: metric.mode for metric in METRICS if "epoch" in metric.places}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.link_arguments("model.resize_rule", "data.resize_rule")

    def settle_model(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Find the detector to start from, and the anchors that follow from the data."""
        started = settings["model"]
        if self.resume is None and started["init_from"] is not None:
            self.start = find_start(started["init_from"], started)
            started = started | {"init_from": str(self.start)}
        self.anchors = settle_anchors(started, self.data.train, resume=self.resume)
        if self.anchors is not None:
            for key, value in self.anchors.values.items():
                self.config.model.anchors[key] = value
            settings = self.plain_config()
        if self.start is not None:
            refuse_start(settings["model"], self.start)
        return settings

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        self.memory = settle_memory(self.config.data.batch_size, self.model, self.trainer, self.data)
        if self.config.data.batch_size == "auto":
            self.config.data.batch_size = self.run["config"]["data"]["batch_size"] = self.data.batch_size

    def further_facts(self, settings: dict[str, Any]) -> dict[str, Any]:
        teacher = settings["model"]["teacher"]
        return {} if teacher is None else {"teacher": describe_teacher(Path(teacher), self.data.classes)}

    def own_callbacks(self) -> list[Callback]:
        fresh = self.config.model.init_from is None
        return [RunChecks(self.run_folder, fresh=fresh), ValidationPictures()]


class ReadsSettings(RunCLI):
    """Reads settings of finished runs as the command that it is mixed into would today; builds nothing."""

    def __init__(self) -> None:
        super().__init__([])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(seed_everything=False)  # type: ignore[no-untyped-call]

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def read_words(self, words: list[str]) -> dict[str, Any]:
        """Every value that the words of a command give, as `detect fit` would take them; nothing is built.

        Raises:
            InputError: a class is not trusted, or a key or a value is not valid.
        """
        refuse_foreign_words(words)
        try:
            settings = self.plain(self.parser.parse_args(words))
        except ArgumentError as error:
            raise InputError(f"detect fit: {explain(str(error), self.parser)}") from error
        refuse_foreign_classes(settings, "the configuration", follow_files=True)
        return settings

    def read(self, config: dict[str, Any], place: Path) -> dict[str, Any]:
        """Every value of a run's settings, defaults of this version for those that it did not have.

        Args:
            config: what the run noted.
            place: where, for the message.

        Raises:
            InputError: a class is not trusted, or a key or a value is not valid any more.
        """
        refuse_foreign_classes(config, place)
        try:
            return self.resolved(config)
        except ArgumentError as error:
            raise InputError(f"{place}: {explain(str(error), self.parser)}") from error


class SettingsReader(ReadsSettings, FitCLI):
    """Of `detect fit`."""


@cache
def settings_reader() -> SettingsReader:
    """The one reader of detectors' runs; building its parser takes a second."""
    return SettingsReader()

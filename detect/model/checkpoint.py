"""From plain values to a detector: how modules are built, and how checkpoints are written and read.

Reading a checkpoint runs no code from it: tensors and plain values only, and a class is imported only when
its path is ours or on a short list.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from detect.config.trusted_classes import refuse_foreign_classes
from detect.config.unknown_keys import constructor_errors
from detect.errors import InputError
from detect.model.checkpoint_format import migrate
from detect.system.files import write_whole
from detect.training.module import DetectionModule
from detect.types import ClassMap


def model_parser() -> ArgumentParser:
    """The parser of a `model:` section, the same for the command line and for checkpoints."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionModule, "model")
    return parser


def build_module(settings: dict[str, Any]) -> DetectionModule:
    """Build a module from the plain values of a `model:` section.

    Args:
        settings: what a YAML file holds under `model`, class paths included.

    Raises:
        InputError: a key or value that DetectionModule does not take; the message names its path.
    """
    parser = model_parser()
    try:
        config = parser.parse_object({"model": deepcopy(settings)})
    except ArgumentError as error:
        raise InputError(f"model settings: {error}") from error
    with constructor_errors():
        module: DetectionModule = parser.instantiate(config).model
    module.settings = plain_settings(config.model)
    return module


def plain_settings(model: Namespace) -> dict[str, Any]:
    """A parsed `model:` section as YAML would hold it: no tuples, no functions, nothing to unpickle."""
    text = model_parser().dump(Namespace(model=model), skip_unset=False)  # type: ignore[no-untyped-call]
    settings: dict[str, Any] = get_loader("yaml")(text)["model"]
    return settings


class Checkpoint(NamedTuple):
    """A file read, not yet a detector."""

    path: Path
    description: dict[str, Any]
    """See `DetectionModule.describe`."""
    state_dict: dict[str, torch.Tensor]
    """Weights; the averaged ones where an average was kept."""
    raw: dict[str, Any]
    """Everything in the file: optimizer, loops, callbacks."""

    @property
    def classes(self) -> ClassMap:
        """Which label means what."""
        return ClassMap.from_list(self.description["classes"])


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint written by `detect fit` or `detect convert-weights`.

    Raises:
        InputError: no such file, not a checkpoint, or one of a newer version or another program.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run code from the file
        raise InputError(
            f"{path}: cannot be read as a checkpoint: it is broken, or holds more than tensors and plain "
            "values"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    if not isinstance(raw, dict) or "detect" not in raw or "state_dict" not in raw:
        raise InputError(
            f"{path}: not a checkpoint of detect; torchvision's are taken by "
            f"`detect convert-weights torchvision {path} OUT.ckpt`"
        )
    raw = migrate(raw, path)
    description = raw["detect"]
    refuse_foreign_classes(description["model"], path)
    return Checkpoint(path, description, raw["state_dict"], raw)


def build_from_checkpoint(checkpoint: Checkpoint) -> DetectionModule:
    """The detector of a checkpoint in evaluation mode; no other weights are read or downloaded."""
    settings = deepcopy(checkpoint.description["model"])
    # The weights are in the checkpoint; the file or hub that training started from is not needed again.
    settings["backbone"].get("init_args", {}).pop("weights", None)
    settings.pop("optimizer", None)  # nor is what trained them
    module = build_module(settings)
    module.settings = deepcopy(checkpoint.description["model"])
    module.classes = checkpoint.classes
    module.net.backbone.weights_origin = checkpoint.description.get("weights_origin")
    try:
        module.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint.path}: weights do not fit the settings in the file: {error}"
        ) from error
    return module.eval()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint whole or not at all: a temporary file beside it, fsync, rename.

    Lightning's own goes through the system's temporary folder, which may be another, smaller disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # In memory first: torch's writer hides a full disk behind an error of its own.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(target, content.getbuffer())

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """What Lightning resumes from, at today's format version."""
        content = super().load_checkpoint(Path(path), map_location, weights_only)
        return migrate(content, Path(path)) if "detect" in content else content

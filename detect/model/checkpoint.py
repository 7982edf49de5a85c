"""From a file or plain values to a detector, and back into a file.

Reading a checkpoint runs no code from it: tensors and plain values only, and a class is imported only when
its path is ours or on a short list.
"""

from __future__ import annotations

import io
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from detect.config.trusted_classes import refuse_foreign_classes
from detect.config.unknown_keys import build
from detect.errors import InputError
from detect.model.checkpoint_format import migrate
from detect.model.detector import TorchDetector
from detect.system.files import write_whole
from detect.types import ClassMap, ScoreActivation

DETECTOR_PREFIX = "detector."
"""Of the names of a detector's weights in a checkpoint of a run."""
Task = Literal["detection", "classification"]
PREFIXES: dict[Task, str] = {"detection": DETECTOR_PREFIX, "classification": "classifier."}
OTHER_TASK = (
    "a classifier of `detect pretrain`, no detector; a detector starts from it by "
    "--model.backbone.weights RUN/weights.safetensors"
)
TRAINING_KEYS = frozenset(
    {
        *("loss", "optimizer", "schedule", "parameters", "init_from", "teacher", "distillation"),
        *("statistics_images", "compile"),
    }
)
"""Keys of a `model:` section that say how the detector is trained, not what it is."""


def build_detector(
    settings: dict[str, Any], *, score_activation: ScoreActivation = "softmax"
) -> TorchDetector:
    """Build a detector from the plain values of a `model:` section; keys that only train it are left out.

    Args:
        settings: what a YAML file holds under `model`, class paths included.
        score_activation: of the loss that trained it.

    Raises:
        InputError: a key or value that the detector does not take; the message names its path.
    """
    # Here and not above: a file that is only read needs no parser.
    from jsonargparse import ArgumentParser

    own = {key: value for key, value in settings.items() if key not in TRAINING_KEYS}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TorchDetector, "model", skip={"score_activation"})
    detector: TorchDetector = build(parser, {"model": own}, what="model settings").model
    detector.postprocess.activation = score_activation
    return detector


def build_loss(settings: dict[str, Any]) -> Any | None:
    """The loss of a `model:` section, which decides the score activation and what a fresh head starts from.

    None where the section names none. The class is found by its path alone: which losses there are is no
    business of a detector.

    Raises:
        InputError: a value that the loss does not take.
    """
    loss = settings.get("loss")
    if loss is None:
        return None
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "loss")
    return build(parser, {"loss": loss}, what="model settings").loss


def without_weights(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that read no other file: weights of a backbone and a detector to start from are left out."""
    settings = deepcopy(settings)
    settings.pop("init_from", None)
    match settings.get("backbone"):
        case {"init_args": dict() as arguments}:
            arguments.pop("weights", None)
    return settings


class Checkpoint(NamedTuple):
    """A file read, not yet a detector."""

    path: Path
    description: dict[str, Any]
    """See `TorchDetector.describe`."""
    state_dict: dict[str, torch.Tensor]
    """Weights of the detector; the averaged ones where an average was kept."""
    raw: dict[str, Any]
    """Everything in the file: optimizer, loops, callbacks."""

    @property
    def classes(self) -> ClassMap:
        """The meaning of each label."""
        return ClassMap.from_list(self.description["classes"])


def read_checkpoint(path: Path, *, task: Task = "detection") -> Checkpoint:
    """Read a checkpoint written by `detect fit`, `detect convert-weights` or `detect pretrain`.

    Args:
        path: the file.
        task: what its network must be for.

    Raises:
        InputError: no such file, not a checkpoint, one of a newer version or another program, or a network
            for another task.
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
    if (found := raw["detect"].get("task", "detection")) != task:
        raise InputError(
            f"{path}: {OTHER_TASK}" if found == "classification" else f"{path}: a detector, no classifier"
        )
    raw = migrate(raw, path)
    description = raw["detect"]
    refuse_foreign_classes(description["model"], path)
    weights = {
        key.removeprefix(PREFIXES[task]): value
        for key, value in raw["state_dict"].items()
        if key.startswith(PREFIXES[task])
    }
    return Checkpoint(path, description, weights, raw)


def build_from_checkpoint(checkpoint: Checkpoint) -> TorchDetector:
    """The detector of a checkpoint in evaluation mode; no other weights are read or downloaded.

    Raises:
        InputError: weights and settings in the file do not fit each other.
    """
    description = checkpoint.description
    detector = build_detector(
        without_weights(description["model"]),
        score_activation=description["postprocess"]["score_activation"],
    )
    load_weights(detector, checkpoint)
    return detector.eval()


def load_weights(detector: TorchDetector, checkpoint: Checkpoint) -> None:
    """Fill a detector of the same settings with the weights of a checkpoint, its classes and their origin.

    Raises:
        InputError: the weights do not fit.
    """
    detector.classes = checkpoint.classes
    detector.net.backbone.weights_origin = checkpoint.description.get("weights_origin")
    try:
        detector.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint.path}: weights do not fit the settings in the file: {error}"
        ) from error


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values with torch, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In memory first: torch's writer hides a full disk behind an error of its own.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def checkpoint_content(detector: TorchDetector) -> dict[str, Any]:
    """A checkpoint of a detector alone, without a run: for `write_checkpoint`."""
    weights = {DETECTOR_PREFIX + key: value for key, value in detector.state_dict().items()}
    return {"detect": detector.describe(), "state_dict": weights}

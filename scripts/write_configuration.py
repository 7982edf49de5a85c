"""Write docs/configuration.md: `python scripts/write_configuration.py docs/configuration.md`.

It is made of signatures and docstrings. What the page says stands beside the code that acts on it; here is
only how it is laid out.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import lightning as L
from docstring_parser import parse_from_object

from detect.commands.fit_checks import REFUSED
from detect.commands.run_cli import TRAINER_DEFAULTS
from detect.data import augment
from detect.data.datamodule import DetectionData
from detect.model import backbones, necks
from detect.model.backbones.base import Backbone
from detect.model.configurable import class_path
from detect.model.detector import TorchDetector
from detect.model.necks.base import Neck
from detect.training.assigners import ATSSAssigner, MaxIoUAssigner, TaskAlignedAssigner
from detect.training.averaging import AveragedWeights
from detect.training.build import detection_module
from detect.training.losses import (
    CIoULoss,
    DIoULoss,
    DistributionFocalLoss,
    FocalLoss,
    GIoULoss,
    MultiBoxLoss,
    QualityFocalLoss,
    SmoothL1Loss,
    VarifocalLoss,
)
from detect.training.schedules import FlatCosine, StepDecay, WarmupCosine

INTRODUCTION = """# Every value of a configuration

Written by `python scripts/write_configuration.py docs/configuration.md` from the code's own signatures and
docstrings; a test compares them. A value stands in a YAML file under the sections below or on the command
line as `--section.key value`, which wins. An unknown key stops before any work, with its path and the nearest
valid one. `null` means that the value follows from others. RUN/config.yaml holds every value of a run as it
was resolved.

Where a class can be chosen, YAML says `class_path` and `init_args`; on the command line the name is enough:
`--model.backbone MobileNetV2 --model.backbone.width 0.5`.
"""

TOP_LEVEL = {
    "config": ("path", None, "A YAML file; may be given again, and later files win key by key."),
    "seed_everything": (
        "integer",
        0,
        "Of initial weights, order and augmentation. Change it for the spread between runs of one "
        "configuration (`detect sweep --seeds`).",
    ),
    "out": ("path", None, "Run folder. Null: `runs/NAME-NNN` by the name of the YAML file."),
    "ckpt_path": (
        "path or `last`",
        None,
        "On the command line alone: continue from a checkpoint. `last` takes `OUT/checkpoints/last.ckpt`, "
        "and starts afresh where there is none, so that a job queue may send the same command again.",
    ),
    "checkpoint_minutes": (
        "number",
        10.0,
        "Minutes between two checkpoints within an epoch: at most so much is lost when a machine dies.",
    ),
}
"""Keys outside of the sections: type, default, meaning."""

TRAINER = {
    "max_epochs": "Epochs of the run; the cosine ends with the last. May be raised when a run is resumed.",
    "max_steps": "End after so many optimizer steps where that comes before max_epochs; -1: do not.",
    "accelerator": "`auto`, `cpu`, `cuda` or `mps`: what computes.",
    "devices": "Devices on each machine: a number, a list as `[0, 2]`, or `auto` for all. Learning rate and "
    "batch stay those of data.total_batch_size.",
    "num_nodes": "Machines; each starts the same command, see torchrun.",
    "strategy": "`auto`: DistributedDataParallel where there are several devices; `ddp` asks for it on CPUs.",
    "precision": "Null: `32-true`. `bf16-mixed` (GPUs since 2020) or `16-mixed` (older ones) for less memory "
    "and time. Boxes, losses and averages stay float32.",
    "check_val_every_n_epoch": "Validate every so many epochs and after the last; more where validation "
    "takes as long as training.",
    "gradient_clip_val": "Largest norm of the gradient; null: no limit. 1 to 10 where a loss jumps.",
    "log_every_n_steps": "Optimizer steps between two rows of the loggers.",
    "enable_progress_bar": "False where output goes to a file.",
    "callbacks": "Lightning callbacks by class_path, such as early stopping; `AveragedWeights` for averaged "
    "weights.",
    "logger": "Lightning loggers by class_path; null: TensorBoard. metrics.csv is written in any case.",
    "deterministic": "True asks torch for kernels that give the same bits on a GPU each time; slower. A CPU "
    "gives the same bits in any case.",
    "num_sanity_val_steps": "Batches of validation before the first epoch: none; detect tests its evaluator "
    "itself.",
    "use_distributed_sampler": "Lightning's sampler would count images twice; detect splits the data itself.",
    "enable_model_summary": "Lightning's table of layers; `detect models` counts them.",
}
"""Of Lightning's values those that matter here, and all whose default detect sets."""

SWAPPED: dict[str, list[type]] = {
    "model.backbone": [
        cls for name in backbones.__all__ if (cls := getattr(backbones, name)) is not Backbone
    ],
    "model.neck": [cls for name in necks.__all__ if (cls := getattr(necks, name)) is not Neck],
    "model.loss": [MultiBoxLoss, FocalLoss, QualityFocalLoss, VarifocalLoss],
    "model.loss.init_args.assigner": [MaxIoUAssigner, ATSSAssigner, TaskAlignedAssigner],
    "model.loss.init_args.box_loss": [SmoothL1Loss, GIoULoss, DIoULoss, CIoULoss, DistributionFocalLoss],
    "model.schedule": [WarmupCosine, FlatCosine, StepDecay],
    "data.augmentations": [
        augment.RandomIoUCrop,
        augment.RandomZoomOut,
        augment.PhotometricDistort,
        augment.RandomHorizontalFlip,
        augment.RandomVerticalFlip,
        augment.RandomResizedCrop,
        augment.Mosaic,
        augment.CopyPaste,
        augment.MixUp,
    ],
}
"""Values that are objects of a class, and the classes to choose from."""


class Value(NamedTuple):
    """One row of a table."""

    key: str
    type: str
    default: str
    meaning: str


def type_in_words(hint: Any) -> str:
    """A type as a reader of YAML knows it.

    >>> type_in_words(tuple[int, int] | None)
    '[integer, integer]'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "null"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):  # that null is allowed shows in the defaults
        return " or ".join(type_in_words(one) for one in arguments if one is not type(None))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(type_in_words(one) for one in arguments)}]"
    if origin is dict:
        return f"{type_in_words(arguments[0])}: {type_in_words(arguments[1])}"
    if origin in (list, tuple, Sequence) or (origin is not None and issubclass(origin, Sequence)):
        return f"list of {type_in_words(arguments[0])}"
    if origin is not None:
        return "class"
    names: dict[Any, str] = {
        Any: "row",
        int: "integer",
        float: "number",
        bool: "boolean",
        str: "text",
        Path: "path",
    }
    return names.get(hint, "values" if dataclasses.is_dataclass(hint) else "class")


def default_in_words(default: Any) -> str:
    """A default as YAML writes it."""
    if default is inspect.Parameter.empty:
        return "required"
    if dataclasses.is_dataclass(default):
        return "below"
    if callable(default):
        return "as said"
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, (list, tuple)):
        return f"[{', '.join(default_in_words(one) for one in default)}]"
    return f"{default:g}" if isinstance(default, float) else str(default) or "empty"


def meanings(cls: type | Callable[..., Any]) -> dict[str, str]:
    """What the docstring says about each value, in one line."""
    found = {}
    bases = reversed(cls.__mro__[:-1]) if dataclasses.is_dataclass(cls) else [cls]
    for base in bases:  # the fields of a dataclass are documented where they are defined
        for parameter in parse_from_object(base).params:
            for name in parameter.arg_name.split(","):
                found[name.strip()] = " ".join((parameter.description or "").split())
    return found


def values_of(cls: type | Callable[..., Any], prefix: str) -> Iterator[Value]:
    """The values that `cls` takes, those of nested dataclasses after their own row."""
    is_plain_class = isinstance(cls, type) and not dataclasses.is_dataclass(cls)
    if is_plain_class and "__init__" not in vars(cls):
        return  # nothing can be set
    hints = get_type_hints(vars(cls)["__init__"] if is_plain_class else cls)
    said = meanings(cls)
    factories = {
        field.name: field.default_factory
        for field in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())
        if field.default_factory is not dataclasses.MISSING
    }
    for name, parameter in inspect.signature(cls).parameters.items():
        hint = hints[name]
        default = factories[name]() if name in factories else parameter.default
        key = f"{prefix}{name}"
        yield Value(key, type_in_words(hint), default_in_words(default), said.get(name, ""))
        nested = [one for one in (hint, *get_args(hint)) if dataclasses.is_dataclass(one)]
        for one in nested:
            assert isinstance(one, type)
            yield from values_of(one, f"{key}.")


def model_values() -> list[Value]:
    """The values of the `model:` section: those of the detector, then those of its training."""
    of_detector = [
        value for value in values_of(TorchDetector, "model.") if value.key != "model.score_activation"
    ]
    of_training = [value for value in values_of(detection_module, "model.") if value.key != "model.detector"]
    return [*of_detector, *of_training]


def table(values: Sequence[Value]) -> list[str]:
    """A Markdown table."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for value in values:
        meaning = (value.meaning[:1].upper() + value.meaning[1:]).replace("|", "\\|")
        lines.append(f"| `{value.key}` | {value.type} | {value.default} | {meaning} |")
    return lines


def class_section(cls: type) -> list[str]:
    """A class that can be chosen, with its init_args where it has any."""
    summary = parse_from_object(cls).short_description or ""
    values = list(values_of(cls, ""))
    return [f"### `{class_path(cls)}`", "", summary, "", *([*table(values), ""] if values else [])]


def configuration_page() -> str:
    """The whole of docs/configuration.md."""
    top = [Value(key, kind, default_in_words(value), text) for key, (kind, value, text) in TOP_LEVEL.items()]
    model, data = model_values(), list(values_of(DetectionData, "data."))
    lines = [INTRODUCTION, "## Outside of the sections", "", *table(top), ""]
    lines += ["## `model`: the network and how it learns", "", *table(model), ""]
    lines += ["## `data`: images and batches", "", *table(data), ""]
    lines += ["## `trainer`: Lightning's, those that matter here", "", *trainer_table(), ""]
    for key, classes in SWAPPED.items():
        lines += [f"## Classes for `{key}`", ""]
        for cls in classes:
            lines += class_section(cls)
    # Not in SWAPPED: any of Lightning's may stand there as well.
    lines += ["## A class for `trainer.callbacks`", "", *class_section(AveragedWeights)]
    return "\n".join(lines).rstrip("\n") + "\n"


def trainer_table() -> list[str]:
    """The values of `trainer`, with our default where we set one, and what it may not be told."""
    parameters = inspect.signature(L.Trainer.__init__).parameters
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, meaning in TRAINER.items():
        default = default_in_words(TRAINER_DEFAULTS.get(name, parameters[name].default))
        lines.append(f"| `trainer.{name}` | {default} | {meaning} |")
    lines += [
        "",
        "Others are passed on to Lightning; `detect fit --help all` lists them. Refused, with a message:",
        "",
    ]
    return lines + [f"- `trainer.{key}`: {instead}." for key, (_, instead) in REFUSED.items()]


def main(path: Path) -> None:
    """Write the page."""
    path.write_text(configuration_page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Which classes a file may name: settings in a checkpoint or a manifest must not run code that they choose.

The parser of settings imports whatever a value names as a class or a function, so every value is looked at
before it is parsed.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from detect.errors import InputError

TRUSTED_MODULES = (
    "detect.model.backbones",
    "detect.model.necks",
    "detect.data.augment",
    "detect.training.assigners",
    "detect.training.losses",
    "detect.training.module",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.optim",
)
"""Whose classes a file may name; anything else is refused before it is imported."""
TRUSTED_CLASS = re.compile(rf"({'|'.join(map(re.escape, TRUSTED_MODULES))})\.\w+")

CLASS_KEYS = (
    *("backbone", "neck", "loss", "assigner", "box_loss", "optimizer", "augmentations"),
    *("accelerator", "callbacks", "logger", "plugins", "profiler", "strategy"),
)
"""Whose value may be a class without a dictionary around it; a name without dots is one of those known."""
GROUP_KEYS = (
    *("config", "model", "data", "trainer", "init_args", "dict_kwargs"),
    *("anchors", "norm", "parameters", "postprocess", "schedule", "settings"),
)
"""Whose value is never text: the parser would take it for another file to read."""
TEXT_KEYS = (
    *("root", "train_annotations", "train_images", "train_split"),
    *("val_annotations", "val_images", "val_split"),
    *("init_from", "weights", "default_root_dir", "dirpath", "filename", "save_dir"),
    *("experiment_name", "name", "project", "run_name", "tracking_uri", "version"),
)
"""Whose value is never more than text: a file may be called train.json beside a train.py."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def refuse_foreign_classes(value: Any, path: Path) -> None:
    """Walk plain values that were read from `path`.

    Raises:
        InputError: one names a class or a function that is not trusted.
    """
    _walk(value, path, key="")


def _walk(value: Any, path: Path, *, key: str) -> None:
    """Look at `value`, which stands under `key`; the items of a list stand under the list's."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _walk(inner, path, key=str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _walk(inner, path, key=key)
    elif isinstance(value, str) and _names_code(value, key) and not TRUSTED_CLASS.fullmatch(value):
        raise InputError(
            f"{path}: asks for the class {value!r} ({key}), which a file may not name; trusted are those of "
            f"{', '.join(TRUSTED_MODULES)}"
        )


def _names_code(text: str, key: str) -> bool:
    """Whether a parser would import what `text` names, or might."""
    if key == "class_path" or key in GROUP_KEYS:
        return True
    if key in CLASS_KEYS:
        return "." in text
    if key in TEXT_KEYS:
        return False
    return _is_file(text) or (DOTTED.fullmatch(text) is not None and _is_module(text.partition(".")[0]))


def _is_file(text: str) -> bool:
    """Whether a parser could read further settings from there."""
    return ("." in text or "/" in text) and os.path.isfile(text)


def _is_module(name: str) -> bool:
    """Whether there is a module of that name, which is not imported; a mere folder is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # of a module that was made by hand, as __main__
        return True
    return spec is not None and spec.origin is not None

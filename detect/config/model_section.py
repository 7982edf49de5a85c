"""A configuration file, or its `model:` section, for who needs the data or the detector alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.config.files import read_yaml
from detect.config.trusted_classes import refuse_foreign_classes

CLASSIFICATION = "classification"
"""The `task` of a configuration of `detect pretrain`."""


def read_config(path: Path) -> dict[str, Any]:
    """The values of a configuration that names only trusted classes.

    Raises:
        InputError: it cannot be read, or names another class.
    """
    content = read_yaml(path)
    refuse_foreign_classes(content, path, follow_files=True)
    return content


def is_classifier(config: dict[str, Any]) -> bool:
    """Whether a configuration is one of `detect pretrain`, which says so in its first line."""
    return config.get("task") == CLASSIFICATION


def read_model_section(path: Path) -> dict[str, Any] | None:
    """The `model:` values of a detector's configuration; null for an overlay, which names no backbone.

    Raises:
        InputError: see `read_config`.
    """
    return _section(path, classifier=False)


def read_classifier_section(path: Path) -> dict[str, Any] | None:
    """The `model:` values of a configuration of `detect pretrain`; null for any other.

    Raises:
        InputError: see `read_config`.
    """
    return _section(path, classifier=True)


def _section(path: Path, *, classifier: bool) -> dict[str, Any] | None:
    config = read_config(path)
    settings = config.get("model")
    named = isinstance(settings, dict) and "backbone" in settings
    return settings if named and is_classifier(config) == classifier else None

"""A configuration file, or its `model:` section, for who needs the data or the detector alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.config.files import read_yaml
from detect.config.trusted_classes import refuse_foreign_classes


def read_config(path: Path) -> dict[str, Any]:
    """The values of a configuration that names only trusted classes.

    Raises:
        InputError: it cannot be read, or names another class.
    """
    content = read_yaml(path)
    refuse_foreign_classes(content, path, follow_files=True)
    return content


def read_model_section(path: Path) -> dict[str, Any] | None:
    """The `model:` values of a configuration; null for an overlay, which names no backbone.

    Raises:
        InputError: see `read_config`.
    """
    settings = read_config(path).get("model")
    return settings if isinstance(settings, dict) and "backbone" in settings else None

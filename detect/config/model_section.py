"""The `model:` section of a configuration file, for who needs the detector alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detect.config.renames import renamed, tell_once
from detect.errors import InputError


def read_model_section(path: Path) -> dict[str, Any] | None:
    """The `model:` values of a config; null for an overlay, which names no backbone.

    Raises:
        InputError: the file is not YAML.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except RecursionError:
        raise InputError(f"{path} is not valid YAML: it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    settings = content.get("model") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or "backbone" not in settings:
        return None
    return renamed(settings, tell=tell_once)

"""The one reader of YAML configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detect.config.renames import renamed, tell_once
from detect.errors import InputError


def read_yaml(path: Path) -> dict[str, Any]:
    """Named values of a YAML or JSON file, class paths of earlier versions replaced; empty for an empty file.

    Raises:
        InputError: it cannot be read, is not YAML, or holds something else; names the file and the line.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path} is not valid YAML{line}: {problem}") from error
    except RecursionError:
        raise InputError(f"{path} is not valid YAML: it is nested too deeply") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read as a configuration: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected named values")
    renamed_content: dict[str, Any] = renamed(content, tell=tell_once)
    return renamed_content

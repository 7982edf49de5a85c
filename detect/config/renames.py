"""Class paths of earlier versions, which configurations, checkpoints and manifests may still name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

RENAMED_MODULES = {
    "detect.backbones": "detect.model.backbones",
    "detect.data.transforms": "detect.data.augment",
    "detect.losses": "detect.training.losses",
    "detect.module": "detect.training.module",
}
"""Where the classes of a module went; their names stayed."""

_told: set[str] = set()


def renamed(value: Any, *, tell: Callable[[str, str], None] | None = None) -> Any:
    """Plain values with every class path of an earlier version replaced by today's.

    Args:
        value: text, or dictionaries and lists of it.
        tell: called with the old and the new path of each that is replaced.
    """
    if isinstance(value, dict):
        return {key: renamed(inner, tell=tell) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(inner, tell=tell) for inner in value]
    if not isinstance(value, str) or not value.startswith("detect."):
        return value
    module, _, name = value.rpartition(".")
    if module not in RENAMED_MODULES:
        return value
    new = f"{RENAMED_MODULES[module]}.{name}"
    if tell is not None:
        tell(value, new)
    return new


def renamed_arguments(args: list[str]) -> list[str]:
    """The words of a command line: `--model.backbone PATH` and `--model.backbone=PATH`."""
    words = []
    for word in args:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(flag + equals + renamed(value, tell=tell_once))
    return words


def tell_once(old: str, new: str) -> None:
    """Say on standard error that a path has moved, once for each path."""
    if old not in _told:
        _told.add(old)
        print(f"{old} is now {new}: the old path still works, the new one is better", file=sys.stderr)


def accept_old_class_paths() -> None:
    """Let the configuration files that jsonargparse reads name classes by the paths of earlier versions."""
    import yaml
    from jsonargparse import get_loader, set_loader

    load = get_loader("yaml")
    if getattr(load, "renames", False):
        return

    def load_and_rename(text: str) -> Any:
        return renamed(load(text), tell=tell_once)

    load_and_rename.renames = True  # type: ignore[attr-defined]
    set_loader("yaml", load_and_rename, exceptions=(yaml.YAMLError,))

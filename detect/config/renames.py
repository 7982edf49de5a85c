"""Class paths and settings of earlier versions, which configurations, checkpoints and manifests may hold.

And the one short form of a setting: `anchors: auto`.
"""

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

IDLE_SETTINGS: dict[str, dict[str, Any]] = {
    "norm": {"squeeze_divisor": 8},
    "detect.model.backbones.MobileNetV1": {"squeeze_divisor": 8},
    "detect.model.backbones.MobileNetV2": {"squeeze_divisor": 8},
    "detect.model.backbones.Timm": {"squeeze_divisor": 8, "padding": "symmetric"},
}
"""Settings that earlier versions took and that did nothing, below `model.norm` or the `settings` of a
backbone, each with the default that old files hold."""

_told: set[str] = set()


def without_idle_settings(value: Any, *, any_value: bool = False) -> Any:
    """Plain values without settings that did nothing in an earlier version.

    Args:
        value: text, or dictionaries and lists of it; class paths are today's.
        any_value: leave them out whatever they say; else only their defaults, which nobody has written.
    """
    if isinstance(value, list | tuple):
        return [without_idle_settings(inner, any_value=any_value) for inner in value]
    if not isinstance(value, dict):
        return value
    value = {key: without_idle_settings(inner, any_value=any_value) for key, inner in value.items()}

    def drop(group: Any, idle: dict[str, Any]) -> Any:
        if not isinstance(group, dict):
            return group
        return {
            key: inner
            for key, inner in group.items()
            if key not in idle or not (any_value or inner == idle[key])
        }

    if "norm" in value:
        value["norm"] = drop(value["norm"], IDLE_SETTINGS["norm"])
    arguments, path = value.get("init_args"), value.get("class_path")
    if path in IDLE_SETTINGS and isinstance(arguments, dict) and "settings" in arguments:
        value["init_args"] = {**arguments, "settings": drop(arguments["settings"], IDLE_SETTINGS[path])}
    return value


def renamed(value: Any, *, tell: Callable[[str, str], None] | None = None) -> Any:
    """Plain values of an earlier version as this one reads them: class paths, and settings that did nothing.

    `model: {anchors: auto}` becomes `model: {anchors: {scales: auto}}`.

    Args:
        value: text, or dictionaries and lists of it.
        tell: called with the old and the new path of each that is replaced.
    """
    value = without_idle_settings(_renamed_paths(value, tell))
    match value:
        case {"model": {"anchors": "auto"} as model}:
            return {**value, "model": {**model, "anchors": {"scales": "auto"}}}
    return value


def renamed_run(config: Any) -> Any:
    """`renamed` for every resolved value of a run; a schedule of plain values gets the class that it had."""
    config = renamed(config)
    match config:
        case {"model": {"schedule": dict() as schedule} as model} if "class_path" not in schedule:
            by_class = {"class_path": "detect.training.schedules.WarmupCosine", "init_args": schedule}
            return {**config, "model": {**model, "schedule": by_class}}
    return config


def _renamed_paths(value: Any, tell: Callable[[str, str], None] | None) -> Any:
    if isinstance(value, dict):
        return {key: _renamed_paths(inner, tell) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed_paths(inner, tell) for inner in value]
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

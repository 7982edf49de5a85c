"""Write detect/commands/options.json: `python scripts/write_options.py`.

It is what the parsers of all commands take, so that help and misspelt options need none of them: building one
imports torch, which takes seconds.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS, Action
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest import mock

from jsonargparse import ArgumentParser, Namespace

from detect.commands.arguments import Command
from detect.commands.fit_checks import REFUSED
from detect.commands.main import all_commands
from detect.commands.options import TABLE
from detect.data.datamodule import DetectionData
from scripts.write_configuration import (
    SWAPPED,
    TOP_LEVEL,
    TRAINER,
    default_in_words,
    model_values,
    values_of,
)

OF_TRAINING = {
    *(f"data.{key}" for key in ("train_split", "train_annotations", "train_images", "total_batch_size")),
    *(f"data.{key}" for key in ("augmentations", "weak_epochs", "weak_augmentations")),
    *(f"data.{key}" for key in ("multi_scale", "repeat_threshold", "seed")),
}
NOT_SHOWN = {
    "fit": {f"trainer.{key}" for key in REFUSED},
    "pretrain": {f"trainer.{key}" for key in REFUSED},
    "validate": OF_TRAINING,
    "thresholds": OF_TRAINING | {f"data.{key}" for key in ("batch_size", "prefetch", "cache", "cache_gb")},
}
"""Options that work, or are refused with what to do instead, and that no help lists."""
VALUES: dict[Any, str] = {
    **{int: "N", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "true|false", type(None): "null"},
    **{list: "LIST", tuple: "LIST", dict: "{NAME: NUMBER}"},
}
"""What stands for a value in a help."""
LONGEST_CHOICES = 40
"""Characters of the choices in a help."""
LIBRARY_OPTIONS = ("_ActionConfigLoad", "_ActionHelpClassPath", "_ActionPrintConfig")
"""Kinds of options that come with the parser's library; they work and are in no list."""
FIT_LIKE = ("fit", "pretrain", "validate", "thresholds", "data profile")
"""Commands whose options are values of a configuration."""
MEANINGS = {
    **{name: meaning for name, (_, _, meaning) in TOP_LEVEL.items()},
    **{f"trainer.{name}": meaning for name, meaning in TRAINER.items()},
    **{value.key: value.meaning for value in [*model_values(), *values_of(DetectionData, "data.")]},
}


class _Built(Exception):
    """Carries a parser out of the command that has built it."""


def parser_of(command: Command) -> ArgumentParser:
    """The parser that a command builds; nothing else of the command runs."""

    def stop(parser: ArgumentParser, *args: Any, **kwargs: Any) -> None:
        raise _Built(parser)

    with mock.patch.object(ArgumentParser, "parse_args", stop):
        try:
            command([])
        except _Built as built:
            parser: ArgumentParser = built.args[0]
            return parser
    raise AssertionError(f"{command} builds no parser")


def value_words(hint: Any) -> list[str]:
    """What stands for a value of this type, several where several are possible.

    >>> value_words(Literal["ram", "disk"] | None)
    ['ram', 'disk', 'null']
    """
    origin = get_origin(hint)
    if origin is Literal:
        return [str(choice) for choice in get_args(hint)]
    if hint in VALUES or origin in VALUES:
        return [VALUES.get(hint) or VALUES[origin]]
    if isinstance(hint, type) or "Callable" in str(origin) or not get_args(hint):
        return ["CLASS"]
    words = dict.fromkeys(word for one in get_args(hint) for word in value_words(one))
    # `int | float` may be `float | int`: Python keeps equal unions once, in the order that it met first.
    order = list(dict.fromkeys(VALUES.values()))
    return sorted(words, key=lambda word: order.index(word) if word in order else -1)


def options_of(name: str, command: Command) -> Iterator[dict[str, Any]]:
    """The options and arguments of a command, in the order of its parser; what is usual is left out."""
    for action in parser_of(command)._actions:
        kind = type(action).__name__
        if action.dest == "help" or kind == "ActionLink":
            continue
        words = value_words(getattr(action, "_typehint", Path))
        is_choice = not any(word in words for word in (*VALUES.values(), "CLASS") if word != "null")
        option: dict[str, Any] = {"flags": action.option_strings or [positional_name(action)]}
        option |= {} if action.nargs == 0 else {"value": own_metavar(action) or in_short(words)}
        counts = (0, "+") if kind in LIBRARY_OPTIONS else (0, "+", "*", "?")
        option |= {"count": action.nargs} if action.nargs in counts else {}
        option |= {"count": "?"} if kind == "_ActionPrintConfig" else {}
        option |= {"required": True} if action.required else {}
        option |= {"choices": words} if is_choice and action.nargs != 0 else {}
        option |= {"default": default_text(action.default)} if default_text(action.default) else {}
        hidden = action.dest in NOT_SHOWN.get(name, ()) or kind in LIBRARY_OPTIONS
        option |= {"hidden": True} if hidden else {"help": help_text(name, action)}
        yield option


def in_short(words: Sequence[str]) -> str:
    """What stands for a value in a help; NAME where the choices take too much room."""
    text = "|".join(word for word in words if word != "null")
    return text if len(text) <= LONGEST_CHOICES else "NAME"


def positional_name(action: Action) -> str:
    """What an argument without a flag is called."""
    text = str(action.metavar or action.dest)
    return action.dest if text.startswith("{") else text


def own_metavar(action: Action) -> str | None:
    """What the parser's author wrote for the value, where the library did not."""
    text = action.metavar
    return text if isinstance(text, str) and not text.startswith(("[", "{")) else None


def default_text(default: Any) -> str:
    """A default that a reader wants to know; empty where there is none."""
    if default in (None, SUPPRESS, False, [], {}):
        return ""
    if isinstance(default, Namespace):
        default = default.get("class_path")
    return default_in_words(default)


def help_text(name: str, action: Action) -> str:
    """What an option is for, in one line: docs/configuration.md has the same of a value."""
    # `--ckpt_path` and its like mean another thing to `detect fit` than to the rest.
    said = MEANINGS.get(action.dest, "") if name == "fit" or (name in FIT_LIKE and "." in action.dest) else ""
    text = " ".join((said or action.help or "").replace("``", "").split())
    whole = said or not action.dest.startswith("trainer.")  # Lightning's texts are pages
    return text if whole else text.partition(". ")[0]


def class_settings() -> dict[str, dict[str, list[str]]]:
    """By the value that names a class: the project's classes, and the settings that any of them takes."""
    found: dict[str, dict[str, list[str]]] = {}
    for slot, classes in SWAPPED.items():
        settings = {value.key for cls in classes for value in values_of(cls, "")}
        names = [cls.__name__ for cls in classes]
        found[slot.replace(".init_args", "")] = {"names": names, "settings": sorted(settings)}
    found["data.weak_augmentations"] = found["data.augmentations"]
    return found


def table() -> dict[str, Any]:
    """The whole of detect/commands/options.json."""
    commands = {}
    for name, command in all_commands().items():
        example = (parser_of(command).description or "").partition(" Example: ")[2]
        commands[name] = {"example": example, "options": list(options_of(name, command))}
    return {"classes": class_settings(), "commands": commands}


def text_of(content: dict[str, Any]) -> str:
    """JSON with a line for each option, so that two changes beside each other can be merged."""
    classes = ",\n".join(
        f"  {json.dumps(slot)}: {json.dumps(row)}" for slot, row in content["classes"].items()
    )
    lines = [f'{{"classes": {{\n{classes}\n}},\n"commands": {{']
    for name, command in content["commands"].items():
        lines.append(f'{json.dumps(name)}: {{"example": {json.dumps(command["example"])}, "options": [')
        lines.append(",\n".join(f"  {json.dumps(option)}" for option in command["options"]))
        lines.append("]},")
    return "\n".join(lines).rstrip(",") + "\n}}\n"


if __name__ == "__main__":
    TABLE.write_text(text_of(table()), encoding="utf-8")

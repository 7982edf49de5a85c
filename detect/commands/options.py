"""What every command takes, known without importing torch: help, unknown options, slips, other spellings.

The table in options.json is written from the parsers of the commands by `scripts/write_options.py`. Building
one of them imports torch, which takes seconds; they still check every value once the words have passed here.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from detect.commands.arguments import FIT_PREFIXES
from detect.commands.slips import SHORT_HELP, nearest_class, right_words
from detect.errors import InputError

TABLE = Path(__file__).with_name("options.json")
OTHER_SPELLINGS = {
    "--output": "--out",
    "--splits": "--split",
    "--train_split": "--data.train_split",
    "--val_split": "--data.val_split",
}
"""Names of earlier versions, and the one word of today for what they mean."""
TRAINS = ("fit", "pretrain")
"""Commands that take a configuration."""
HANDS_ON = {"sweep": TRAINS, "reproduce": ("fit",), "search": ("fit",)}
"""Commands that hand flags on to others."""
HELP = ("-h", "--help")
WIDTH = 110
FLAG_WIDTH = 34
LEAST_LIKENESS = 0.6
MISSPELT = 0.8
FLAG = re.compile("-{1,2}[A-Za-z]")
LEFT_OUT = re.compile(r"\.init_args|\.class_path$")
"""Parts of a dotted name that may be left out."""
FOREIGN_CLASS = re.compile(r"(?!detect\.)\w+\.")


@dataclass(frozen=True)
class Option:
    """An option, or an argument without a flag."""

    flags: list[str]
    help: str = ""
    value: str = ""
    """What stands for its value in the help."""
    default: str = ""
    count: int | str | None = None
    """Of values, as argparse has it; null is one."""
    choices: list[str] | None = None
    required: bool = False
    hidden: bool = False
    """It works, and no list shows it."""

    @property
    def key(self) -> str:
        """Its name without dashes."""
        return self.flags[-1 if self.flags[0] == "-c" else 0].lstrip("-")

    @property
    def is_flag(self) -> bool:
        return self.flags[0].startswith("-")

    @property
    def shown(self) -> str:
        """The option with its value, as a user types it."""
        if not self.is_flag:
            return self.key
        value = f" {self.value}{' ...' if self.count in ('+', '*') else ''}" if self.value else ""
        return f"--{self.key}{value}"


class Options:
    """What a command takes.

    Args:
        name: the command's.
    """

    def __init__(self, name: str) -> None:
        table = _table()
        self.name = name
        self.example: str = table["commands"][name]["example"]
        self.options = [Option(**row) for row in table["commands"][name]["options"]]
        self.own_flags = {flag for option in self.options if option.is_flag for flag in option.flags}
        handed_on = {
            option.key: option
            for command in reversed(HANDS_ON.get(name, ()))
            for option in Options(command).options
            if option.flags[0].startswith(FIT_PREFIXES)
        }
        self.listed = [*self.options, *handed_on.values()]
        """The options, and those of other commands that are handed on to them."""
        self.flags = {flag for option in self.listed if option.is_flag for flag in option.flags}
        keys = {option.key for option in self.listed if option.is_flag}
        sections = {key.partition(".")[0] for key in keys}
        slots = {slot: row for slot, row in table["classes"].items() if slot.partition(".")[0] in sections}
        self.classes: dict[str, list[str]] = {slot: row["names"] for slot, row in slots.items()}
        self.sections = {option.key for option in self.listed if option.value == "CONFIG"}
        """Parts of a configuration, which take a file as flags."""
        self.open = {key.removesuffix(".help") for key in keys if key.endswith(".help")} - slots.keys()
        self.open |= {option.key for option in self.listed if "{" in option.value}
        self.settings = keys | {f"{slot}.{name}" for slot, row in slots.items() for name in row["settings"]}

    def knows(self, key: str, *, own_classes: bool = False) -> bool:
        """Whether there may be a setting of this dotted name.

        Args:
            key: without `init_args`, which may be left out.
            own_classes: the user's own classes may be named, whose settings no table has.
        """
        if key in self.settings or f"--{key}" in self.flags:
            return True
        parts = key.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts))}
        return bool(above & self.open) or (own_classes and bool(above & self.classes.keys()))

    def nearest(self, key: str) -> str | None:
        """The setting that was probably meant: the same word in a section, or the most alike."""
        shown = [option.key for option in self.listed if option.is_flag and not option.hidden]
        same = [name for name in shown if name.rpartition(".")[2] == key.rpartition(".")[2]]
        names = same or difflib.get_close_matches(key, sorted(self.settings), n=1, cutoff=LEAST_LIKENESS)
        return names[0] if names else None


@cache
def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return content


def in_todays_words(name: str, args: Sequence[str]) -> list[str]:
    """The words of a command with `OTHER_SPELLINGS` replaced where the command knows today's.

    `--model.anchors auto` becomes `--model.anchors.scales auto`: the group takes values by name alone.
    """
    flags = Options(name).flags
    words = []
    for word, following in zip_longest(args, args[1:]):
        flag, equals, value = word.partition("=")
        today = OTHER_SPELLINGS.get(flag)
        if flag == "--model.anchors" and (value if equals else following) == "auto":
            today, flag = "--model.anchors.scales", ""
        words.append(f"{today}{equals}{value}" if today in flags and flag not in flags else word)
    return words


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether these words want the list of options."""
    return any(word in HELP for word in args)


def help_text(name: str, does: str, *, everything: bool) -> str:
    """What a command does, an example, and its options.

    Args:
        name: of the command.
        does: its sentence.
        everything: of `detect fit` and `detect pretrain` as well those that few runs need.
    """
    options = Options(name)
    head = f"{_usage(options)}\n\n{does}\n\n  {options.example}\n\n"
    if name in SHORT_HELP and not everything:
        return head + SHORT_HELP[name]
    return head + "\n".join(_line(option) for option in options.options if not option.hidden)


def _usage(options: Options) -> str:
    if options.name in TRAINS:
        return f"usage: detect {options.name} --config FILE [--data.root FOLDER] [--section.key VALUE ...]"
    needed = [option.shown for option in options.options if option.required]
    more = ["[--section.key VALUE of detect fit ...]"] if options.name in HANDS_ON else []
    return " ".join(["usage: detect", options.name, *needed, "[options]", *more])


def _line(option: Option) -> str:
    """One option with its help beside it, or below it where its own name is long."""
    names = [choice for choice in option.choices or [] if choice != "null"] if option.value == "NAME" else []
    default = f"default: {option.default}" if option.default else ""
    notes = "; ".join(filter(None, [", ".join(names), default]))
    text = " ".join(filter(None, [option.help, f"({notes})" if notes else ""]))
    indent = " " * (FLAG_WIDTH + 2)
    lines = textwrap.wrap(text, WIDTH - len(indent)) or [""]
    start = f"  {option.shown}"
    if len(start) < len(indent):
        lines[0] = f"{start:<{len(indent)}}{lines[0]}".strip()
    else:
        lines.insert(0, start.strip())
    return f"\n{indent}".join(["  " + lines[0], *lines[1:]])


def check_words(name: str, args: Sequence[str]) -> None:
    """Look at the words of a command before anything that takes time is imported.

    Raises:
        InputError: an option or a key of a configuration is unknown, one that is needed is missing, a value
            is none of those to choose from; says what was probably meant.
    """
    options = Options(name)
    settings = list(_settings_of(name, args))
    # Whether they may be named is decided later; no table has their settings.
    own_classes = any(
        key == "trust" or (key in options.classes and FOREIGN_CLASS.match(str(value)))
        for key, value, _ in settings
    )
    for key, value, path in settings:
        if not options.knows(key, own_classes=own_classes):
            _refuse(options, key, value, path)
        _check_value(options, key, value, path)
    counted: list[str] = []
    for flag, values in _groups(args):
        for word in [] if flag else values:
            if "=" in word and not Path(word).exists():
                _refuse_stray(options, word)
        own = flag in options.own_flags
        counted += [flag, *values] if own else values[1:] if flag else values
    given = _check_counts(options, counted)
    if name == "sweep":
        trusted = ["--trust", *given.trust] if given.trust else []
        for config in given.configs:
            check_words(training_command(Path(config)), [*trusted, "--config", config])


def training_command(config: Path) -> str:
    """The command that a configuration is for.

    Raises:
        InputError: it cannot be read.
    """
    from detect.config.files import read_yaml
    from detect.config.model_section import is_classifier

    return "pretrain" if is_classifier(read_yaml(config)) else "fit"


def _settings_of(name: str, args: Sequence[str]) -> Iterator[tuple[str, Any, Path | None]]:
    """The options of a command line and the settings of the configurations of `detect fit`.

    Yields:
        Dotted name, the value if any, and the configuration that has it.
    """
    from detect.config.files import read_yaml
    from detect.config.model_section import is_classifier

    for flag, values in _groups(args):
        if flag:
            yield LEFT_OUT.sub("", flag.lstrip("-").rstrip("+")), values[0] if values else None, None
        if name in TRAINS and flag in ("-c", "--config") and values:
            path = Path(values[0])
            content = read_yaml(path)
            if name == "fit" and is_classifier(content):
                raise InputError(f"{path} is a configuration of `detect pretrain`, not of `detect fit`")
            yield from ((key, value, path) for key, value in _settings_in(content, ""))


def _check_value(options: Options, key: str, value: Any, path: Path | None) -> None:
    """Find values that are none: a size that is one number, a class that is called nearly so.

    Raises:
        InputError: says what to give.
    """
    if value is None:
        return
    text, place = str(value), f"{path}: " if path else ""
    if key == "model.image_size" and text.isdigit():
        raise InputError(f"{place}{key} is height and width: give [{text},{text}] instead of {text}")
    if key == "model.anchors.scales" and text.isalpha() and text not in ("auto", "null"):
        raise InputError(f"{place}{key} is {text}: give auto, null or a list of fractions of the input")
    if key in options.sections and text[:1] != "{" and not Path(text).is_file():
        words = right_words("backbone" if key == "model" and "." not in text else key, text, options.knows)
        hint = f"; {words}" if words else ""
        raise InputError(f"{place}--{key} takes a section of a configuration, not {text!r}{hint}")
    names = options.classes.get(key, [])
    name = text.rpartition(".")[2]
    plain = isinstance(value, str) and text.replace("_", "").replace("-", "").isalnum()
    # The parser knows whether there is such a path; the table, whether it is one of ours misspelt.
    misspelt = text.startswith("detect.") and difflib.get_close_matches(name, names, n=1, cutoff=MISSPELT)
    if names and (plain or misspelt) and name not in (*names, "null", "None"):
        nearest = nearest_class(name, names)
        meant = f"write {nearest}; " if nearest else ""
        raise InputError(f"{place}{key}: there is no {text}; {meant}there are {', '.join(names)}")


def _check_counts(options: Options, words: Sequence[str]) -> argparse.Namespace:
    """Let argparse find what is missing, too much or none of the choices; returns the values by name."""
    parser = _Counter(prog=f"detect {options.name}", add_help=False, allow_abbrev=False)
    for option in options.options:
        if option.count == 0:
            parser.add_argument(*option.flags, action="store_true")
            continue
        # A configuration may hold what `detect fit` needs.
        required = option.required and options.name not in TRAINS
        needed: dict[str, Any] = {"required": required} if option.is_flag else {}
        parser.add_argument(*option.flags, nargs=option.count, choices=option.choices, **needed)
    given, strays = parser.parse_known_args(words)
    for word in strays:
        _refuse_stray(options, word)
    return given


class _Counter(argparse.ArgumentParser):
    """A parser that raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def _refuse(options: Options, key: str, value: Any, path: Path | None) -> NoReturn:
    """Say that there is no such option, and which was meant.

    Raises:
        InputError: always.
    """
    words = right_words(key.rpartition(".")[2], None if value is None else str(value), options.knows)
    nearest = options.nearest(key)
    if words is not None:
        hint = words if path is None else f"it is {words.removeprefix('write --').split()[0]}"
    else:
        hint = f"the nearest is {nearest}" if nearest else f"see detect {options.name} --help"
    is_setting = "." in key or options.name in TRAINS
    what = f"setting {key}" if is_setting else f"option --{key}"
    raise InputError(f"{path or f'detect {options.name}'}: there is no {what}; {hint}")


def _refuse_stray(options: Options, word: str) -> NoReturn:
    """Say what a word without a flag should have been.

    Raises:
        InputError: always.
    """
    key, equals, value = word.partition("=")
    words = None
    if equals:
        known = options.knows(key) and key not in options.sections
        words = f"write --{key} {value}" if known else right_words(key, value, options.knows)
    elif word.endswith((".yaml", ".yml")):
        words = right_words("cfg", word, options.knows)
    elif Path(word).is_dir():
        words = right_words("data", word, options.knows)
    raise InputError(
        f"detect {options.name} does not take {word!r} alone; {words or 'options begin with --'}"
    )


def _groups(args: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Every flag with the words behind it up to the next; those before the first have an empty flag."""
    flag, values = "", list[str]()
    for word in args:
        if FLAG.match(word):
            yield flag, values
            flag, equals, value = word.partition("=")
            values = [value] if equals else []
        else:
            values.append(word)
    yield flag, values


def _settings_in(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The dotted names in a configuration with their values: the class of what has settings of its own."""
    if isinstance(value, list):
        yield key, None
        for inner in value:
            if isinstance(inner, dict):
                yield from _settings_in(inner, key)
    elif not isinstance(value, dict):
        yield key, value
    else:
        if key:
            yield key, value.get("class_path")
        for name, inner in value.items():
            if name == "init_args":
                yield from _settings_in(inner, key)
            elif name not in ("class_path", "dict_kwargs"):
                yield from _settings_in(inner, f"{key}.{name}".lstrip("."))

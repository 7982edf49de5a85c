"""Errors of the command line in one sentence, with the nearest valid key where one was misspelt."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from detect.errors import InputError, install_hint

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

UNKNOWN_FLAG = re.compile(r"unrecognized arguments: --([\w.]+)")
UNKNOWN_IN_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
UNKNOWN_AT_TOP = re.compile(r"Option '([\w.]+)' is not accepted")
UNKNOWN_OF_CLASS = re.compile(
    r'Parser key "([\w.]+)".*Problem with given class_path \'([\w.]+)\':\s+Option \'([\w.]+)\' is not acc',
    re.DOTALL,
)
UNKNOWN_CLASS = re.compile(
    r'Parser key "([\w.]+)".*module \'([\w.]+)\' has no attribute \'(\w+)\'', re.DOTALL
)
WRONG_VALUE_OF_CLASS = re.compile(
    r'Parser key "([\w.]+)".*Problem with given class_path \'[\w.]+\':\s+Parser key "([\w.]+)":\s+([^\n]+)',
    re.DOTALL,
)
SHORT_NAME_IN_LIST = re.compile(
    r'Parser key "([\w.]+)".*Subtypes: \[list\[([\w.]+)\].*Expected a dot import path string: (\w+)',
    re.DOTALL,
)
MISSING_TIMM = re.compile(
    r"Parser key \"([\w.]+)\".*(?:No module named '|import of )timm\b.*Got value: .*?(timm[\w.]+)", re.DOTALL
)
LEAST_LIKENESS = 0.6
REASON = re.compile(r"^ *- (?!Expected a )(.+)$", re.MULTILINE)
"""What one of several possible types says of a value, where it is more than that it expected another."""


def explain(message: str, parser: ArgumentParser) -> str:
    """What jsonargparse says about an unknown key or a class, as one sentence with the nearest valid key.

    Args:
        message: of its ArgumentError.
        parser: that raised it.
    """
    if match := UNKNOWN_OF_CLASS.search(message):
        key, class_path, option = match.groups()
        options = inspect.signature(_imported(class_path)).parameters
        return _sentence(f"{key}.init_args.", option, options, what=f"{class_path} takes no")
    if match := WRONG_VALUE_OF_CLASS.search(message):
        return f"{match[1]}.{match[2]}: {match[3]}"
    if match := MISSING_TIMM.search(message):
        return f"{match[1]}: {match[2]} needs timm; {install_hint('timm')}"
    if match := UNKNOWN_CLASS.search(message):
        key, module, name = match.groups()
        names = vars(importlib.import_module(module))
        return _sentence(f"{module}.", name, names, what=f"{key}: there is no")
    if match := SHORT_NAME_IN_LIST.search(message):
        key, base, name = match.groups()
        module = base.rpartition(".")[0].rpartition(".")[0]  # the package that gives the classes out
        names = vars(importlib.import_module(module))
        if name in names:
            return f"{key}: write the whole path of {name}, {module}.{name}"
        return _sentence(f"{module}.", name, names, what=f"{key}: there is no")
    # "init_args" may be left out on the command line.
    keys = [key.replace(".init_args.", ".") for key in parser.get_defaults().keys()]
    if match := UNKNOWN_FLAG.search(message):
        return _sentence("", match[1], keys, what="there is no setting")
    if match := UNKNOWN_IN_GROUP.search(message):
        return _sentence("", f"{match[1]}.{match[2]}", keys, what="there is no setting")
    if match := UNKNOWN_AT_TOP.search(message):
        return _sentence("", match[1], keys, what="there is no setting")
    return message


@contextmanager
def constructor_errors() -> Iterator[None]:
    """Give back what a constructor said, where jsonargparse has wrapped it because the value may be null too.

    Raises:
        InputError: the constructor refused its arguments.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        reasons = REASON.findall(str(error))
        if "Union subtypes" not in str(error) or not reasons:
            raise
        raise InputError("; ".join(reasons)) from error


def build(parser: ArgumentParser, values: dict[str, Any], *, what: str) -> Any:
    """What a parser makes of plain values, which stay as they are.

    Args:
        parser: knows the classes.
        values: what a YAML file holds, class paths included.
        what: the place of the values, for the message.

    Raises:
        InputError: an unknown key or a wrong value; the message names its path.
    """
    from jsonargparse import ArgumentError

    try:
        config = parser.parse_object(deepcopy(values))
    except ArgumentError as error:
        raise InputError(f"{what}: {error}") from error
    with constructor_errors():
        return parser.instantiate(config)


def _sentence(prefix: str, name: str, known: Iterable[str], *, what: str) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=LEAST_LIKENESS)
    hint = f"; the nearest is {prefix}{nearest[0]}" if nearest else ""
    return f"{what} {prefix}{name}{hint}"


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)

"""What the commands share in reading their arguments.

Imported before the command is known: whatever takes time to import is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detect.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from detect.deploy.latency import Protocol

Command = Callable[[list[str]], int]
FIT_PREFIXES = ("--model.", "--data.", "--trainer.")
"""Flags of `detect fit`, which the commands that run it hand on."""


def new_parser(name: str, command: Command, example: str) -> ArgumentParser:
    """A parser whose help shows what the command does and an example."""
    from jsonargparse import ArgumentParser

    return ArgumentParser(
        prog=f"detect {name}",
        description=f"{command.__doc__} Example: {example}",
        exit_on_error=False,
        allow_abbrev=False,
    )


def add_model_arguments(parser: ArgumentParser) -> None:
    """Where a model comes from; `model_argument` reads it."""
    parser.add_argument("--ckpt_path", type=Path | None, default=None, help="checkpoint of detect")
    parser.add_argument("--model", type=Path | None, default=None, help="checkpoint, exported file or config")
    add_trust_argument(parser)


def add_protocol_arguments(parser: ArgumentParser, default: Protocol, *, runs_of: str) -> None:
    """How latency is measured."""
    from detect.deploy.latency import Clock

    parser.add_argument("--rounds", type=int, default=default.rounds, help=f"measured runs of each {runs_of}")
    parser.add_argument(
        "--warmup", type=int, default=default.warmup, help="rounds before the first that counts"
    )
    parser.add_argument(
        "--clock", type=Clock, default=default.clock, help="cpu: on a machine shared with others"
    )


def model_argument(config: Namespace) -> Path:
    """The file that `--ckpt_path` or `--model` names; says so where its weights are random."""
    from detect.deploy.load import CONFIG_SUFFIXES

    path = one_of(ckpt_path=config.ckpt_path, model=config.model)
    if path.suffix in CONFIG_SUFFIXES:
        print(f"{path} is a configuration: weights and detections are random", file=sys.stderr)
    return path


def choice(names: Iterable[str]) -> Any:
    """The type of an argument that takes one of these names."""
    return Literal[tuple(names)]


def one_of(**options: Path | None) -> Path:
    """The only option that is given.

    Raises:
        InputError: none or several are.
    """
    given = [path for path in options.values() if path is not None]
    if len(given) != 1:
        names = " or ".join(f"--{name}" for name in options)
        raise InputError(f"give {names}, one of them; {len(given)} were given")
    return given[0]


def parse(parser: ArgumentParser, args: list[str]):  # type: ignore[no-untyped-def]
    """Parse or raise InputError with one clear message."""
    from jsonargparse import ArgumentError

    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise InputError(f"{parser.prog}: {error}") from error


def split_fit_flags(
    args: Iterable[str], prefixes: tuple[str, ...] = FIT_PREFIXES
) -> tuple[list[str], list[str]]:
    """A command's own words, and the flags of `detect fit` among them with their values."""
    own, flags = [], []
    words = iter(args)
    for word in words:
        if word.startswith(prefixes):
            flags.append(word)
            if "=" not in word:
                flags += [value] if (value := next(words, None)) is not None else []
        else:
            own.append(word)
    return own, flags


def add_trust_argument(parser: ArgumentParser) -> None:
    """Modules of the user's own; `main` has acted on it before the command begins."""
    parser.add_argument(
        "--trust",
        type=str,
        nargs="+",
        default=[],
        metavar="MODULE",
        help="let files name your own classes: a module beside the configuration, in this folder or on "
        "Python's path, or path/to/module.py",
    )


def trust_modules(args: list[str]) -> None:
    """Act on `--trust MODULE ...` of any command, looking beside the configurations that the words name.

    Raises:
        InputError: see `detect.config.trusted_classes.trust`.
    """
    from argparse import ArgumentError, ArgumentParser

    from detect.config.trusted_classes import forget_own_modules, trust

    forget_own_modules()  # a permission is for one command
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--trust", nargs="+", default=[])
    try:
        names = parser.parse_known_args(args)[0].trust
    except ArgumentError as error:
        raise InputError(str(error)) from error
    configs = [Path(word.rpartition("=")[2]) for word in args if word.endswith((".yaml", ".yml"))]
    trust(names, beside=configs)

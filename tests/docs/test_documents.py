"""What the documents tell a reader to type, the parsers take; `test_commands.py` runs it."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from glob import glob
from itertools import dropwhile
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from detect.commands.arguments import split_fit_flags
from detect.commands.data import DATA_COMMANDS
from detect.commands.fit_cli import settings_reader
from detect.commands.main import COMMANDS, all_commands, main
from detect.commands.options import training_command
from scripts.write_options import parser_of
from tests.documents import FENCED, FENCED_LINES, PAGES, ROOT, Line

INLINE = re.compile(r"`(detect [a-z][^`]* --[^`]*)`")
SETTING = re.compile(r"[A-Z_]+=")
"""A variable of the environment, before a command."""
OTHER_PROGRAMS = ("curl", "mkdir", "pre-commit", "source")
"""Programs of which nothing is the project's to check."""
WRITTEN = {
    **dict.fromkeys(("birds.yaml", "raccoon.yaml", "my.yaml"), "configs/bccd.yaml"),
    "figure1/*.yaml": "configs/pretrain/v3_large.yaml",
}
"""Configurations that a command writes on a page, and one that stands in for each."""
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


class Parsed(Exception):
    """Raised in place of running a command whose words were taken."""


def inline_commands(page: Path) -> Iterator[Line]:
    """Mentions of a command with flags in running text, which may leave out the rest."""
    prose = FENCED.sub("", page.read_text())
    for text in INLINE.findall(prose):
        yield Line(page.name, text.split("...")[0].split())


INLINE_LINES = [line for page in PAGES for line in inline_commands(page)]


@pytest.fixture
def parse_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers raise `Parsed` once they have accepted their words, in a folder of links to the project's.

    A script that hands words on to `detect` has written its files by then.
    """

    def stop_after(parse_args: Callable[..., Any]) -> Callable[..., Any]:
        def parse(self: Any, args: Any = None, *rest: Any, **options: Any) -> Any:
            parse_args(self, args, *rest, **options)
            raise Parsed

        return parse

    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
        monkeypatch.setattr(parser, "parse_args", stop_after(parser.parse_args))


def detect_words(line: Line) -> list[str] | None:
    """The words after `detect` or `python -m detect`, globs filled in; None where it is not called.

    torchrun, srun or docker may stand before it.
    """
    for i, word in enumerate(line.words):
        before, after = line.words[i - 1 : i], line.words[i + 1 :]
        starts = not before or before == ["-m"] or after[:1] in [[name] for name in (*COMMANDS, "data")]
        if word in ("detect", ".venv/bin/detect") and before != ["--tag"] and starts:
            return [file for word in after for file in sorted(glob(word, root_dir=ROOT)) or [word]]
    return None


def check_detect(words: list[str]) -> None:
    """Parse the words of one command of detect; flags that are handed on are parsed as those of `fit`."""
    if words == ["--help"]:
        return
    words = [WRITTEN.get(word, word) for word in words]
    if words[0] in ("sweep", "search"):
        own, of_fit = split_fit_flags(words[1:])
        configs = [word for word in own if word.endswith(".yaml")]
        check_detect([training_command(ROOT / configs[0]), "--config", configs[0], *of_fit])
        words = [words[0], *own]
    if words[0] == "fit" and "--ckpt_path" in words and words[words.index("--ckpt_path") + 1] != "last":
        words[words.index("--ckpt_path") + 1] = "last"  # a file would be read to know its settings
    try:
        exit_code = main(words)
    except Parsed:
        return
    pytest.fail(f"exit code {exit_code}")


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file or module exists; where it has a parser, that takes the words."""
    if words[0] == "-m":
        spec = importlib.util.find_spec(words[1])
        assert spec is not None, f"there is no module {words[1]}"
        file, words = Path(str(spec.origin)), words[2:]
    else:
        file, words = ROOT / words[0], words[1:]
    assert file.is_file(), f"{file} does not exist"
    if "ArgumentParser" in file.read_text():
        monkeypatch.setattr(sys, "argv", [str(file), *words])
        with pytest.raises(Parsed):
            runpy.run_path(str(file), run_name="__main__")


def check_shell_script(words: list[str]) -> None:
    """The script exists; what it hands on to `detect fit` is parsed."""
    assert (ROOT / words[0]).is_file(), f"{words[0]} does not exist"
    if words[0] == "scripts/quickstart":
        check_detect(["fit", "--config", "configs/quickstart.yaml", *words[1:]])
    elif words[0] in ("scripts/torchrun", "scripts/slurm"):
        check_detect(["fit", "--out", words[1], "--ckpt_path", "last", *words[2:]])


def check_pip(words: list[str]) -> None:
    """The extras of the project that are asked for exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [extra for word in words if word.startswith(".[") for extra in word[2:-1].split(",")]
    assert set(asked) <= extras.keys()


def check_docker(words: list[str]) -> None:
    """The files of the project that are named exist."""
    named = [word for word in words if word.startswith(("docker/", "scripts/"))]
    assert [word for word in named if not (ROOT / word).is_file()] == []


def check_line(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command of a page would be refused, or is of a program that no check knows."""
    program, *words = dropwhile(SETTING.match, line.words)
    program = Path(program).name
    if (of_detect := detect_words(line)) is not None:
        check_detect(of_detect)
    elif program.startswith("python"):
        check_python(words, monkeypatch)
    elif program in ("bash", "sbatch"):
        check_shell_script(words)
    elif program == "pip":
        check_pip(words)
    elif program == "docker":
        check_docker(words)
    else:
        assert program in OTHER_PROGRAMS, f"{program}: a command that this test cannot check"


@pytest.mark.parametrize("line", FENCED_LINES, ids=str)
@pytest.mark.usefixtures("parse_only")
def test_a_command_of_the_documents_is_one_that_runs(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    check_line(line, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "detekt fit --config configs/bccd.yaml",
        "bash scripts/quickstrat",
        "sbatch scripts/slurm runs/a --config configs/bccd.yaml --data.rot D",
        "NODES=2 bash scripts/torchrun runs/a --config configs/bccd.yaml --data.rot D",
        "pip install .[exprot]",
        "python -m tests.fuz_data",
        "python -m tests.fuzz_data --cuont 3",
        "python benchmarks/step.py --rotos 3",
        "docker run --rm --entrypoint bash detect scripts/quickstrat",
    ],
)
@pytest.mark.usefixtures("parse_only")
def test_a_command_that_does_not_run_is_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, ModuleNotFoundError, SystemExit)):
        check_line(Line("a.md", command.split()), monkeypatch)


@pytest.mark.parametrize("line", INLINE_LINES, ids=str)
def test_a_flag_that_the_text_mentions_exists(line: Line) -> None:
    words = 3 if line.words[1] == "data" else 2
    parser = parser_of(all_commands()[" ".join(line.words[1:words])])
    flags = [word.split("=")[0].rstrip(".,;)") for word in line.words if word.startswith("--")]
    if line.words[1] in ("sweep", "search"):
        flags = split_fit_flags(flags)[0]
    known = parser._option_string_actions
    # Below a class that can be chosen, what it takes depends on the choice.
    nested = tuple(f"{option}." for option in known if "." in option)
    assert [flag for flag in flags if flag not in known and not flag.startswith(nested)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.usefixtures("parse_only")
def test_an_unknown_flag_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="exit code 2"):
        check_detect(["predict", "--ckpt_path", "a", "--source", "b", "--output", "c", "--scores", "0.3"])
    with pytest.raises(pytest.fail.Exception, match="exit code 2"):
        check_detect(["fit", "--config", "configs/bccd.yaml", "--data.rot", "D"])
    with pytest.raises(pytest.fail.Exception, match="exit code 2"):
        check_detect(["data", "chek", "D"])
    assert {line.page for line in FENCED_LINES} >= {"README.md", "results.md", "docker.md"}
    assert DATA_COMMANDS


def test_flags_of_the_tables_of_plus_are_taken() -> None:
    page = (ROOT / "docs" / "plus.md").read_text(encoding="utf-8")
    flags = re.findall(r"`(--(?:model|data|trainer)\.[^`]*)`", page)
    assert len(flags) > 20
    for words in map(shlex.split, flags):
        settings_reader().parser.parse_args(["--config", str(ROOT / "configs/plus/bccd.yaml"), *words])

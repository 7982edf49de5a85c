from __future__ import annotations

from pathlib import Path

import pytest

from detect.commands.arguments import (
    add_model_arguments,
    model_argument,
    new_parser,
    one_of,
    parse,
    split_fit_flags,
)
from detect.errors import InputError
from detect.system.files import require_writable


def command(args: list[str]) -> int:
    """Does nothing."""
    parser = new_parser("nothing", command, "detect nothing")
    add_model_arguments(parser)
    print(model_argument(parse(parser, args)))
    return 0


@pytest.mark.parametrize("option", ["--ckpt_path", "--model"])
def test_model_argument__either_option__its_file(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    command([option, "best.ckpt"])
    assert capsys.readouterr() == ("best.ckpt\n", "")


def test_model_argument__a_configuration__its_weights_are_called_random(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(["--model", "a.yaml"])
    assert "a.yaml is a configuration: weights and detections are random" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{}, {"ckpt_path": Path("a"), "model": Path("b")}])
def test_one_of__none_or_both__refused(given: dict[str, Path]) -> None:
    options: dict[str, Path | None] = {"ckpt_path": None, "model": None, **given}
    with pytest.raises(
        InputError, match=rf"give --ckpt_path or --model, one of them; {len(given)} were given"
    ):
        one_of(**options)


def test_parse__unknown_flag__one_message_with_the_command() -> None:
    with pytest.raises(InputError, match=r"detect nothing: .*--typo"):
        command(["--typo", "1"])


def test_require_writable__no_folder_a_folder_or_inside_what_is_read__refused(tmp_path: Path) -> None:
    require_writable(None)
    require_writable(tmp_path / "new.json")
    with pytest.raises(InputError, match=r"a\.json: there is no folder .*none"):
        require_writable(tmp_path / "none" / "a.json")
    with pytest.raises(InputError, match="it is a folder; name a file"):
        require_writable(tmp_path)
    with pytest.raises(InputError, match="which is only read"):
        require_writable(tmp_path / "new.json", outside=tmp_path)


def test_split_fit_flags__with_and_without_equals_sign() -> None:
    args = ["a.yaml", "--data.root", "d", "--seeds", "0", "--trainer.max_epochs=3", "--model.compile", "true"]
    own, flags = split_fit_flags(args)
    assert own == ["a.yaml", "--seeds", "0"]
    assert flags == ["--data.root", "d", "--trainer.max_epochs=3", "--model.compile", "true"]

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from detect.commands import main as cli
from detect.commands.main import main


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, 2), (errno.EROFS, 2), (errno.ENOTDIR, 2), (errno.ENOSPC, 3)]
)
def test_main__a_place_that_cannot_be_written__named_without_a_traceback(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: list[str]) -> int:
        raise OSError(number, "no way", "some/file")

    monkeypatch.setitem(cli.COMMANDS, "models", fail)
    assert main(["models"]) == code
    assert capsys.readouterr().err == "detect: some/file: no way\n"


@pytest.mark.parametrize("error", [OSError("of our own"), OSError(errno.EBADF, "bad", "file")])
def test_main__another_error__keeps_its_traceback(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "models", fail)
    with pytest.raises(OSError, match=r"of our own|bad"):
        main(["models"])


def test_main__interrupted__exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "models", interrupt)
    assert main(["models"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["validate", "--ckpt_path", "none.ckpt"],
        ["benchmark", "--model", "none.ckpt"],
        ["compare", "none", "--output", "out"],
        ["reproduce", "none", "--out", "new"],
        ["evaluate", "--annotations", "none.json", "--detections", "none.json"],
        ["models"],
    ],
    ids=lambda words: words[0],
)
def test_json__no_such_folder__said_before_any_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json", str(tmp_path / "none" / "figures.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_main__unknown_or_no_command__lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "unknown command 'trian'; the nearest is `detect fit`" in capsys.readouterr().err
    assert main(["data", "chek"]) == 2
    assert "unknown command 'data chek'; the nearest is `detect data check`" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "unknown command 'zzz'\n" in capsys.readouterr().err
    assert main(["data", "--help"]) == 0
    assert "data check" in capsys.readouterr().out
    assert main(["data"]) == 2
    assert main([]) == 2
    assert "data check" in capsys.readouterr().out
    assert main(["--help"]) == 0


HEAVY = ("jsonargparse", "lightning", "numpy", "torch", "yaml")


def test_help__imports_nothing_that_takes_time() -> None:
    """In a process of its own: this one has imported all of it."""
    code = "import sys; from detect.commands.main import main; main(['--help']); main(['no']); "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("usage: detect COMMAND")
    assert any("data check" in line and "Decode every image" in line for line in lines)
    assert lines[-1] == "[]"


def test_help__its_reader_stops__no_complaint() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "detect", "fit", "--help", "all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.system.output_folder import alone_in

HOLD = """
import sys
from pathlib import Path
from detect.system.output_folder import alone_in

with alone_in(Path(sys.argv[1]), "works in"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_alone_in__held_by_another_process__error_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=r"another process works in .*here; wait for it"),
            alone_in(folder, "works in"),
        ):
            pass
        other.kill()
        other.wait()
    with alone_in(folder, "works in"):
        pass
    with alone_in(folder, "works in"):  # and it is given back
        pass


def test_alone_in__file_system_without_locks__goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with alone_in(tmp_path, "works in"):
        pass

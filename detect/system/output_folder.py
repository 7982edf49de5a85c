"""A folder that appears whole or not at all, or that one process has alone; images in it without a copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from detect.errors import InputError

ImagePlacement = Literal["link", "copy"]
"""Hard links where the file system can, else copies; or copies always."""


def require_new(output: Path, source: Path | None = None) -> Path:
    """The absolute path of `output`, which does not exist yet or is an empty folder, outside of `source`.

    Raises:
        InputError: it holds something, or lies in the folder that is read.
    """
    output = output.resolve()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} exists and is not an empty folder; give another place or move it away")
    if source is not None and output.is_relative_to(source.resolve()):
        raise InputError(f"{output} lies in {source}, which is only read; give a place outside of it")
    return output


@contextmanager
def new_folder(output: Path, source: Path | None = None) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends without an exception.

    Raises:
        InputError: as `require_new`.
    """
    output = require_new(output, source)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        unfinished = Path(scratch) / output.name
        unfinished.mkdir()
        yield unfinished
        unfinished.replace(output)


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder`, which is made where it is missing; FOLDER/.lock stays, its lock ends with the process.

    Args:
        folder: which no other process may fill at once.
        what: what is done, between "another process" and the folder, in messages.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"another process {what} {folder}; wait for it") from None
        except OSError:
            pass  # a file system without locks, as some of clusters are
        yield


def place_image(source: Path, target: Path, how: ImagePlacement) -> None:
    """Put the file that `source` is, or is a link to, at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = Path(os.path.realpath(source))
    if how == "link":
        try:
            os.link(source, target)
        except OSError:
            pass  # another file system, or one without links
        else:
            return
    shutil.copyfile(source, target)

"""How files are written: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from detect.errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, text.encode())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one: never a part of it."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write bit by bit; it appears whole at the end of the block, and not at all on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` left behind that were killed while they wrote."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def require_writable(file: Path | None, *, outside: Path | None = None) -> None:
    """Refuse, before any work, a file to write that has no folder or lies in the folder that is read.

    Args:
        file: to be written at the end; null: none.
        outside: the folder that is read; null: none.

    Raises:
        InputError: either is the case, or `file` is a folder; names both.
    """
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise InputError(f"cannot write {file}: there is no folder {file.absolute().parent}")
    if file.is_dir():
        raise InputError(f"cannot write {file}: it is a folder; name a file")
    if outside is not None and file.resolve().is_relative_to(outside.resolve()):
        raise InputError(f"{file} lies in {outside}, which is only read; give a place outside of it")

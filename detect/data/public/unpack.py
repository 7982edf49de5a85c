"""Unpacks a zip or tar file that is not trusted: nothing leaves the folder, no links, and limits on its size.

The whole list of contents is checked before the first byte is written.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from detect.errors import InputError

CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 255
"""Longest part of a path that file systems take."""
DRIVE = re.compile(r"[A-Za-z]:")
GB = 1e9
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that this Python lacks
    RuntimeError,  # an encrypted member
    ValueError,
    OverflowError,
)
"""What zipfile and tarfile raise for files that are broken, or made to break them."""


class Limits(NamedTuple):
    """What an archive may hold at most."""

    files: int
    gb: float
    """Unpacked, in 1e9 bytes."""


class _Member(NamedTuple):
    """An entry of an archive, before it has been checked."""

    name: str
    kind: Literal["file", "folder", "other"]
    size: int
    """As the archive says; what is written is counted again."""
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, select: str, *, limits: Limits) -> int:
    """Write the selected files of `archive` below `folder`.

    Args:
        archive: a zip file, or a tar file with any compression.
        folder: an own, existing folder; no file in it is overwritten.
        select: a regular expression for whole names in the archive, without doubled slashes; group 1 is the
            path below `folder`. What it does not match is not written.
        limits: of all contents, whether they are selected or not.

    Returns:
        How many files were written.

    Raises:
        InputError: broken, too large, or with a path that leaves the folder, a link, a device, or two
            different files of one name; no file of it is written but in the last case and where its data
            turn out to be broken.
    """
    try:
        with _opened(archive) as members:
            chosen = _choose(archive, members, re.compile(select), limits)
            left = round(limits.gb * GB)
            written = 0
            for place, member in chosen:
                size, new = _write(archive, member, folder.joinpath(*place.parts), left)
                left -= size
                written += new
            return written
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot unpack {archive}: {type(error).__name__}: {error}") from error


def _choose(
    archive: Path, members: Iterator[_Member], select: re.Pattern[str], limits: Limits
) -> list[tuple[PurePosixPath, _Member]]:
    """The selected files and their places; every member of the archive is looked at."""
    chosen, count, size = [], 0, 0
    for member in members:
        _require_harmless(archive, member)
        count += 1
        size += member.size
        if count > limits.files or size > limits.gb * GB:
            raise InputError(
                f"{archive} holds more than the {limits.files} files or {limits.gb:g} GB that are expected "
                "of it; nothing of it was written"
            )
        # "top//etc/x" is top/etc/x: what is left of it behind "top/" must not begin with a slash.
        match = select.fullmatch(str(PurePosixPath(member.name)))
        if match is not None and member.kind == "file":
            chosen.append((PurePosixPath(match[1]), member))
    if not chosen:
        raise InputError(f"{archive} holds nothing of the form {select.pattern}: is it the right archive?")
    return chosen


def _require_harmless(archive: Path, member: _Member) -> None:
    """Refuse names that are no plain relative path, and what is neither a file nor a folder."""
    name, path = member.name, PurePosixPath(member.name)
    plain = (
        name
        and name.isprintable()
        and "\\" not in name
        and not path.is_absolute()
        and ".." not in path.parts
        and not DRIVE.match(name)
        and all(len(os.fsencode(part)) <= MAX_NAME_BYTES for part in path.parts)
    )
    if not plain:
        raise InputError(f"{archive} holds {ascii(name)[:200]}, a path that can leave the folder; refused")
    if member.kind == "other":
        raise InputError(f"{archive} holds {ascii(name)[:200]}, a link or a device; refused")


def _write(archive: Path, member: _Member, target: Path, limit: int) -> tuple[int, bool]:
    """Bytes of the file, and whether it was written: an equal one may be there already."""
    content = member.open()
    if content is None:
        raise InputError(f"{archive} holds {member.name!a}, which is no file")
    with content:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # O_EXCL does not follow a link at the target either.
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, NotADirectoryError):
            return _require_equal(archive, member, content, target), False
        size = 0
        with os.fdopen(handle, "wb") as file:
            while chunk := content.read(CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise InputError(f"{archive}: {member.name!a} is larger than the archive says")
                file.write(chunk)
        return size, True


def _require_equal(archive: Path, member: _Member, content: IO[bytes], target: Path) -> int:
    """The size of a file that comes twice, as some archives of one data set share a few."""
    if target.is_file() and not target.is_symlink():
        size = 0
        with target.open("rb") as known:
            while (chunk := content.read(CHUNK_BYTES)) == known.read(CHUNK_BYTES):
                size += len(chunk)
                if not chunk:
                    return size
    raise InputError(f"{archive} holds {member.name!a} with another content than what is there already")


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Member]]:
    """The members of a zip or tar file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield (_zip_member(zipped, info) for info in zipped.infolist())
    else:
        with tarfile.open(archive) as tarred:
            yield (_tar_member(tarred, info) for info in tarred)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer knew no Unix modes
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    folder = info.is_dir()
    return _Member(
        name=info.filename,
        kind="other" if not plain else "folder" if folder else "file",
        size=info.file_size,
        open=lambda: archive.open(info),
    )


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(
        name=info.name,
        kind="file" if info.isreg() else "folder" if info.isdir() else "other",
        size=info.size,
        open=lambda: archive.extractfile(info),
    )

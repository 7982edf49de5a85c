"""A published file whose content is known by its hash: found on this machine, or fetched once."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from detect.data.public.http_file import Patience, fetch_with_progress
from detect.errors import InputError, RunStopped

PATIENCE = Patience(attempts=1, timeout_s=10.0)
"""A file that cannot be had should be known soon: there are other ways."""


class PinnedFile(NamedTuple):
    """A file that others published."""

    url: str
    sha256: str
    max_bytes: int

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rsplit("/", 1)[1]

    def require_hash(self, path: Path, remedy: str) -> None:
        """Stop at a copy that is another file.

        Raises:
            InputError: names both hashes and the remedy.
        """
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise InputError(f"{path} has the sha256 {found}, published is {self.sha256}: {remedy}")


def pinned_file(file: PinnedFile, folder: Path, *, elsewhere: Iterable[Path] = ()) -> Path:
    """The file on this machine, its hash checked; fetched to `folder` if it is not there.

    Args:
        file: which one.
        folder: it may be put there by hand.
        elsewhere: other places where it may lie.

    Raises:
        InputError: it can neither be found nor fetched, or its hash is another.
    """
    place = folder / file.name
    for found in (place, *elsewhere):
        if found.is_file():
            file.require_hash(found, "move it away, and it is fetched again")
            return found
    try:
        fetch_with_progress(
            file.url,
            place,
            max_bytes=file.max_bytes,
            console=Console(stderr=True, soft_wrap=True),
            patience=PATIENCE,
        )
    except (InputError, RunStopped) as error:
        raise InputError(
            f"{file.name} cannot be downloaded: {error}. Download {file.url} where there is a "
            f"network, and put the file at {place}"
        ) from error
    try:
        file.require_hash(place, "it was deleted; try again")
    except InputError:
        place.unlink()
        raise
    return place


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Let other processes of this machine, such as the ranks of a training, wait for the one that fetches.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise InputError(
            f"cannot write {lock.parent}: {error.strerror}; set DETECT_CACHE to a folder"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Decoded pixels in one memory-mapped file, shared by all workers and ranks, filled as images are first seen.

Slots are laid out by the sizes in the annotations, so nobody has to be asked where an image lies. An image is
written before its flag is set, and every writer writes the same bytes: two runs that fill the same file at
once do no harm. What is read from the cache is what the decoder gave.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import math
import mmap
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detect.data.annotation_cache import cache_folder
from detect.data.annotations import Annotations
from detect.errors import InputError

CachePlace = Literal["ram", "disk"]
VERSION = 1
"""Raised whenever the decoder gives other pixels for the same file."""
GB = 1e9
RAM_FOLDER = Path("/dev/shm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FREE_SHARE = 0.9
"""Largest share of the free space that a cache takes."""


class NothingFitsError(InputError):
    """There is no room for a single image."""


class PixelCache:
    """The decoded pixels of a split, or of as many of its images as fit.

    Args:
        annotations: the split.
        draft_scales: (N,) the reduction at which each image is decoded.
        place: "disk" keeps the file for later runs, "ram" removes it after the last run that uses it.
        limit_gb: most bytes to take, in 1e9; images that do not fit are decoded every time.

    Raises:
        NothingFitsError: not even one image fits.
        InputError: the file cannot be written.
    """

    _lock: int
    """Descriptor that holds the file for as long as it is in use; -1 once closed."""
    _bytes: NDArray[np.uint8]
    """The file: (N,) flags, then the slots."""

    def __init__(
        self, annotations: Annotations, draft_scales: NDArray[np.int64], *, place: CachePlace, limit_gb: float
    ) -> None:
        folder = _folder(place)
        scales = draft_scales[:, None]
        self.shapes = -(-annotations.sizes.astype(np.int64) // scales)  # (N, 2), a draft is rounded up
        ends = len(annotations) + np.cumsum(self.shapes.prod(axis=1) * 3)
        self._path = folder / f"{_key(annotations, draft_scales)}.pixels"
        taken = self._path.stat().st_size if self._path.is_file() else 0
        _remove_unused(folder, keep=self._path, limit=limit_gb * GB if place == "disk" else 0)
        free = shutil.disk_usage(folder).free * FREE_SHARE + taken
        self.num_cached = int(np.searchsorted(ends, min(limit_gb * GB, free), side="right"))
        if self.num_cached == 0:
            raise NothingFitsError(
                f"not one image fits into the pixel cache: {limit_gb:g} GB allowed, {free / GB:.3g} GB free "
                f"in {folder}. {_advice(place, float(ends[-1]))}"
            )
        self.starts = np.concatenate([[len(annotations)], ends[:-1]])
        self.size_bytes = int(ends[self.num_cached - 1])
        self._removes_file = place == "ram"
        try:
            self._map()
        except OSError as error:
            raise InputError(
                f"cannot reserve {self.size_bytes / GB:.3g} GB in {self._path}: {error}. "
                f"{_advice(place, self.size_bytes)}"
            ) from error
        atexit.register(self.close)

    def get(self, row: int) -> NDArray[np.uint8] | None:
        """(h, w, 3) pixels of image `row`, or None where it is not there."""
        if row >= self.num_cached or not self._bytes[row]:
            return None
        return self._slot(row)

    def put(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Keep (h, w, 3) `pixels`, unless there is no room or they have another size than was foreseen."""
        if row < self.num_cached and pixels.shape[:2] == tuple(self.shapes[row]):
            self._slot(row)[:] = pixels
            self._bytes[row] = 1

    def close(self) -> None:
        """Let go of the file; the last user of a "ram" cache removes it."""
        if self._lock >= 0:
            if self._removes_file and _try_lock(self._lock):
                self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def _slot(self, row: int) -> NDArray[np.uint8]:
        height, width = self.shapes[row].tolist()
        start = int(self.starts[row])
        return self._bytes[start : start + height * width * 3].reshape(height, width, 3)

    def _map(self) -> None:
        """Open the file for use, with all its space: a page that finds none later would kill the process."""
        self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        os.posix_fallocate(self._lock, 0, self.size_bytes)
        self._bytes = np.frombuffer(mmap.mmap(self._lock, self.size_bytes), dtype=np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are not forked: they map the file themselves."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()


def free_bytes(place: CachePlace) -> float:
    """What a cache in `place` may take; 0 where there is no such place."""
    if place == "ram" and not RAM_FOLDER.is_dir():
        return 0.0
    return shutil.disk_usage(_folder(place)).free * FREE_SHARE


def _folder(place: CachePlace) -> Path:
    """Where files of `place` lie; each user has a folder of their own."""
    if place == "disk":
        folder = cache_folder() / "pixels"
    elif RAM_FOLDER.is_dir():
        folder = RAM_FOLDER / f"detect-{os.getuid()}"
    else:
        raise InputError(
            f"there is no {RAM_FOLDER} here, which the cache in ram needs: use --data.cache disk"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(annotations: Annotations, draft_scales: NDArray[np.int64]) -> str:
    """Hash of every image file's name, size and time, and of how it is decoded.

    The boot is part of it: after a power cut a flag may be on the disk without its pixels.
    """
    boot = BOOT_ID.read_text() if BOOT_ID.is_file() else ""
    digest = hashlib.sha256(f"{VERSION} {boot} {annotations.root}".encode())
    for array in (annotations.file_names, annotations.sizes, draft_scales):
        digest.update(np.ascontiguousarray(array).tobytes())
    for row in range(len(annotations)):
        status = os.stat(annotations.path(row))
        digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
    return digest.hexdigest()[:24]


def _remove_unused(folder: Path, *, keep: Path, limit: float) -> None:
    """Remove the oldest files that no run has open, until `limit` bytes are left beside `keep`."""
    found = []
    for path in folder.glob("*.pixels"):
        with suppress(FileNotFoundError):  # another rank or run removes the same ones
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    files = sorted(entry for entry in found if entry[2] != keep)
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= limit:
            break
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR)
            if _try_lock(descriptor):
                total -= size
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Whether nobody else holds the file open for use."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _advice(place: CachePlace, size_bytes: float) -> str:
    if place == "disk":
        return "Change --data.cache_gb, or set DETECT_CACHE to a folder with more space"
    memory_gb = math.ceil(size_bytes / FREE_SHARE / GB)
    return f"Change --data.cache_gb, use --data.cache disk, or give the container --shm-size={memory_gb}g"

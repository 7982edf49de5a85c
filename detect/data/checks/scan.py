"""Decodes every image once, whole, and keeps what was seen: broken files, and a fingerprint of each image.

A header tells little: files that were cut off have a good one. What was seen of a file holds until its size
or time changes, so a second scan decodes only what is new.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from detect.data.annotation_cache import cache_folder
from detect.data.images.decode import open_image, upright_rgb
from detect.data.readers import find_rows
from detect.system.cores import available_cores

VERSION = 1
"""Raised whenever the same file would be seen otherwise."""
THUMBNAIL_PX = 32
"""Side of the grey image that fingerprints are made of."""
HASH_SIDE = 8
"""Lowest frequencies each way: 8 x 8 signs make 64 bits."""
KEPT_SIDE_PX = 16
"""Side of the grey image that is kept, to confirm what the hashes suggest."""
SAVE_EVERY = 20_000
"""Images after which an unfinished scan is saved; stopping it loses no more."""
BATCH = 256


class ImageScan(NamedTuple):
    """What was seen of N image files."""

    failures: dict[int, str]
    """Row to reason, of files that cannot be decoded whole."""
    digests: NDArray[np.bytes_]
    """(N,) BLAKE2 of each file's bytes: equal for equal files."""
    hashes: NDArray[np.uint64]
    """(N,) perceptual hash: few bits differ between images that look alike."""
    thumbnails: NDArray[np.uint8]
    """(N, 16, 16) grey, the whole image squeezed into a square."""


_LARGE = Lock()


class _Seen(NamedTuple):
    reason: str
    """Why the file cannot be decoded; "" for a good one."""
    digest: bytes
    hash: int
    thumbnail: NDArray[np.uint8]


RECORD = np.dtype(
    [
        ("path", "S16"),
        ("stamp", "S16"),
        ("reason", "S160"),
        ("digest", "S16"),
        ("hash", "u8"),
        ("thumbnail", "u1", (KEPT_SIDE_PX, KEPT_SIDE_PX)),
    ]
)
"""What is kept of a file; `path` stands for where it is, `stamp` for its size and time. "S" drops zero bytes
at the end, so digests are kept as hexadecimal digits."""
LARGE_PIXELS = 25_000_000
"""Larger images are decoded one at a time: a hundred million pixels take half a gigabyte."""


def scan_images(paths: Sequence[Path], *, threads: int | None = None) -> ImageScan:
    """Decode each file of `paths`, or recall what was seen of it when it was the same.

    Args:
        paths: image files, each of them ordinary.
        threads: decoding at once; None: one a core.
    """
    records = np.zeros(len(paths), dtype=RECORD)
    records["path"] = [_short_hash(os.path.abspath(path)) for path in paths]
    records["stamp"] = [_stamp(path) for path in paths]
    store = _store_file(paths)
    with _locked(store):  # of several ranks that start at once one decodes, the others wait and recall
        _fill(paths, records, store=store, threads=threads)
    return ImageScan(
        failures={
            row: records["reason"][row].decode(errors="ignore")
            for row in np.flatnonzero(records["reason"] != b"").tolist()
        },
        digests=records["digest"],
        hashes=records["hash"],
        thumbnails=records["thumbnail"],
    )


def _fill(paths: Sequence[Path], records: NDArray[np.void], *, store: Path, threads: int | None) -> None:
    """Complete `records`, which have paths and stamps, from the store or by decoding."""
    known = _load(store)
    place = find_rows(records["path"], known["path"])
    recalled = place >= 0
    recalled[recalled] = known["stamp"][place[recalled]] == records["stamp"][recalled]
    records[recalled] = known[place[recalled]]
    missing = np.flatnonzero(~recalled)
    others = known[~np.isin(known["path"], records["path"])]
    if len(missing):
        _decode(paths, missing, records, others=others, store=store, threads=threads)


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store alone; where no file can be locked, work without a lock."""
    with ExitStack() as stack:
        with suppress(OSError):
            store.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(store.with_suffix(".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _decode(
    paths: Sequence[Path],
    rows: NDArray[np.int64],
    records: NDArray[np.void],
    *,
    others: NDArray[np.void],
    store: Path,
    threads: int | None,
) -> None:
    """Fill `records` at `rows`, with a bar, and save them and `others` from time to time."""
    console = Console(stderr=True)
    done = np.ones(len(records), dtype=np.bool_)
    done[rows] = False
    unsaved = 0
    with (
        ThreadPoolExecutor(threads or available_cores()) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("decoding images", total=len(rows))
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH].tolist()
            for row, seen in zip(batch, pool.map(look_at, [paths[row] for row in batch]), strict=True):
                fingerprint = records[row]
                fingerprint["reason"] = seen.reason.encode(errors="replace")
                fingerprint["digest"], fingerprint["hash"] = seen.digest, seen.hash
                fingerprint["thumbnail"] = seen.thumbnail
                done[row] = True
            bar.advance(task, len(batch))
            unsaved += len(batch)
            if unsaved >= SAVE_EVERY or start + BATCH >= len(rows):
                _save(store, np.concatenate([others, records[done]]))
                unsaved = 0


def look_at(path: Path) -> _Seen:
    """Read and decode one file; never raises for what is in it.

    A JPEG is decoded in grey and reduced, which reads all of its data and takes a third of the time.
    """
    empty = np.zeros((KEPT_SIDE_PX, KEPT_SIDE_PX), dtype=np.uint8)
    try:
        digest = _digest(path)
        grey = decode_grey(path, THUMBNAIL_PX)
    except Exception as error:  # decoders raise anything when they are fed what is no image
        return _Seen(f"{type(error).__name__}: {error}", b"", 0, empty)
    small = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    thumbnail = small.resize((KEPT_SIDE_PX, KEPT_SIDE_PX), Image.Resampling.BOX)
    return _Seen("", digest, perceptual_hash(np.asarray(small)), np.asarray(thumbnail))


def decode_grey(path: Path, side: int) -> Image.Image:
    """The upright image in grey, with at least twice `side` px each way where it has so many.

    Raises:
        Exception: whatever a decoder raises.
    """
    with open_image(path) as image:
        image.draft("L", (2 * side, 2 * side))
        with _LARGE if image.width * image.height > LARGE_PIXELS else nullcontext():
            return upright_rgb(_thinned(image)).convert("L")


def _thinned(image: Image.Image) -> Image.Image:
    """A large image decoded, and of it every n-th pixel: enough for a hash; RGB would be a second copy."""
    image.load()
    step = math.isqrt(image.width * image.height // LARGE_PIXELS) + 1
    if step == 1:
        return image
    size = (max(1, image.width // step), max(1, image.height // step))
    return image.resize(size, Image.Resampling.NEAREST)


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """64 bits of a (32, 32) grey image: which of its lowest frequencies lie above their median.

    Source: "pHash" in Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).
    """
    low = (DCT @ grey.astype(np.float64) @ DCT.T).ravel()
    # The mean brightness (place 0) says nothing of what is seen; its bit is always 0.
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _dct_rows(count: int, length: int) -> NDArray[np.float64]:
    """(count, length) the first rows of the cosine transform (DCT-II)."""
    frequency, place = np.arange(count)[:, None], np.arange(length)[None] + 0.5
    return np.asarray(np.cos(np.pi * frequency * place / length))


DCT = _dct_rows(HASH_SIDE, THUMBNAIL_PX)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest().encode()


def _short_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest().encode()


def _stamp(path: Path) -> bytes:
    """Hash of size and time; "gone" for a missing file, which is looked at again when it is there."""
    try:
        status = os.stat(path)
    except OSError:
        return _short_hash("gone")
    return _short_hash(f"{status.st_size} {status.st_mtime_ns}")


def _store_file(paths: Sequence[Path]) -> Path:
    """One file for all images of a folder, whatever split they are of."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths]) if paths else ""
    return cache_folder() / "scans" / f"{_short_hash(folder).decode()}-{VERSION}.npy"


def _load(store: Path) -> NDArray[np.void]:
    try:
        records = np.load(store)
    except (OSError, ValueError, EOFError):
        return np.zeros(0, dtype=RECORD)  # absent, or cut off: looked at again
    return records if records.dtype == RECORD else np.zeros(0, dtype=RECORD)


def _save(store: Path, records: NDArray[np.void]) -> None:
    """Replace the store as a whole; where it cannot be written, the next scan decodes again."""
    temporary = store.with_name(f".{store.name}.{os.getpid()}.npy")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, records)
        os.replace(temporary, store)
    except OSError:
        with suppress(OSError):
            temporary.unlink()

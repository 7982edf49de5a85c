"""Which images of a split are kept, their true sizes, and which way their boxes were drawn: headers alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.checks.findings import Finding
from detect.data.images.decode import TRANSPOSED_ORIENTATIONS, ImageHeader, read_header
from detect.data.images.orientation import OrientationVotes, boxes_drawn_as_stored, read_votes
from detect.data.readers import RawAnnotations
from detect.errors import InputError

HEADER_THREADS = 8
"""Headers are waited for more than worked on."""
LARGE_PIXELS = 89_478_485
"""Larger images are read, with a warning; those of more than twice as many pixels are refused. Pillow's own
limits (`Image.MAX_IMAGE_PIXELS`)."""


class CheckedImages(NamedTuple):
    """What is known of the N images of a split."""

    kept: NDArray[np.bool_]
    """(N,)"""
    sizes: NDArray[np.int32]
    """(N, 2) upright height and width, px; 0 where the header cannot be read."""
    stored: NDArray[np.int32]
    """(N, 2) height and width before the orientation is applied."""
    turns: NDArray[np.int8]
    """(N,) EXIF orientation by which the boxes must be turned; 1 where they were drawn upright."""


def check_images(raw: RawAnnotations, findings: list[Finding]) -> CheckedImages:
    """Headers against annotations; a repeated id keeps its first image. Appends to `findings`."""
    names = [name.decode() for name in raw.file_names]
    headers = _read_headers(raw.source.images, names, findings)
    stored = np.array([(h.height, h.width) if h else (0, 0) for h in headers], dtype=np.int32).reshape(-1, 2)
    orientations = np.array([h.orientation if h else 1 for h in headers], dtype=np.int8)
    kept = stored[:, 0] > 0
    _find_repeats(raw, names, kept, findings)
    votes = read_votes(raw.sizes, stored, orientations)
    turned = boxes_drawn_as_stored(votes, orientations)
    swapped = np.isin(orientations, TRANSPOSED_ORIENTATIONS)
    images = CheckedImages(
        kept,
        sizes=np.where(swapped[:, None], stored[:, ::-1], stored),
        stored=stored,
        turns=np.where(turned, orientations, 1).astype(np.int8),
    )
    _find_large(names, images, findings)
    _find_other_sizes(raw, names, images, findings)
    _find_orientations(raw, orientations, votes, images, findings)
    _find_links(raw, names, findings)
    return images


def _read_headers(folder: Path, names: list[str], findings: list[Finding]) -> list[ImageHeader | None]:
    """The header of each file, None where there is a finding instead."""

    def attempt(name: str) -> ImageHeader | Finding:
        if not name or os.path.isabs(name) or os.path.normpath(name).startswith(".."):
            reason = f"{name!r} leads out of the image folder {folder}" if name else "no file name"
            return Finding("file-name-refused", "error", name, None, reason, "image dropped")
        try:
            return read_header(folder / name)
        except InputError as error:
            code = "image-unreadable" if os.path.lexists(folder / name) else "image-missing"
            return Finding(code, "error", name, None, str(error), "image dropped")

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        answers = list(pool.map(attempt, names, chunksize=64))
    findings += [answer for answer in answers if isinstance(answer, Finding)]
    return [None if isinstance(answer, Finding) else answer for answer in answers]


def _find_repeats(
    raw: RawAnnotations, names: list[str], kept: NDArray[np.bool_], findings: list[Finding]
) -> None:
    """Repeated ids, which are taken out of `kept`, and files that several ids name."""
    for row in np.flatnonzero(repeats(raw.image_ids)).tolist():
        detail = f"image id {plain(raw.image_ids[row])!r} is used before"
        findings.append(Finding("image-id-repeated", "error", names[row], None, detail, "image dropped"))
        kept[row] = False
    for row in np.flatnonzero(repeats(raw.file_names) & kept).tolist():
        detail = f"image id {plain(raw.image_ids[row])!r} names a file that another image names too"
        findings.append(Finding("image-file-repeated", "warning", names[row], None, detail, "kept twice"))


def _find_large(names: list[str], images: CheckedImages, findings: list[Finding]) -> None:
    pixels = images.stored.astype(np.int64).prod(axis=1)
    for row in np.flatnonzero(images.kept & (pixels > LARGE_PIXELS)).tolist():
        height, width = images.stored[row]
        detail = f"{width} x {height} px take {7e-9 * pixels[row]:.1f} GB and more to decode"
        findings.append(
            Finding(
                "image-large", "warning", names[row], None, detail, "kept; a smaller copy trains the same"
            )
        )


def _find_other_sizes(
    raw: RawAnnotations, names: list[str], images: CheckedImages, findings: list[Finding]
) -> None:
    stated = (raw.sizes > 0).all(axis=1) & images.kept
    expected = np.where((images.turns > 1)[:, None], images.stored, images.sizes)
    for row in np.flatnonzero(stated & (raw.sizes != expected).any(axis=1)).tolist():
        (height, width), (file_height, file_width) = raw.sizes[row], images.sizes[row]
        detail = f"annotated as {width} x {height} px, the upright file has {file_width} x {file_height}"
        findings.append(
            Finding("image-size-differs", "warning", names[row], None, detail, "the file's size is used")
        )


def _find_orientations(
    raw: RawAnnotations,
    orientations: NDArray[np.int8],
    votes: OrientationVotes,
    images: CheckedImages,
    findings: list[Finding],
) -> None:
    """The policy that was inferred, and each image whose boxes are turned by it."""
    count = int((orientations > 1).sum())
    if not count:
        return
    turned = np.flatnonzero(images.turns > 1)
    upright, stored = int(votes.upright.sum()), int(votes.stored.sum())
    detail = (
        f"{count} images are stored turned (EXIF orientation): {upright} are annotated in the size that is "
        f"shown, {stored} in the size as stored, {count - upright - stored} do not tell"
    )
    policy = "apply: shown upright, boxes as annotated"
    if len(turned):
        policy += f", those of {len(turned)} images turned with them"
    findings.append(Finding("exif-policy", "note", str(raw.source.annotations), None, detail, policy))
    for row in turned.tolist():
        height, width = images.stored[row]
        detail = f"EXIF orientation {orientations[row]}, boxes drawn on {width} x {height} px as stored"
        findings.append(
            Finding(
                "exif-boxes-turned",
                "warning",
                raw.file_names[row].decode(),
                None,
                detail,
                "boxes turned with the image",
            )
        )


def _find_links(raw: RawAnnotations, names: list[str], findings: list[Finding]) -> None:
    """Images that are links to files outside of the image folder, counted."""
    folder = raw.source.images
    home = os.path.realpath(folder)
    links = set()
    for parent in {os.path.dirname(name) for name in names}:
        if not os.path.isabs(parent) and not os.path.normpath(parent).startswith(".."):
            links |= _links_in(folder, parent)
    outside = []
    for name in names:
        if name in links:
            target = os.path.realpath(folder / name)
            if os.path.commonpath([home, target]) != home:
                outside.append((name, target))
    if outside:
        name, target = outside[0]
        detail = f"{len(outside)} images are links that lead out of {folder}, this one to {target}"
        findings.append(Finding("image-link", "note", name, None, detail, "followed"))


def _links_in(folder: Path, parent: str) -> set[str]:
    """Names, from `folder` on, of the links in `folder`/`parent`; asks for no file's status."""
    try:
        with os.scandir(folder / parent) as entries:
            return {os.path.join(parent, entry.name) for entry in entries if entry.is_symlink()}
    except (OSError, ValueError):
        return set()


def repeats(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(N,) whether an equal value stands before."""
    _, first = np.unique(values, return_index=True)
    repeated = np.ones(len(values), dtype=np.bool_)
    repeated[first] = False
    return repeated


def plain(value: np.generic) -> int | str:
    """An id as Python's own type."""
    return value.decode() if isinstance(value, bytes) else int(value)

"""Boxes and images that repeat others: in one split, and in two (a leak from training to scoring)."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotation_cache import cache_folder
from detect.data.annotations import Annotations
from detect.data.checks.duplicates import alike_pairs, equal_groups, nearest_pairs
from detect.data.checks.findings import Finding, Severity
from detect.data.checks.scan import scan_images
from detect.data.checks.second_look import Look, is_same_image
from detect.data.checks.splits import repeated_boxes
from detect.system.files import write_atomically

VERSION = 4
"""Raised whenever the same data would give other repetitions."""


def paths_of(annotations: Annotations) -> list[str]:
    """Where each image lies, for comparing images of several splits."""
    return [str(annotations.path(row)) for row in range(len(annotations))]


def repeated_findings(splits: dict[str, Annotations], *, train: str) -> list[Finding]:
    """Repeated boxes and images of splits, recalled where neither files nor boxes have changed.

    Args:
        splits: by name.
        train: the one that is trained on.
    """
    store = cache_folder() / "repetitions" / f"{_hash_of(splits, train)}.json"
    try:
        return [Finding(**finding) for finding in json.loads(store.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        pass  # not looked for yet, or not readable
    findings = [finding for content in splits.values() for finding in repeated_boxes(content)]
    findings += repeated_images(splits, train=train)
    with suppress(OSError):  # where no cache can be written, they are looked for every time
        store.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(store, json.dumps([asdict(finding) for finding in findings]))
    return findings


def _hash_of(splits: dict[str, Annotations], train: str) -> str:
    """Hash of all boxes, and of every image's name, size and time."""
    digest = hashlib.sha256(f"{VERSION} {train}".encode())
    for name, content in splits.items():
        digest.update(f"{name} {content.root} {content.classes.names}".encode())
        for array in (content.file_names, content.boxes, content.labels, content.ignore, content.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        for path in paths_of(content):
            status = os.stat(path)
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
    return digest.hexdigest()[:24]


class _File(NamedTuple):
    """An image file, in however many splits."""

    name: str
    path: Path
    splits: list[str]
    boxes: NDArray[np.float64]
    """(G, 4) xyxy, fractions of width and height, of the first of the splits."""
    labels: NDArray[np.str_]
    """(G,) names of classes."""


class _Likeness(NamedTuple):
    """Pairs of files of which the second repeats the first, by how they do."""

    equal: list[tuple[_File, _File]]
    """Of the same bytes."""
    alike: list[tuple[_File, _File]]
    """One is a copy of the other, compressed, resized or cropped."""
    one_place: list[tuple[_File, _File]]
    """Of one place, with other content."""


def repeated_images(splits: dict[str, Annotations], *, train: str) -> list[Finding]:
    """Images that are the same or look the same, inside a split and across splits (a leak).

    A split that wholly holds another is reported once: in a note, as trainval holds train, but in a warning
    where `train`, the split that is trained on, holds it.
    """
    unique = _files_of(splits)
    nested = _nested(splits)
    findings = [
        _holds(outer, inner, trained=outer == train)
        for outer, inner in sorted(nested)
        if inner != train or (inner, outer) not in nested
    ]
    for file in unique:
        leak = _leak(file.splits, file.splits, nested)
        if leak:
            findings.append(_leak_finding(file, file, leak, "is the same file as"))
    pairs = _pairs(unique)
    findings += [_repeat_finding(*pair, nested, equal=True) for pair in pairs.equal]
    findings += [_repeat_finding(*pair, nested, equal=False) for pair in pairs.alike]
    if pairs.one_place:
        findings.append(_one_place(pairs.one_place))
    return findings


def _holds(outer: str, inner: str, *, trained: bool) -> Finding:
    if not trained:
        return Finding("split-holds-another", "note", outer, None, f"it has every image of {inner}", "kept")
    detail = f"every image of {inner} is one of {outer}: what is scored was trained on"
    return Finding(
        "split-trained-on", "warning", inner, None, detail, "kept: divide the images, or name another"
    )


def _files_of(splits: dict[str, Annotations]) -> list[_File]:
    files: dict[str, _File] = {}
    for split, content in splits.items():
        names = np.array(["", *content.classes.names])
        for row, path in enumerate(paths_of(content)):
            if path not in files:
                rows, (height, width) = content.rows(row), content.sizes[row].tolist()
                boxes = content.boxes[rows] / (width, height, width, height)
                name = content.file_names[row].decode()
                files[path] = _File(name, content.path(row), [], boxes, names[content.labels[rows]])
            files[path].splits.append(split)
    return list(files.values())


def _repeat_finding(one: _File, other: _File, nested: set[tuple[str, str]], *, equal: bool) -> Finding:
    likeness = "equals" if equal else "looks like"
    leak = _leak(one.splits, other.splits, nested)
    if leak:
        return _leak_finding(one, other, leak, likeness)
    detail = f"{likeness} {one.name} of the same split ({one.splits[0]})"
    code, severity = _REPEATED[equal]
    return Finding(code, severity, other.name, None, detail, "kept", str(other.path), other=str(one.path))


def _one_place(pairs: list[tuple[_File, _File]]) -> Finding:
    """One note for all images that a fixed camera took: each resembles many, and none repeats another."""
    files = {str(file.path): file for pair in pairs for file in pair}
    counts = Counter(file.splits[0] for file in files.values())
    held = ", ".join(f"{count} of {split}" for split, count in counts.items())
    one, other = pairs[0]
    detail = (
        f"{held} show the same place as others, with other content, as {one.name} does: scores say nothing "
        "of another place"
    )
    return Finding(
        "images-of-one-place", "note", other.name, None, detail, "kept", str(other.path), other=str(one.path)
    )


_REPEATED: dict[bool, tuple[str, Severity]] = {
    True: ("image-repeated", "warning"),
    False: ("image-alike", "note"),
}


def _nested(splits: dict[str, Annotations]) -> set[tuple[str, str]]:
    """(outer, inner) of splits where one holds all images of the other."""
    sets = {name: set(paths_of(content)) for name, content in splits.items()}
    return {(outer, inner) for outer, inner in permutations(sets, 2) if sets[inner] <= sets[outer]}


def _leak(one: list[str], other: list[str], nested: set[tuple[str, str]]) -> tuple[str, str] | None:
    """The first two splits that share an image and should not."""
    for first in one:
        for second in other:
            if first != second and (first, second) not in nested and (second, first) not in nested:
                return first, second
    return None


def _leak_finding(one: _File, other: _File, leak: tuple[str, str], likeness: str) -> Finding:
    code = "image-alike-in-two-splits" if likeness == "looks like" else "image-in-two-splits"
    detail = f"in {leak[1]}; {likeness} {one.name} in {leak[0]}: what is scored was trained on"
    return Finding(
        code,
        "warning",
        other.name,
        None,
        detail,
        "kept",
        image=str(other.path),
        other=None if one.path == other.path else str(one.path),
    )


def _pairs(files: list[_File]) -> _Likeness:
    """All files that repeat another or show the same place."""
    scan = scan_images([file.path for file in files])
    usable = np.ones(len(files), dtype=np.bool_)
    usable[list(scan.failures)] = False
    first = equal_groups(scan.digests, usable)
    rows = np.arange(len(files))
    equal = [(files[first[row]], files[row]) for row in np.flatnonzero(first != rows)]
    # Of equal files one stands for all.
    suggested = alike_pairs(scan.hashes, scan.thumbnails, usable & (first == rows))
    looks: dict[int, Look] = {}
    alike: list[tuple[_File, _File]] = []
    one_place: list[tuple[_File, _File]] = []
    for one, other in nearest_pairs(suggested, scan.thumbnails).tolist():
        for row in (one, other):
            if row not in looks:
                looks[row] = Look.of_file(files[row].path, files[row].boxes, files[row].labels)
        same = is_same_image(looks[one], looks[other])
        (alike if same else one_place).append((files[one], files[other]))
    return _Likeness(equal, alike, one_place)


def repeated_rows(annotations: Annotations) -> list[tuple[int, int]]:
    """Pairs of rows whose images are one file, equal, or copies of each other."""
    first: dict[str, int] = {}
    pairs = []
    for row, path in enumerate(paths_of(annotations)):
        if first.setdefault(path, row) != row:
            pairs.append((first[path], row))
    found = _pairs(_files_of({"": annotations}))
    pairs += [(first[str(one.path)], first[str(other.path)]) for one, other in (*found.equal, *found.alike)]
    return pairs

"""What only the whole of a split, or several splits together, can show: broken and repeated images, leaks.

`check.clean` checks boxes and headers; these findings need every image decoded, or another split.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotation_cache import cache_folder
from detect.data.annotations import Annotations
from detect.data.checks.duplicates import alike_pairs, duplicate_boxes, equal_groups, nearest_pairs
from detect.data.checks.findings import Finding, Severity, summarise
from detect.data.checks.headers import plain
from detect.data.checks.scan import scan_images
from detect.data.checks.second_look import Look, is_same_image
from detect.data.splits import OpenedSplit, Role
from detect.errors import InputError
from detect.system.files import write_atomically

VERSION = 4
"""Raised whenever the same data would give other repetitions."""
FEW_BOXES = 20
"""Below it, the average precision of a class says little: one box is more than 5 % of its recall."""
UNBALANCED = 10
"""Times that the commonest class has the boxes of the rarest, from which on sampling is worth a thought."""


def paths_of(annotations: Annotations) -> list[str]:
    """Where each image lies, for comparing images of several splits."""
    return [str(annotations.path(row)) for row in range(len(annotations))]


def without_images(annotations: Annotations, dropped: NDArray[np.bool_]) -> Annotations:
    """The split without the images that `dropped` (N,) marks, and without their boxes."""
    counts = np.diff(annotations.offsets)
    boxes = np.repeat(~dropped, counts)
    kept = ~dropped
    return replace(
        annotations,
        file_names=annotations.file_names[kept],
        image_ids=annotations.image_ids[kept],
        sizes=annotations.sizes[kept],
        offsets=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
        boxes=annotations.boxes[boxes],
        labels=annotations.labels[boxes],
        ignore=annotations.ignore[boxes],
        areas=annotations.areas[boxes],
        annotation_ids=annotations.annotation_ids[boxes],
    )


def drop_undecodable(annotations: Annotations) -> tuple[Annotations, list[Finding]]:
    """Decode every image, or recall that it was decoded; images that cannot be are left out."""
    failures = scan_images([annotations.path(row) for row in range(len(annotations))]).failures
    findings = [
        Finding(
            "image-undecodable",
            "error",
            annotations.file_names[row].decode(),
            None,
            reason,
            "image dropped",
        )
        for row, reason in failures.items()
    ]
    if not failures:
        return annotations, []
    dropped = np.zeros(len(annotations), dtype=np.bool_)
    dropped[list(failures)] = True
    return without_images(annotations, dropped), findings


def without_undecodable(opened: OpenedSplit) -> OpenedSplit:
    """The split without the images that cannot be decoded, which its findings then name.

    Raises:
        InputError: none is left.
    """
    annotations, undecodable = drop_undecodable(opened.annotations)
    findings = [*opened.findings, *undecodable]
    if len(annotations) == 0:
        raise InputError(f"no usable image in {annotations.source}\n{summarise(findings)}")
    return opened._replace(annotations=annotations, findings=findings)


def require_trainable(opened: OpenedSplit, role: Role) -> None:
    """Refuse what no detector can be made of.

    Raises:
        InputError: there are no classes, or nothing to learn in the training split.
    """
    annotations = opened.annotations
    if annotations.classes.num_classes == 0:
        raise InputError(f"{annotations.source} names no classes: a detector needs at least one")
    if role == "train" and not (~annotations.ignore).any():
        raise InputError(
            f"the training split {opened.split} of {annotations.source} has no usable box in "
            f"{len(annotations)} images\n{summarise(opened.findings)}"
        )


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


def repeated_boxes(annotations: Annotations) -> list[Finding]:
    """Boxes that another box of their image and class covers with IoU > 0.95; crowds are not compared."""
    rows = np.flatnonzero(~annotations.ignore)
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    repeats = duplicate_boxes(annotations.boxes[rows], annotations.labels[rows], images[rows])
    findings = []
    for row, other in zip(rows[repeats >= 0], rows[repeats[repeats >= 0]], strict=True):
        x0, y0, x1, y1 = annotations.boxes[row]
        detail = (
            f"{annotations.classes.name(int(annotations.labels[row]))} at xmin {x0:g}, ymin {y0:g}, "
            f"xmax {x1:g}, ymax {y1:g} repeats annotation {plain(annotations.annotation_ids[other])}"
        )
        name = annotations.file_names[images[row]].decode()
        findings.append(
            Finding(
                "box-repeated",
                "warning",
                name,
                plain(annotations.annotation_ids[row]),
                detail,
                "kept",
                image=str(annotations.path(int(images[row]))),
                box=annotations.boxes[row].tolist(),
            )
        )
    return findings


def class_counts(annotations: Annotations) -> NDArray[np.int64]:
    """(K,) boxes of each class, without regions to ignore."""
    labels = annotations.labels[~annotations.ignore]
    return np.bincount(labels, minlength=annotations.classes.num_classes + 1)[1:]


def balance(annotations: Annotations) -> list[Finding]:
    """Images without boxes, rare classes, and the ratio of the commonest class to the rarest."""
    source, classes, counts = str(annotations.source), annotations.classes, class_counts(annotations)
    findings = []
    empty = int((np.diff(annotations.offsets) == 0).sum())
    if empty:
        detail = f"{empty} of {len(annotations)} images have no boxes"
        findings.append(
            Finding("images-without-boxes", "note", source, None, detail, "kept; they train the background")
        )
    rare = [i for i in np.argsort(counts, kind="stable").tolist() if 0 < counts[i] < FEW_BOXES]
    if rare:
        named = ", ".join(f"{classes.names[i]} {counts[i]}" for i in rare[:8]) + ", ..." * (len(rare) > 8)
        detail = f"{len(rare)} of {len(counts)} classes have fewer than {FEW_BOXES} boxes: {named}"
        findings.append(Finding("class-rare", "note", source, None, detail, "kept; expect noisy AP"))
    present = counts[counts > 0]
    if len(present) > 1 and present.max() >= UNBALANCED * present.min():
        most, least = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, counts.max() + 1)))
        detail = (
            f"{counts[most]} boxes of {classes.names[most]}, {counts[least]} of {classes.names[least]}: "
            f"{counts[most] / counts[least]:.0f} to 1"
        )
        findings.append(Finding("classes-unbalanced", "note", source, None, detail, "kept"))
    return findings


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


def compare_classes(train: str, splits: dict[str, Annotations]) -> list[Finding]:
    """Class names of every split against those of the training split, whose order the labels follow."""
    reference = splits[train].classes.names
    trained = Counter(dict(zip(reference, class_counts(splits[train]).tolist(), strict=True)))
    findings = []
    for name, content in splits.items():
        if name == train:
            continue
        source, names = str(content.source), content.classes.names
        present = set(names)
        unknown = [other for other in names if other not in trained]
        if unknown:
            spelt = {other.strip().lower(): other for other in reference}
            hints = [
                f"{o!r} may be {spelt[o.strip().lower()]!r}" for o in unknown if o.strip().lower() in spelt
            ]
            detail = f"{name} has classes that {train} lacks: {', '.join(unknown[:8])}" + "".join(
                f"; {hint}" for hint in hints[:3]
            )
            findings.append(Finding("class-not-trained", "error", source, None, detail, "cannot be scored"))
        elif [other for other in reference if other in present] != list(names):
            detail = f"{name} lists the classes in another order than {train}"
            findings.append(
                Finding("class-order-differs", "note", source, None, detail, "matched by name, not by place")
            )
        counts = dict(zip(names, class_counts(content).tolist(), strict=True))
        absent = [
            other for other, count in counts.items() if count and other in trained and not trained[other]
        ]
        if absent:
            detail = f"{name} has boxes of {', '.join(absent[:8])}, {train} has none"
            findings.append(
                Finding("class-without-training-boxes", "warning", source, None, detail, "kept; AP will be 0")
            )
    return findings

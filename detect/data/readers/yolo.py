"""YOLO folders: `data.yaml`, images below `images/`, and a text file for each below `labels/`.

A line is a class number and the box's centre and size, in fractions of the image; more numbers are a
polygon, whose extent is the box. Crowds are unknown to YOLO: `detect data convert` writes them below
`crowds/`, which other programs do not look at and this reader does.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detect.data.checks.conventions import to_corners
from detect.data.checks.findings import Finding
from detect.data.readers import (
    IMAGE_SUFFIXES,
    RawAnnotations,
    SplitSource,
    byte_array,
    find_rows,
    id_array,
    plain_text,
    read_text_file,
)
from detect.data.readers.data_yaml import DataYaml
from detect.data.readers.tails import FoundImages, Tails
from detect.data.readers.yolo_folder import other_file, read_description, root_of, usual_file
from detect.errors import InputError
from detect.types import ClassMap

NAME = "yolo"
LAYOUT = (
    "data.yaml, obj.data or classes.txt; images/SPLIT/ and labels/SPLIT/, or SPLIT/images/ and SPLIT/labels/"
)
IMAGES, LABELS, CROWDS = "images", "labels", "crowds"
MAX_LABEL_MB = 8.0
MAX_LIST_MB = 256.0
NAN = float("nan")


class Row(NamedTuple):
    """One line of a label file."""

    category: int | str
    numbers: tuple[float, float, float, float]
    """Numbers as written; NaN where the line is not one of YOLO's."""
    line: int | str
    """Its number, from 1."""
    left_out: str = ""
    """What it holds beside a class and a box."""


def recognises(root: Path) -> bool:
    """Whether `root` holds a data.yaml."""
    return usual_file(root) is not None


def recognises_loosely(root: Path) -> bool:
    """Whether a YAML of another name, obj.data or a list of names describes `root`."""
    return other_file(root) is not None


def find_splits(root: Path) -> list[str]:
    """The splits that data.yaml names, sorted; without a test split that does not exist beside others."""
    return sorted(read_description(_description(root)).splits.keys() - _absent(_description(root)))


def locate(root: Path, split: str) -> SplitSource:
    """data.yaml, and the folder of the split's images; `root` where lists or several folders are named.

    Raises:
        InputError: an entry leads out of `root`.
    """
    file = _description(root)
    return SplitSource(file, _folder(file, split), split=split, root=root)


def _folder(file: Path, split: str) -> Path:
    entries = _entries(file, split)
    return entries[0] if len(entries) == 1 and entries[0].suffix != ".txt" else root_of(file)


def _absent(file: Path) -> set[str]:
    """A test split whose folder is not there, where one to validate on is named: Roboflow always names it."""
    splits = read_description(file).splits
    if "test" not in splits or not splits.keys() & {"val", "valid"}:
        return set()
    try:
        return {"test"} - {"test" for entry in _entries(file, "test") if entry.exists()}
    except InputError:
        return {"test"}


def watched(source: SplitSource) -> list[Path]:
    """data.yaml, the lists, and the label files of all images, those too that do not exist yet."""
    lists = [entry for entry in _split_entries(source) if entry.suffix == ".txt"]
    label_files = [_beside(source, name, LABELS) for name in _image_names(source)]
    return [source.annotations, *lists, *label_files]


def read(source: SplitSource) -> RawAnnotations:
    """Read the label file of every image of the split.

    Raises:
        InputError: data.yaml is not readable, an entry leads out of the folder, or there are no images.
    """
    content = read_description(source.annotations)
    classes = content.names
    notes = _notes_of_paths(source)
    names: list[str] = []
    unread: list[tuple[str, str]] = []
    objects: list[list[Row]] = []
    ignored: list[int] = []
    for name in _image_names(source, notes):
        label_file = _beside(source, name, LABELS)
        try:
            rows = _read_rows(label_file, content.keypoints)
            crowds = _read_rows(_beside(source, name, CROWDS), content.keypoints)
        except InputError as error:
            unread.append((str(label_file), str(error)))
            continue
        names.append(name)
        objects.append(rows + [row._replace(line=f"crowd {row.line}") for row in crowds])
        ignored.append(len(crowds))
    try:
        class_map = ClassMap(tuple(classes.values()), tuple(classes))
    except InputError as error:
        raise InputError(f"{source.annotations}: {error}") from error
    notes += _notes_of_lines(source, content, [row for rows in objects for row in rows])
    raw = _flatten(source, names, objects, ignored, classes=class_map, unread=tuple(unread))
    return replace(raw, notes=tuple(notes))


def _notes_of_paths(source: SplitSource) -> list[Finding]:
    """Paths of data.yaml that are not as it says."""
    file, notes = source.annotations, []
    content = read_description(file)
    for split in sorted(_absent(file)):
        detail = f"{file.name} names {split}: {content.splits[split][0]}, which does not exist"
        notes.append(Finding("split-absent", "note", str(file), None, detail, "left out"))
    for entry in content.splits.get(source.split or "", []):
        moved = _moved(file, content.path, entry)
        if moved is not None:
            detail = f"{source.split}: was found by the end of its path: {entry!r} -> {str(moved)!r}"
            notes.append(Finding("path-found-by-end", "note", str(file), None, detail, "read from there"))
    return notes


def _notes_of_lines(source: SplitSource, content: DataYaml, rows: list[Row]) -> list[Finding]:
    """What the lines hold beside boxes, and numbers of classes that do not go with the names."""
    file, names = str(source.annotations), content.names
    notes = [
        Finding("line-longer", "note", file, None, f"{count} lines have {what}", "left out; the box is read")
        for what, count in sorted(Counter(row.left_out for row in rows if row.left_out).items())
    ]
    if content.class_count and content.class_count != str(len(names)):
        detail = f"nc is {plain_text(content.class_count)} and {len(names)} classes are named"
        notes.append(Finding("class-count-differs", "warning", file, None, detail, "the names are taken"))
    used = Counter(row.category for row in rows)
    last = len(names)
    if list(names) == list(range(last)) and used[last] and not used[0]:
        detail = (
            f"{used[last]} boxes have class {last} and none has class 0: the files seem to count classes "
            f"from 1, so that every box has the name of the next class. Write names as {{1: {names[0]}, ...}}"
        )
        notes.append(Finding("classes-from-one", "warning", file, None, detail, "read as counted from 0"))
    return notes


def _flatten(
    source: SplitSource,
    names: list[str],
    objects: list[list[Row]],
    ignored: list[int],
    *,
    classes: ClassMap,
    unread: tuple[tuple[str, str], ...],
) -> RawAnnotations:
    counts = [len(rows) for rows in objects]
    image_rows = np.repeat(np.arange(len(names), dtype=np.int64), counts)
    flat = [row for rows in objects for row in rows]
    numbers = np.array([row.numbers for row in flat], dtype=np.float64).reshape(len(flat), 4)
    categories = id_array([row.category for row in flat])
    convention = source.convention or "cxcywh_normalised"
    ids = byte_array(names)
    # Crowds stand last in their image.
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    ignore = place >= np.repeat(np.array(counts, dtype=np.int64) - ignored, counts)
    return RawAnnotations(
        source=source,
        classes=classes,
        file_names=ids,
        annotation_files=byte_array([str(_beside(source, name, LABELS)) for name in names]),
        image_ids=ids,
        sizes=np.zeros((len(names), 2), dtype=np.int32),
        image_rows=image_rows,
        box_image_ids=ids[image_rows],
        boxes=to_corners(numbers, convention),
        labels=find_rows(categories, id_array(list(classes.category_ids))) + 1,
        box_category_ids=categories,
        ignore=ignore,
        areas=np.full(len(flat), np.nan),
        annotation_ids=id_array([row.line for row in flat]),
        convention=convention,
        file_per_image=True,
        unread=unread,
    )


def _read_rows(path: Path, keypoints: int) -> list[Row]:
    """The lines of a label file; an image without one has no boxes."""
    if not os.path.lexists(path):
        return []
    lines = read_text_file(path, limit_mb=MAX_LABEL_MB).splitlines()
    return [_row(line.split(), number, keypoints) for number, line in enumerate(lines, 1) if line.strip()]


def _row(words: list[str], line: int, keypoints: int) -> Row:
    """One line; beside a box, tools write a confidence or a track, keypoints, or the corners of a polygon."""
    category: int | str = words[0]
    values = [_number(word) for word in words]
    if values[0].is_integer():
        category = int(values[0])
    box, rest = values[1:5], values[5:]
    if len(box) < 4:
        return Row(category, (NAN, NAN, NAN, NAN), line)
    if not rest:
        return Row(category, (box[0], box[1], box[2], box[3]), line)
    if len(rest) == 1:
        left_out = "a sixth number (a confidence or a track)"
    elif _are_keypoints(rest, keypoints):
        left_out = "keypoints"
    else:
        points = values[1:] if len(values) % 2 else values[1:-1]
        x, y = points[::2], points[1::2]
        x0, y0, x1, y1 = min(x), min(y), max(x), max(y)
        box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        left_out = "four corners (a rotated box)" if len(points) == 8 else "a polygon"
        if len(values) % 2 == 0:
            left_out += " and a confidence"
    return Row(category, (box[0], box[1], box[2], box[3]), line, left_out)


def _are_keypoints(rest: list[float], keypoints: int) -> bool:
    """By `kpt_shape`, with a confidence or without; else where every third number is a visibility, 0 to 2."""
    if keypoints:
        return len(rest) in (keypoints, keypoints + 1)
    return len(rest) % 3 == 0 and all(value in (0.0, 1.0, 2.0) for value in rest[2::3])


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return NAN


def _image_names(source: SplitSource, notes: list[Finding] | None = None) -> list[str]:
    """Paths below `source.images` of all images of the split, sorted; says how those of lists were found.

    Raises:
        InputError: there are none.
    """
    found: list[str] = []
    for entry in _split_entries(source):
        if entry.suffix != ".txt":
            found += [os.path.relpath(path, source.images) for path in _below(entry)]
            continue
        listed = FoundImages(root_of(source.annotations), Tails(root_of(source.annotations)))
        found += listed.find_all(_listed(entry, root_of(source.annotations)))[1]
        if notes is not None:
            notes += listed.notes(entry)
    names = sorted(set(found))
    if not names:
        raise InputError(
            f"{source.annotations}: the split {source.split!r} has no images in {source.images}"
            f"{_other_kinds(source.images)}"
        )
    return names


def _other_kinds(folder: Path) -> str:
    """Which files are there instead of images, counted."""
    kinds = Counter(Path(name).suffix.lower() for _, _, names in os.walk(folder) for name in names)
    text = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common(5))
    return f"; expected {', '.join(IMAGE_SUFFIXES[:5])} or the like, found {text}" if text else ""


def _split_entries(source: SplitSource) -> list[Path]:
    """Where the split's images are: what data.yaml says, or the folder that was given instead."""
    assert source.split is not None
    named = _folder(source.annotations, source.split)
    if os.path.abspath(source.images) != os.path.abspath(named):
        return [source.images]
    return _entries(source.annotations, source.split)


def _below(folder: Path) -> list[Path]:
    """The images below `folder`; folders that are links are not entered, for they may lead in circles."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
    ]


def _listed(path: Path, root: Path) -> list[str]:
    """The images of a list, from `root` on; relative paths start from the list's folder."""
    lines = (line.strip() for line in read_text_file(path, limit_mb=MAX_LIST_MB).splitlines())
    start = path.parent
    return [
        os.path.relpath(start / line, root) if (start / line).is_file() else os.path.normpath(line)
        for line in lines
        if line
    ]


def _beside(source: SplitSource, name: str, kind: str) -> Path:
    """The text file of image `name`: `labels` in place of the last `images` in its path, else beside it."""
    root = _root(source)
    path = Path(os.path.abspath(source.images / name))
    inside = path != root and path.is_relative_to(root)
    parts = list((path.relative_to(root) if inside else path).parts)
    parts[-1] = os.path.splitext(parts[-1])[0] + ".txt"
    folders = [place for place, part in enumerate(parts[:-1]) if part == IMAGES]
    if folders:
        parts[folders[-1]] = kind
    elif kind == CROWDS:  # a label file beside its image has no place for another
        parts.insert(len(parts) - 1, CROWDS)
    return root.joinpath(*parts) if inside else Path(*parts)


def _root(source: SplitSource) -> Path:
    return root_of(source.annotations)


def _description(root: Path) -> Path:
    """By its absolute path: what leads out of a folder cannot be told from relative ones."""
    return Path(os.path.abspath(usual_file(root) or other_file(root) or root / "data.yaml"))


def _entries(file: Path, split: str) -> list[Path]:
    """Folders and lists of `split`.

    Raises:
        InputError: an entry leads out of the folder, or there is no such split.
    """
    content = read_description(file)
    if split not in content.splits:
        raise InputError(f"{file} has no split {split!r}; it has {', '.join(content.splits) or 'none'}")
    return [_resolve(file, content.path, entry) for entry in content.splits[split]]


def _inside(file: Path, start: str, entry: str) -> list[Path]:
    """Where an entry may be below `path` or the file's folder; Roboflow names it one level too high."""
    root = root_of(file)
    candidates = [root / start / entry, root / entry, root / entry.removeprefix("../")]
    return [Path(path) for path in map(os.path.normpath, candidates) if Path(path).is_relative_to(root)]


def _moved(file: Path, start: str, entry: str) -> Path | None:
    """The one folder or list that ends as an entry does which does not exist; None where it does."""
    if any(map(os.path.exists, _inside(file, start, entry))):
        return None
    tails = Tails(root_of(file))
    found = tails.file(entry) if entry.endswith(".txt") else tails.folder(entry)
    return Path(found[0]) if len(found) == 1 else None


def _resolve(file: Path, start: str, entry: str) -> Path:
    root, inside = root_of(file), _inside(file, start, entry)
    for path in inside:
        if os.path.exists(path):
            return path
    moved = _moved(file, start, entry)
    if moved is not None:
        return root / moved
    if not inside:
        raise InputError(
            f"{file}: {entry!r} leads out of {root}, and no folder of images there ends so; move the images "
            "below that folder, or link them there"
        )
    return inside[0]

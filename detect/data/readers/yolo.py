"""YOLO folders: `data.yaml`, images below `images/`, and a text file for each below `labels/`.

A line is a class number and the box's centre and size, in fractions of the image; more numbers are a
polygon, whose extent is the box. Crowds are unknown to YOLO: `detect data convert` writes them below
`crowds/`, which other programs do not look at and this reader does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detect.data.checks.conventions import to_corners
from detect.data.readers import (
    IMAGE_SUFFIXES,
    RawAnnotations,
    SplitSource,
    byte_array,
    find_rows,
    id_array,
    read_text_file,
)
from detect.data.readers.data_yaml import read_data_yaml
from detect.errors import InputError
from detect.types import ClassMap

NAME = "yolo"
LAYOUT = "data.yaml; images/SPLIT/ and labels/SPLIT/, or SPLIT/images/ and SPLIT/labels/"
YAML_FILES = ("data.yaml", "data.yml")
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


def recognises(root: Path) -> bool:
    """Whether `root` holds a data.yaml."""
    return any((root / name).is_file() for name in YAML_FILES)


def find_splits(root: Path) -> list[str]:
    """The splits that data.yaml names, sorted."""
    return sorted(read_data_yaml(_yaml_file(root)).splits)


def locate(root: Path, split: str) -> SplitSource:
    """data.yaml, and the folder of the split's images; `root` where lists or several folders are named.

    Raises:
        InputError: an entry leads out of `root`.
    """
    entries = _entries(_yaml_file(root), split)
    folder = entries[0] if len(entries) == 1 and entries[0].suffix != ".txt" else root
    return SplitSource(_yaml_file(root), folder, split=split)


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
    classes = read_data_yaml(source.annotations).names
    names: list[str] = []
    unread: list[tuple[str, str]] = []
    objects: list[list[Row]] = []
    ignored: list[int] = []
    for name in _image_names(source):
        label_file = _beside(source, name, LABELS)
        try:
            rows = _read_rows(label_file)
            crowds = _read_rows(_beside(source, name, CROWDS))
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
    return _flatten(source, names, objects, ignored, classes=class_map, unread=tuple(unread))


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


def _read_rows(path: Path) -> list[Row]:
    """The lines of a label file; an image without one has no boxes."""
    if not os.path.lexists(path):
        return []
    lines = read_text_file(path, limit_mb=MAX_LABEL_MB).splitlines()
    return [_row(line.split(), number) for number, line in enumerate(lines, 1) if line.strip()]


def _row(words: list[str], line: int) -> Row:
    category: int | str = words[0]
    values = [_number(word) for word in words]
    if values[0].is_integer():
        category = int(values[0])
    if len(values) == 5:
        return Row(category, (values[1], values[2], values[3], values[4]), line)
    if len(values) >= 7 and len(values) % 2:
        x, y = values[1::2], values[2::2]
        x0, y0, x1, y1 = min(x), min(y), max(x), max(y)
        return Row(category, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), line)
    return Row(category, (NAN, NAN, NAN, NAN), line)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return NAN


def _image_names(source: SplitSource) -> list[str]:
    """Paths below `source.images` of all images of the split, sorted.

    Raises:
        InputError: there are none.
    """
    found: list[Path] = []
    for entry in _split_entries(source):
        found += _listed(entry) if entry.suffix == ".txt" else _below(entry)
    names = sorted({os.path.relpath(path, source.images) for path in found})
    if not names:
        raise InputError(f"{source.annotations}: the split {source.split!r} has no images in {source.images}")
    return names


def _split_entries(source: SplitSource) -> list[Path]:
    """Where the split's images are: what data.yaml says, or the folder that was given instead."""
    assert source.split is not None
    named = locate(_root(source), source.split).images
    if os.path.abspath(source.images) != str(named):
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


def _listed(path: Path) -> list[Path]:
    """The images of a list; relative paths start from the list's folder."""
    lines = read_text_file(path, limit_mb=MAX_LIST_MB).splitlines()
    return [path.parent / line.strip() for line in lines if line.strip()]


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
    return Path(os.path.abspath(source.annotations)).parent


def _yaml_file(root: Path) -> Path:
    """By its absolute path: what leads out of a folder cannot be told from relative ones."""
    files = [Path(os.path.abspath(root / name)) for name in YAML_FILES]
    return next((file for file in files if file.is_file()), files[0])


def _entries(yaml_file: Path, split: str) -> list[Path]:
    """Folders and lists of `split`.

    Raises:
        InputError: an entry leads out of the folder, or there is no such split.
    """
    content = read_data_yaml(yaml_file)
    if split not in content.splits:
        raise InputError(f"{yaml_file} has no split {split!r}; it has {', '.join(content.splits) or 'none'}")
    return [_resolve(yaml_file, content.path, entry) for entry in content.splits[split]]


def _resolve(yaml_file: Path, start: str, entry: str) -> Path:
    """An entry below `path` or the file's folder; exports of Roboflow name them one level too high."""
    root = Path(os.path.abspath(yaml_file)).parent
    candidates = [root / start / entry, root / entry, root / entry.removeprefix("../")]
    inside = [path for path in map(os.path.normpath, candidates) if Path(path).is_relative_to(root)]
    for path in inside:
        if os.path.exists(path):
            return Path(path)
    if not inside:
        raise InputError(
            f"{yaml_file}: {entry!r} leads out of {root}; move the images below that folder, "
            "or link them there"
        )
    return Path(inside[0])

"""`data.yaml` of a YOLO folder, read as plain text values: no tags, no aliases, no deep nesting.

A general YAML loader turns `no` into False, follows aliases that grow without bound, and recurses as deep as
the file says. What stands in a data.yaml is a mapping of words, numbers and lists of them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml

from detect.data.readers import plain_text, read_text_file
from detect.errors import InputError

MAX_YAML_MB = 0.25
"""Room for 10,000 class names."""
MAX_DEPTH = 4
SPLIT_KEYS = ("train", "val", "valid", "test")
OTHER_KEYS = ("names", "nc", "path", "download", "kpt_shape")
SPLIT_NAME = re.compile(r"\w[\w.-]*")
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Plain = str | list["Plain"] | dict[str, "Plain"]


class DataYaml(NamedTuple):
    """What a data.yaml says."""

    names: dict[int, str]
    """Class numbers, mostly 0..K-1, to names."""
    splits: dict[str, list[str]]
    """The entries of each split as written: folders, or lists of images."""
    path: str
    """Where the entries start from, as written; "" where it does not say."""
    class_count: str = ""
    """The number of classes (`nc`), as written; "" where it does not say."""
    keypoints: int = 0
    """Numbers that each line has after its box, by `kpt_shape`."""


def read_data_yaml(path: Path) -> DataYaml:
    """Read names and splits: the usual ones, and other keys that name something which exists.

    Raises:
        InputError: not readable as such; names the file and the place.
    """
    content, names = _parse(path, _stamp(path))
    splits = {}
    for key in SPLIT_KEYS:
        entries = content.get(key, "")
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{path}: {key!r} must be a folder, a list of images, or several of them")
        if any(entries):
            splits[key] = [str(entry) for entry in entries if entry]
    for key, value in content.items():
        other = key not in (*SPLIT_KEYS, *OTHER_KEYS) and SPLIT_NAME.fullmatch(key)
        if other and isinstance(value, str) and value and os.path.exists(path.parent / value):
            splits[key] = [value]
    start, count, shape = content.get("path", ""), content.get("nc", ""), content.get("kpt_shape", [])
    keypoints = 0
    if isinstance(shape, list) and all(isinstance(n, str) and n.isdigit() and len(n) < 5 for n in shape):
        keypoints = math.prod(int(str(n)) for n in shape) if len(shape) == 2 else 0
    return DataYaml(
        names,
        splits,
        start if isinstance(start, str) else "",
        count if isinstance(count, str) else "",
        keypoints,
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file does; empty where it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _parse(path: Path, stamp: tuple[int, ...]) -> tuple[dict[str, Plain], dict[int, str]]:
    """The whole mapping and its names; the reader comes back to the same file a dozen times."""
    content = _load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping; expected names, train and val")
    return content, _names(content, path)


def _names(content: dict[str, Plain], path: Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path}: 'names' must list the classes, as [cat, dog] or {{0: cat, 1: dog}}")
    numbered = {}
    for number, name in names.items():
        if not isinstance(name, str) or not number.isascii() or not number.isdigit() or len(number) > 9:
            raise InputError(f"{path}: 'names' has the entry {plain_text(number)!r}; expected 0: name")
        numbered[int(number)] = plain_text(name)
    return dict(sorted(numbered.items()))


def _load(path: Path) -> Plain:
    text = read_text_file(path, limit_mb=MAX_YAML_MB)
    try:
        return _value(text, path)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        # The parser reads ahead and, since PyYAML 6.0.4, limits nesting itself: it may stop before the events
        # of what stands above are out. Read alone, that part says whether our limit comes first.
        place = getattr(error, "problem_mark", None)
        if place is not None:
            with suppress(yaml.YAMLError):
                _value(text[: place.index], path)
        raise InputError(f"cannot read {path} as YAML: {error}") from error


def _value(text: str, path: Path) -> Plain:
    events = filter(lambda event: isinstance(event, yaml.NodeEvent | End), yaml.parse(text, LOADER))
    first = next(events, None)
    if first is None:
        raise InputError(f"{path} is empty")
    return _build(first, events, path, depth=0)


End = yaml.SequenceEndEvent | yaml.MappingEndEvent


def _build(event: yaml.Event, events: Iterator[yaml.Event], path: Path, *, depth: int) -> Plain:
    """The value that starts with `event`; takes its events from `events`."""
    if isinstance(event, yaml.ScalarEvent):
        return str(event.value)
    place = f"{path}, line {event.start_mark.line + 1}"
    if isinstance(event, yaml.AliasEvent):
        raise InputError(f"{place}: aliases (*{plain_text(event.anchor)}) are not read; write the value out")
    if depth == MAX_DEPTH:
        raise InputError(f"{place}: nested more than {MAX_DEPTH} deep")
    values = []
    while not isinstance(event := next(events), End):
        values.append(_build(event, events, path, depth=depth + 1))
    if isinstance(event, yaml.SequenceEndEvent):
        return values
    keys = [key if isinstance(key, str) else plain_text(key) for key in values[::2]]
    return dict(zip(keys, values[1::2], strict=True))

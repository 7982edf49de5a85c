"""Parsed annotations on the disk, memory-mapped: opening a large split again takes a fraction of a second.

An entry is a folder of `.npy` files and a `KEY.json` that names it. The JSON is written last and replaced
as a whole, so that two runs which build the same entry at once do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.annotations import Annotations
from detect.data.checks.findings import Finding
from detect.types import ClassMap

VERSION = 5
"""Raised whenever the readers or the check come to another result for the same files."""
ARRAYS = [field.name for field in fields(Annotations) if field.name not in ("root", "source", "classes")]


def cache_folder() -> Path:
    """`$DETECT_CACHE`, else `~/.cache/detect`."""
    return Path(os.environ.get("DETECT_CACHE") or Path.home() / ".cache" / "detect")


def load(key: list[str]) -> tuple[Annotations, list[Finding]] | None:
    """The entry of `key`, its arrays memory-mapped read-only; None where there is none or it is stale."""
    try:
        entry = json.loads(_index_file(key).read_text(encoding="utf-8"))
        if entry["key"] != key or entry["stamps"] != _stamps(list(entry["stamps"])):
            return None
        folder = cache_folder() / "annotations" / entry["folder"]
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
    except (OSError, ValueError, KeyError):
        return None  # absent, half removed by the user, or of another version: built again
    annotations = Annotations(
        root=Path(entry["root"]),
        source=Path(entry["source"]),
        classes=ClassMap.from_list(entry["classes"]),
        **arrays,
    )
    return annotations, [Finding(**finding) for finding in entry["findings"]]


def save(key: list[str], watched: list[Path], annotations: Annotations, findings: list[Finding]) -> None:
    """Write the entry of `key`; it holds until one of the `watched` files changes size or time.

    Where the cache cannot be written, a warning says so and the next opening reads the files again.
    """
    index = _index_file(key)
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{index.stem}-", dir=index.parent))
        try:
            _write_entry(index, folder, key, watched, annotations, findings)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        warnings.warn(f"parsed annotations are not kept: {error}; set DETECT_CACHE to a folder", stacklevel=2)


def _write_entry(
    index: Path,
    folder: Path,
    key: list[str],
    watched: list[Path],
    annotations: Annotations,
    findings: list[Finding],
) -> None:
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(annotations, name))
    entry: dict[str, Any] = {
        "key": key,
        "stamps": _stamps([str(path) for path in watched]),
        "folder": folder.name,
        "root": str(annotations.root),
        "source": str(annotations.source),
        "classes": annotations.classes.to_list(),
        "findings": [asdict(finding) for finding in findings],
    }
    replaced = _folder_of(index)
    temporary = folder / "index.json"
    temporary.write_text(json.dumps(entry), encoding="utf-8")
    os.replace(temporary, index)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _index_file(key: list[str]) -> Path:
    text = json.dumps([VERSION, *key])
    return cache_folder() / "annotations" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _folder_of(index: Path) -> Path | None:
    try:
        return index.parent / json.loads(index.read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError):
        return None


def _stamps(paths: list[str]) -> dict[str, list[int]]:
    """Size and time of each file; a file that does not exist has the stamp [-1, -1]."""
    stamps = {}
    for path in paths:
        try:
            status = os.stat(path)
            stamps[path] = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamps[path] = [-1, -1]
    return stamps

"""Finds what a file names by a path of another machine: by the longest tail of the path that exists here.

Labelling tools write paths of Windows, `/content/set/images/train` or `data/images/train/x.jpg`. What is
found lies inside the data set's folder, whatever the path says.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from detect.data.checks.findings import Finding
from detect.data.readers import IMAGE_SUFFIXES

SPLIT_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "train2017", "val2017", "test2017")
)
MAX_ENTRIES = 2_000_000
"""Files of a folder that are looked at; a data set has fewer, a whole disk has more."""


class Tails:
    """The files and folders below `root`, to be found by the end of a path.

    Links to what lies outside are left out, and folders that are links are not entered.

    Args:
        root: the data set's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))

    @cached_property
    def _entries(self) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
        files: list[PurePosixPath] = []
        folders: list[PurePosixPath] = []
        home = os.path.realpath(self.root)
        for parent, names, file_names in os.walk(self.root):
            names[:] = sorted(name for name in names if not name.startswith("."))
            below = PurePosixPath(os.path.relpath(parent, self.root))
            folders += [below / name for name in names if not os.path.islink(os.path.join(parent, name))]
            for name in sorted(file_names):
                path = os.path.join(parent, name)
                if not os.path.islink(path) or os.path.realpath(path).startswith(home + os.sep):
                    files.append(below / name)
            if len(files) > MAX_ENTRIES:
                break
        return files, folders

    @property
    def files(self) -> list[PurePosixPath]:
        """All files, from `root` on, in the order of their names within each folder."""
        return self._entries[0]

    @cached_property
    def _by_stem(self) -> dict[str, list[PurePosixPath]]:
        grouped = defaultdict(list)
        for path in self.files:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                grouped[path.stem.casefold()].append(path)
        return grouped

    @cached_property
    def _folders_by_name(self) -> dict[str, list[PurePosixPath]]:
        holding = {parent for path in self.files if _is_image(path) for parent in path.parents}
        grouped = defaultdict(list)
        for path in self._entries[1]:
            if path in holding:
                grouped[path.name].append(path)
        return grouped

    @cached_property
    def _files_by_name(self) -> dict[str, list[PurePosixPath]]:
        grouped = defaultdict(list)
        for path in self.files:
            grouped[path.name].append(path)
        return grouped

    def image(self, written: str, *, near: PurePosixPath | None = None) -> list[PurePosixPath]:
        """The images that `written` may name, from `root` on: none, one, or several that are equally like it.

        Where none has its very name, one that differs in the case or the suffix is taken.

        Args:
            written: a path in the manner of any system.
            near: of several, those with the most folders in common with this one are taken.
        """
        parts = _parts(written)
        if not parts:
            return []
        like = self._by_stem.get(PurePosixPath(parts[-1]).stem.casefold(), [])
        exact = _longest_tail(parts, [path for path in like if path.name == parts[-1]], near)
        if exact or PurePosixPath(parts[-1]).suffix.lower() not in ("", *IMAGE_SUFFIXES):
            return exact
        return _longest_tail(parts[:-1], like, near, last=1)

    def folder(self, written: str) -> list[PurePosixPath]:
        """As `image`, for a folder that holds images, at any depth."""
        parts = _parts(written)
        return _longest_tail(parts, self._folders_by_name.get(parts[-1], []), None) if parts else []

    def file(self, written: str) -> list[PurePosixPath]:
        """As `image`, for a file of any kind by its very name."""
        parts = _parts(written)
        return _longest_tail(parts, self._files_by_name.get(parts[-1], []), None) if parts else []


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _parts(written: str) -> list[str]:
    """The names of a path of any system, without drive, root, "." and ".."."""
    plain = re.sub(r"^[A-Za-z]:", "", written.replace("\\", "/"))
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def _longest_tail(
    parts: list[str], candidates: list[PurePosixPath], near: PurePosixPath | None, *, last: int = 0
) -> list[PurePosixPath]:
    """Those of `candidates` that share the most names with the end of `parts`, and of these the nearest.

    None lies in a folder of another split (see `SPLIT_FOLDERS`) that `parts` does not name.

    Args:
        parts: the names of the path that is looked for.
        candidates: paths, from the root on.
        near: a folder; see `Tails.image`.
        last: names at the end of each candidate that are not compared.
    """
    own = {part.lower() for part in (*parts, *(near.parts if near else ()))}
    ranked: defaultdict[tuple[int, int], list[PurePosixPath]] = defaultdict(list)
    for path in candidates:
        names = path.parts[: len(path.parts) - last]
        strange = {name.lower() for name in path.parts[:-1]} & SPLIT_FOLDERS - own
        if not strange:
            common = _common(names[::-1], tuple(parts[::-1]))
            ranked[common, _common(path.parts[:-1], near.parts) if near else 0].append(path)
    return ranked[max(ranked)] if ranked else []


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Number of names with which both begin."""
    equal = [a == b for a, b in zip(one, other, strict=False)]
    return [*equal, False].index(False)


class FoundImages:
    """The image files that a split's annotations name, and the note on how they were found.

    Args:
        folder: the folder that the names should start from.
        tails: the data set's folder.
    """

    def __init__(self, folder: Path, tails: Tails) -> None:
        self.folder = folder
        self.tails = tails
        self._present = _names_in(folder)
        self._moved: list[tuple[str, str]] = []
        self._unclear: list[tuple[str, list[PurePosixPath]]] = []

    def find_all(self, written: list[str]) -> tuple[Path, list[str]]:
        """The folder that the names start from now, and the name of each; as written where none is found."""
        names = [name if self._is_there(name) else self._find(name) for name in written]
        moved = [isinstance(name, PurePosixPath) for name in names]
        if not any(moved):
            return self.folder, [str(name) for name in names]
        folder = self.tails.root
        inside = os.path.relpath(os.path.abspath(self.folder), folder)
        names = [
            name
            if isinstance(name, PurePosixPath) or not self._is_there(name)
            else os.path.join(inside, name)
            for name in names
        ]
        return folder, [os.path.normpath(name) if name else "" for name in map(str, names)]

    def _is_there(self, name: str) -> bool:
        if name in self._present:
            return True
        if not name or os.path.isabs(name) or os.path.normpath(name).startswith(".."):
            return False
        return ("/" in name) and os.path.lexists(self.folder / name)

    def _find(self, written: str) -> str | PurePosixPath:
        near = PurePosixPath(os.path.relpath(os.path.abspath(self.folder), self.tails.root))
        found = self.tails.image(written, near=near)
        if len(found) == 1:
            self._moved.append((written, str(found[0])))
            return found[0]
        if found:
            self._unclear.append((written, found))
        return written

    def notes(self, source: Path) -> list[Finding]:
        """How images were found whose path is another than the one written."""
        notes = []
        if self._moved:
            written, found = next(((a, b) for a, b in self._moved if a != b), self._moved[0])
            detail = (
                f"{len(self._moved)} images were found by the end of their path: {written!r} -> {found!r}"
            )
            notes.append(Finding("path-found-by-end", "note", str(source), None, detail, "read from there"))
        if self._unclear:
            written, several = self._unclear[0]
            detail = (
                f"{len(self._unclear)} images could be any of several files: {written!r} may be "
                + " or ".join(repr(str(path)) for path in several[:3])
            )
            notes.append(Finding("path-unclear", "warning", str(source), None, detail, "not guessed"))
        return notes


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()

"""Which files `detect predict` reads, and the names of what it writes."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from detect.data.readers import IMAGE_SUFFIXES
from detect.deploy.label_files import WRITERS, LabelFormat
from detect.deploy.video_sources import VIDEO_SUFFIXES
from detect.errors import InputError

SUFFIXES = frozenset(IMAGE_SUFFIXES)
RUN_SIGNS = ("config.yaml", "manifest.json", "checkpoints")
"""What a run folder has and a folder of predictions has not."""


def find_images(sources: list[str], *, recursive: bool = True) -> list[Path]:
    """Files, folders and globs to a sorted list of image files, each once.

    Args:
        sources: paths and globs.
        recursive: folders are searched to the bottom; else only what lies in them.

    Raises:
        InputError: a source names nothing, or no image is among them.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            below = path.rglob("*") if recursive else path.glob("*")
            matches = sorted(p for p in below if p.suffix.lower() in SUFFIXES and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(p for p in map(Path, glob.glob(source, recursive=True)) if p.is_file())
        if not matches:
            hint = ""
            if path.is_dir() and any(p.suffix.lower() in VIDEO_SUFFIXES for p in path.iterdir()):
                hint = f"; videos are named by themselves or by a glob, such as {path / '*.mp4'}"
            raise InputError(
                f"--source {source}: no image there (looked for {', '.join(sorted(SUFFIXES))}){hint}"
            )
        found |= dict.fromkeys(matches)
    return list(found)


def common_folder(files: list[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([file.resolve().parent for file in files]))


def output_names(files: list[Path], *, suffix: str | None = None) -> dict[Path, str]:
    """A name of its own for every drawn image: the file's, numbered where two would collide.

    Args:
        files: the sources.
        suffix: of the names; null: .png for PNGs, else .jpg.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        ending = suffix or (".png" if file.suffix.lower() == ".png" else ".jpg")
        stem, number = file.stem, 2
        while stem in taken:
            stem, number = f"{file.stem}-{number}", number + 1
        taken.add(stem)
        names[file] = stem + ending
    return names


def refuse_overwriting(output: Path, names: dict[Path, str], format: LabelFormat | None) -> None:
    """Stop before anything would replace a source, or what no earlier prediction wrote.

    Raises:
        InputError: names the file.
    """
    sources = {file.resolve(): file for file in names}
    for name in names.values():
        if (source := sources.get((output / name).resolve())) is not None:
            raise InputError(f"--out {output}: would overwrite the source {source}; choose another folder")
    if any((output / name).exists() for name in RUN_SIGNS):
        raise InputError(
            f"--out {output} is a run, whose own detections.json would be replaced; choose another "
            f"folder, such as {output / 'predictions'}"
        )
    if (output / "detections.json").exists():
        return  # results of an earlier prediction, which this one replaces
    labels = WRITERS[format].places if format is not None else ()
    for name in (*names.values(), *labels):
        if (output / name).exists():
            raise InputError(f"--out {output}: {name} exists there; choose an empty folder")

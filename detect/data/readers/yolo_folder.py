"""What describes a YOLO folder: a YAML file of any name, Darknet's obj.data (CVAT's YOLO 1.1), or names.

Label Studio and LabelImg write `classes.txt` beside `images/` and `labels/`, or among the label files, and
say nothing of splits.
"""

from __future__ import annotations

import os
from pathlib import Path

from detect.data.readers import IMAGE_SUFFIXES, UNDIVIDED, plain_text, read_text_file
from detect.data.readers.data_yaml import DataYaml, read_data_yaml
from detect.data.readers.tails import SPLIT_FOLDERS, Tails
from detect.errors import InputError

YAML_FILES = ("data.yaml", "data.yml")
DARKNET_FILE = "obj.data"
NAMES_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "images/classes.txt")
MAX_NAMES_MB = 0.25


def usual_file(root: Path) -> Path | None:
    """The data.yaml of `root`."""
    return next((root / name for name in YAML_FILES if (root / name).is_file()), None)


def other_file(root: Path) -> Path | None:
    """What else may describe a YOLO folder.

    Raises:
        InputError: several YAML files do.
    """
    described = [path for path in sorted(root.glob("*.y*ml")) if _is_description(path)]
    if len(described) > 1:
        raise InputError(
            f"{root} has several YAML files with names and splits: {', '.join(p.name for p in described)}; "
            "expected one, or data.yaml. Name one with --data.train_annotations and --data.val_annotations"
        )
    if described:
        return described[0]
    if (root / DARKNET_FILE).is_file():
        return root / DARKNET_FILE
    names = next((root / name for name in NAMES_FILES if (root / name).is_file()), None)
    return names if names is not None and _has_label(root) else None


def root_of(description: Path) -> Path:
    """The folder that paths start from and may not lead out of."""
    path = Path(os.path.abspath(description))
    beside = path.name == "classes.txt" and path.parent.name in ("labels", "images")
    return path.parent.parent if beside else path.parent


def read_description(path: Path) -> DataYaml:
    """Names and splits.

    Raises:
        InputError: not readable as such; names the file and the place.
    """
    if path.suffix in (".yaml", ".yml"):
        return read_data_yaml(path)
    root = root_of(path)
    if path.suffix == ".data":
        lines = (line.split("=", 1) for line in _lines(path) if "=" in line)
        values = {key.strip(): value.strip() for key, value in lines}
        found = Tails(root).file(values.get("names", "obj.names"))
        if len(found) != 1:
            raise InputError(
                f"{path} names its classes in {values.get('names', 'obj.names')!r}: no such file"
            )
        splits = {key: [values[key]] for key in ("train", "valid", "test") if values.get(key)}
        return DataYaml(_names(root / found[0]), splits, "", values.get("classes", ""))
    return DataYaml(_names(path), _splits(root), "")


def _is_description(path: Path) -> bool:
    try:
        return bool(read_data_yaml(path).splits)
    except InputError:
        return False


def _has_label(root: Path) -> bool:
    """Whether a text file has the name of an image, anywhere below `root`."""
    files = Tails(root).files
    images = {path.stem for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    return any(path.suffix == ".txt" and path.stem in images for path in files)


def _splits(root: Path) -> dict[str, list[str]]:
    """`images/train`, `train/images`, else all images as one split."""
    for pattern in ("images/*", "*/images"):
        found = {path.parts[-1 if pattern == "images/*" else -2]: path for path in sorted(root.glob(pattern))}
        splits = {
            name: [str(path.relative_to(root))]
            for name, path in found.items()
            if name.lower() in SPLIT_FOLDERS and path.is_dir()
        }
        if splits:
            return splits
    return {UNDIVIDED: ["images" if (root / "images").is_dir() else "."]}


def _names(path: Path) -> dict[int, str]:
    names = [plain_text(line.strip()) for line in _lines(path) if line.strip()]
    if not names:
        raise InputError(f"{path} is empty: expected one class name per line")
    return dict(enumerate(names))


def _lines(path: Path) -> list[str]:
    return read_text_file(path, limit_mb=MAX_NAMES_MB).splitlines()

"""Which classes a file may name: settings in a checkpoint or a manifest must not run code that they choose.

The parser of settings imports whatever a value names as a class or a function, so every value is looked at
before it is parsed. A user allows classes of their own with `--trust MODULE`; no file can.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from detect.config.files import read_yaml
from detect.errors import InputError

TRUSTED_MODULES = (
    "detect.model.backbones",
    "detect.model.necks",
    "detect.data.augment",
    "detect.training.assigners",
    "detect.training.averaging",
    "detect.training.losses",
    "detect.training.module",
    "detect.training.schedules",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "timm.optim",
    "torch.optim",
)
"""Whose classes a file may name; anything else is refused before it is imported."""
CLASS_NAME = re.compile(r"\w+")

# The parser knows these keys, and is not imported to read a checkpoint: a test compares the lists with it.
CLASS_KEYS = (
    *("backbone", "neck", "loss", "assigner", "box_loss", "base", "optimizer"),
    *("augmentations", "weak_augmentations"),
    *("accelerator", "callbacks", "logger", "plugins", "profiler", "strategy"),
)
"""Whose value may be a class without a dictionary around it; a name without dots is one of those known."""
GROUP_KEYS = (
    *("config", "model", "data", "trainer", "init_args", "dict_kwargs"),
    *("anchors", "distillation", "norm", "parameters", "postprocess", "schedule", "settings"),
)
"""Whose value is never text: the parser would take it for another file to read."""
TEXT_KEYS = (
    *("root", "train_annotations", "train_images", "train_split"),
    *("val_annotations", "val_images", "val_split"),
    *("init_from", "teacher", "weights", "default_root_dir", "dirpath", "filename", "save_dir"),
    *("experiment_name", "name", "project", "run_name", "tracking_uri", "version"),
)
"""Whose value is never more than text: a file may be called train.json beside a train.py."""
FILE_FLAGS = ("--out", "--ckpt_path", "--trust")
"""Of `detect fit`, whose values are never settings."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


_own_modules: set[str] = set()
"""What the user has allowed this process, by `trust`."""
_own_folders: list[str] = []
"""Where these modules are, at the end of Python's path."""


def trust(names: Iterable[str], *, beside: Iterable[Path] = ()) -> None:
    """Let files name classes of the user's own modules, and let Python find these; imports none.

    Args:
        names: modules (`my_parts`, `my_package.losses`) or files of one module (`path/to/my_parts.py`).
        beside: configurations; their folders are searched before the working folder.

    Raises:
        InputError: there is no such module, or Python would take another of the same name.
    """
    folders = [*(path.parent for path in beside), Path()]
    for name in names:
        if name.endswith(".py"):
            name, places = Path(name).stem, [Path(name).parent]
        else:
            places = folders
        _make_importable(name.partition(".")[0], places)
        _own_modules.add(name)


def forget_own_modules() -> None:
    """Take back every permission of `trust`."""
    _own_modules.clear()
    while _own_folders:
        sys.path.remove(_own_folders.pop())


def own_modules() -> list[str]:
    """The modules that `trust` allows."""
    return sorted(_own_modules)


def own_folders() -> list[str]:
    """Folders that `trust` has put at the end of Python's path."""
    return list(_own_folders)


def hash_own_code() -> dict[str, str]:
    """SHA-256 of the file of each of the user's modules that was imported."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in own_modules()}
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}


def _make_importable(name: str, folders: list[Path]) -> None:
    """Put the first folder that has the module at the end of Python's path: it hides no other module."""
    if name in sys.stdlib_module_names:
        raise InputError(f"--trust {name}: a module of Python itself, which no file may name")
    files = [file for folder in folders for file in (folder / f"{name}.py", folder / name / "__init__.py")]
    own = next((file.resolve() for file in files if file.is_file()), None)
    if own is not None:
        folder = own.parents[own.name == "__init__.py"]
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
            _own_folders.append(str(folder))
            importlib.invalidate_caches()
    found = importlib.util.find_spec(name)
    if found is None:
        places = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
        raise InputError(
            f"--trust {name}: no such module in {places} or on Python's path; name its file: "
            f"--trust path/to/{name}.py"
        )
    if own is not None and found.origin is not None and Path(found.origin).resolve() != own:
        raise InputError(f"--trust {name}: Python would take {found.origin} instead of {own}: rename yours")


def refuse_foreign_classes(value: Any, path: Path | str, *, follow_files: bool = False) -> None:
    """Look at plain values that were read from `path`.

    Args:
        value: dictionaries, lists and text.
        path: where they stood, for the message.
        follow_files: the values were written by the user, who may name further files of settings: these are
            looked at too. What others wrote may name none.

    Raises:
        InputError: one names a class or a function that is not trusted; says how to allow it.
    """
    _look_at(value, path, key="", follow=follow_files)


def refuse_foreign_words(args: list[str]) -> None:
    """Look at the words of `detect fit`, and at the configurations among them, before they are parsed.

    Raises:
        InputError: see `refuse_foreign_classes`.
    """
    for i, word in enumerate(args):
        flag, equals, text = word.partition("=")
        if not flag.startswith("--") or flag in FILE_FLAGS:
            continue
        text = text if equals else "".join(args[i + 1 : i + 2])
        if flag == "--config":
            refuse_foreign_classes(read_yaml(Path(text)), text, follow_files=True)
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            continue  # the parser will say so
        key = flag.rpartition(".")[2].lstrip("-").rstrip("+")
        refuse_foreign_classes({key: value}, flag, follow_files=True)


def _look_at(value: Any, place: Path | str, *, key: str, follow: bool) -> None:
    """Look at `value`, which stands under `key`; the items of a list stand under the list's."""
    if isinstance(value, dict):
        follow = follow or str(value.get("class_path")).rpartition(".")[0] in _own_modules
        for name, inner in value.items():
            _look_at(inner, place, key=str(name), follow=follow)
    elif isinstance(value, list | tuple):
        for inner in value:
            _look_at(inner, place, key=key, follow=follow)
    elif isinstance(value, str):
        if follow and key not in (*CLASS_KEYS, *TEXT_KEYS) and (file := _file_named(value, place)):
            _look_at(_settings_in(file), file, key="", follow=True)
        elif _names_code(value, key) and not _is_trusted(value):
            raise InputError(
                f"{place}: asks for the class {value!r} ({key}), which a file may not name{_hint(value)}"
            )


def _file_named(text: str, place: Path | str) -> Path | None:
    """The file that `text` in the file `place` names, if any."""
    return next((path for path in (Path(text), Path(place).parent / text) if _is_file(str(path))), None)


def _settings_in(path: Path) -> Any:
    """What a parser could read from a file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None


def _is_trusted(path: str) -> bool:
    module, _, name = path.rpartition(".")
    return (module in TRUSTED_MODULES or module in _own_modules) and CLASS_NAME.fullmatch(name) is not None


def _hint(path: str) -> str:
    """How to allow a class, or to write it where its module is left out."""
    if "." not in path and (whole := [m for m in TRUSTED_MODULES if hasattr(sys.modules.get(m), path)]):
        return f"; write its whole path, {whole[0]}.{path}"
    module = path.rpartition(".")[0]
    if not DOTTED.fullmatch(path) or module.partition(".")[0] in sys.stdlib_module_names:
        return f"; trusted are those of {', '.join(TRUSTED_MODULES)}"
    return f". If you trust the code in {module}, allow it with: --trust {module}"


def _names_code(text: str, key: str) -> bool:
    """Whether a parser would import what `text` names, or might."""
    if key == "class_path" or key in GROUP_KEYS:
        return True
    if key in CLASS_KEYS:
        return "." in text
    if key in TEXT_KEYS:
        return False
    return _is_file(text) or (DOTTED.fullmatch(text) is not None and _runs_code(text))


def _is_file(text: str) -> bool:
    """Whether a parser could read further settings from there."""
    return ("." in text or "/" in text) and os.path.isfile(text)


def _runs_code(path: str) -> bool:
    """Whether a module is imported on the way to `path`; a mere folder is none, what it holds may be."""
    names = path.split(".")
    for end in range(1, len(names)):
        try:
            spec = importlib.util.find_spec(".".join(names[:end]))
        except ValueError:  # of a module that was made by hand, as __main__
            return True
        if spec is None or spec.origin is not None:
            return spec is not None
    return False

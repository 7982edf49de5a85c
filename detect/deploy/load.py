"""From a file to the model in it: a checkpoint, a config (random weights) or an exported file.

torch is imported where a checkpoint or a config asks for it: exported files are used without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detect.deploy.runtimes.base import Runtime, RuntimeOptions, require
from detect.deploy.runtimes.table import FORMATS, RUNTIMES, runtimes_of
from detect.errors import InputError

if TYPE_CHECKING:
    from detect.model.detector import TorchDetector

CONFIG_SUFFIXES = (".yaml", ".yml")


class DetectorFile(NamedTuple):
    """A detector in torch, and the checkpoint that its weights came from."""

    detector: TorchDetector
    checkpoint: Path | None
    """None: random weights."""


def exported_format(path: Path) -> str | None:
    """The format of an exported file by its name; None for a checkpoint or a config."""
    return next((format.name for format in FORMATS.values() if path.suffix == format.suffix), None)


def load_detector(path: Path) -> DetectorFile:
    """The detector of a checkpoint, or one with random weights from a config.

    Raises:
        InputError: an exported file, which torch cannot run; or see `read_checkpoint` and `build_detector`.
    """
    if exported_format(path) is not None:
        raise InputError(f"{path} is an exported file; this needs a checkpoint or a config")
    require("torch", path=path)
    from detect.deploy.random_weights import detector_of_config
    from detect.model.checkpoint import build_from_checkpoint, read_checkpoint

    if path.suffix in CONFIG_SUFFIXES:
        return DetectorFile(detector_of_config(path), None)
    return DetectorFile(build_from_checkpoint(read_checkpoint(path)), path)


def open_exported(
    path: Path, runtime: str | None = None, *, options: RuntimeOptions = RuntimeOptions()
) -> Runtime:
    """Load an exported file.

    Args:
        path: the file; its suffix names the format.
        runtime: null: the format's own.
        options: threads, precision and batch.

    Raises:
        InputError: no such file, a runtime that does not read it or is not installed, or see the runtime.
    """
    format = exported_format(path)
    if format is None:
        suffixes = [known.suffix for known in FORMATS.values()]
        raise InputError(f"{path}: not an exported file; known are {', '.join(suffixes)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    able = runtimes_of(format)
    record = able[0] if runtime is None else RUNTIMES[runtime]
    if format not in record.reads:
        names = ", ".join(other.name for other in able)
        raise InputError(f"{path}: {runtime} does not read {format}; {names} does")
    return record.load(path, options)


def open_model(
    path: Path, *, options: RuntimeOptions = RuntimeOptions(), device: str | None = None
) -> Runtime:
    """Any file with a model: an exported one in its own runtime, a checkpoint or a config in torch.

    Args:
        path: the file.
        options: threads, precision and batch.
        device: for torch; null: a GPU where there is one.

    Raises:
        InputError: see `load_detector` and `open_exported`.
    """
    if exported_format(path) is not None:
        return open_exported(path, options=options)
    detector = load_detector(path).detector
    from detect.deploy.runtimes.eager import EagerRuntime

    return EagerRuntime(detector, options, device=device)

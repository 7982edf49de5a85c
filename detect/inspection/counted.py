"""What detectors and classifiers share in `detect models`: built to be counted, printed figures beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detect.errors import InputError
from detect.model.backbones import Backbone


@contextmanager
def built_of(path: Path) -> Iterator[None]:
    """Build on the meta device, where nothing is downloaded.

    Raises:
        InputError: a setting is wrong; names the file.
    """
    try:
        with torch.device("meta"):
            yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def beside(printed: str, *, agrees: bool) -> str:
    """A paper's figure behind a count: a tick where the count is that figure, a cross where not."""
    return f" ({printed}) {'✓' if agrees else '✗'}"


def json_head(
    config: Path | None, backbone: Backbone, image_size: Sequence[int], num_classes: int | None
) -> dict[str, Any]:
    """What network an entry of `detect models --json` is about."""
    return {
        "config": None if config is None else config.as_posix(),
        "backbone": backbone.name,
        "reduced_tail": backbone.reduced_tail,
        "width": backbone.width,
        "input": list(image_size),
        "num_classes": num_classes,
    }

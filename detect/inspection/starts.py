"""What a training may start from, the best first: a detector, an ImageNet backbone, nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detect.errors import InputError
from detect.model.backbones.mobilenet_v3 import SOURCES, Size
from detect.model.backbones.pretrained import HALF, find_weights
from detect.model.blocks import ConvSettings, SqueezeSettings
from detect.model.checkpoint import read_checkpoint
from detect.model.configurable import plain
from detect.model.published import COCO, fetched
from detect.model.ssdlite import TAPS

Kind = Literal["detector", "imagenet", "none"]
ANSWER_S = 10.0
"""So long may a server take to answer before a start counts as out of reach."""
QUICKSTART = "runs/quickstart-*/checkpoints/best.ckpt"
"""Where scripts/quickstart leaves a detector of drawn shapes, below the folder of the project."""
KEPT = ("backbone", "taps", "neck", "anchors", "norm", "mean", "std", "box_bins")
"""Settings of a detector that its weights belong to."""


class Start(NamedTuple):
    """A start and the settings that go with it."""

    kind: Kind
    why: str
    """What it is, for people."""
    model: dict[str, Any]
    """Values of the `model:` section that it decides."""


def choose_start(wanted: str, size: Size) -> Start:
    """The start that `wanted` names.

    Args:
        wanted: "auto" for the best that is within reach, "published", "imagenet", "none", or the path of a
            checkpoint.
        size: of the MobileNetV3 that the budget asks for.

    Raises:
        InputError: the named start cannot be had.
    """
    if wanted == "none":
        return Start("none", "none, from random weights", {})
    if wanted == "imagenet":
        return imagenet(size)
    if wanted == "published":
        return published()
    if wanted != "auto":
        return detector_start(Path(wanted), why=f"the detector {wanted}")
    for attempt in (published, lambda: imagenet(size)) if size == "large" else (lambda: imagenet(size),):
        try:
            return attempt()
        except InputError:
            continue
    if made := sorted(Path().glob(QUICKSTART)):
        return detector_start(made[-1], why="the quickstart's detector; published weights are out of reach")
    return Start(
        "none",
        "none: published weights are out of reach. Better: `bash scripts/quickstart`, whose detector is a "
        "start too, or --start with another of yours",
        {},
    )


def detector_start(path: Path, *, why: str) -> Start:
    """Start from a checkpoint: its backbone, anchors and normalisation come with it.

    Raises:
        InputError: it is no checkpoint of ours.
    """
    settings = read_checkpoint(path).description["model"]
    model = {name: settings[name] for name in KEPT if not _is_usual(name, settings.get(name))}
    model["anchors"] = _given(model["anchors"])
    model["backbone"] = model["backbone"] | {"init_args": _given(model["backbone"]["init_args"])}
    model["init_from"] = str(path)
    return Start("detector", why, model)


def published() -> Start:
    """The detector that torchvision publishes, trained on COCO's 118,287 images; fetched once.

    Raises:
        InputError: it can neither be found nor fetched.
    """
    # Still to come: `init_from: coco` in place of a path, so that the configuration may move to another
    # machine, and `starter` behind what needs a network; taps and neck decide which, not the backbone alone.
    return detector_start(fetched(COCO[0]), why="torchvision's published detector, trained on COCO")


def imagenet(size: Size) -> Start:
    """A backbone that was trained on ImageNet; fetched once.

    Raises:
        InputError: it can neither be found nor fetched.
    """
    with short_patience():
        find_weights("imagenet", SOURCES[size], width=1.0)
    backbone = {"init_args": {"weights": "imagenet"}}
    return Start("imagenet", "a backbone trained on ImageNet", {"backbone": backbone})


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments without those that are as they would be anyway."""
    return {key: value for key, value in arguments.items() if not _is_usual(key, value)}


def _is_usual(key: str, value: Any) -> bool:
    usual = {
        "taps": list(TAPS),
        "norm": plain(ConvSettings()),
        "mean": list(HALF),
        "std": list(HALF),
        "width": 1.0,
        "settings": plain(SqueezeSettings()),
    }
    return value in (None, False, usual.get(key))


@contextmanager
def short_patience() -> Iterator[None]:
    """Let sockets that are opened in the block give up after `ANSWER_S`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

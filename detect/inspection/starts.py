"""What a training may start from, the best first: a detector, an ImageNet backbone, the starter, nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detect.errors import InputError
from detect.model.backbones.mobilenet_v3 import SOURCES, Size
from detect.model.backbones.pretrained import HALF, find_weights
from detect.model.blocks import ConvSettings, SqueezeSettings
from detect.model.checkpoint import read_checkpoint
from detect.model.configurable import plain
from detect.model.published import COCO, fetched, find_start
from detect.model.ssdlite import TAPS

Kind = Literal["detector", "imagenet", "none"]
ANSWER_S = 10.0
"""So long may a server take to answer before a start counts as out of reach."""
STARTER_BACKBONE = {
    "class_path": "detect.model.backbones.MobileNetV3",
    "init_args": {"size": "small", "reduced_tail": True},
}
KEPT = ("backbone", "taps", "neck", "anchors", "norm", "mean", "std", "box_bins")
"""Settings of a detector that its weights belong to."""


EFFECTS = {
    "coco": "not measured by this project; classes that COCO has too are known from the first step",
    "imagenet": "MobileNetV2 on chess pieces, 10 epochs: mAP 0.70, from nothing 0.53 (docs/results.md)",
    "starter": "raccoons, 1,200 steps: mAP 0.47, from nothing 0.29 (docs/results.md)",
    "own": "the more, the closer its images are to these",
    "none": "twice the steps of a start from a detector",
}
"""What each start is worth, where it was measured."""


class Start(NamedTuple):
    """A start and the settings that go with it."""

    kind: Kind
    why: str
    """What it is and what it is worth, for people."""
    model: dict[str, Any]
    """Values of the `model:` section that it decides."""


def choose_start(wanted: str, size: Size, *, few_images: bool = True) -> Start:
    """The start that `wanted` names.

    Args:
        wanted: "auto" for the best that is within reach, "coco" (or "published", its name before),
            "imagenet", "starter", "none", or the path of a checkpoint.
        size: of the MobileNetV3 that the budget asks for.
        few_images: whether the starter's small network is the one to train.

    Raises:
        InputError: the named start cannot be had.
    """
    named: dict[str, Callable[[], Start]] = {
        **{"coco": coco, "published": coco, "starter": from_starter, "none": from_nothing},
        "imagenet": lambda: imagenet(size),
    }
    if wanted in named:
        return named[wanted]()
    if wanted != "auto":
        return detector_start(Path(wanted), why=f"the detector {wanted}; {EFFECTS['own']}")
    # Published is the large one alone.
    words = [*(["coco"] if size == "large" else []), "imagenet"]
    for word in words:
        try:
            return named[word]()
        except InputError:
            continue
    start = from_starter() if few_images else from_nothing()
    return start._replace(why=f"{start.why}; out of reach: {', '.join(words)}")


def from_nothing() -> Start:
    """Random weights."""
    return Start("none", f"none, from random weights; {EFFECTS['none']}", {})


def detector_start(path: Path, *, why: str, word: str | None = None) -> Start:
    """Start from a checkpoint: its backbone, anchors and normalisation come with it.

    Args:
        path: the checkpoint.
        why: see `Start`.
        word: what the configuration names it by, for one that any machine can find; null: its path.

    Raises:
        InputError: it is no checkpoint of ours.
    """
    settings = read_checkpoint(path).description["model"]
    model = {name: settings[name] for name in KEPT if not _is_usual(name, settings.get(name))}
    model["anchors"] = _given(model["anchors"])
    model["backbone"] = model["backbone"] | {"init_args": _given(model["backbone"]["init_args"])}
    model["init_from"] = word or str(path)
    return Start("detector", why, model)


def coco() -> Start:
    """The detector that torchvision publishes, trained on COCO's 118,287 images; fetched once.

    Raises:
        InputError: it can neither be found nor fetched.
    """
    why = f"torchvision's published detector, trained on COCO; {EFFECTS['coco']}"
    return detector_start(fetched(COCO[0]), why=why, word="coco")


def from_starter() -> Start:
    """The starter of this package for the smallest network, trained on generated images.

    Raises:
        InputError: there is none.
    """
    path = find_start("starter", {"backbone": STARTER_BACKBONE})
    why = f"the starter of this package, trained on generated images; {EFFECTS['starter']}"
    return detector_start(path, why=why, word="starter")


def imagenet(size: Size) -> Start:
    """A backbone that was trained on ImageNet; fetched once.

    Raises:
        InputError: it can neither be found nor fetched.
    """
    with short_patience():
        find_weights("imagenet", SOURCES[size], width=1.0)
    backbone = {"init_args": {"weights": "imagenet"}}
    why = f"a backbone trained on ImageNet; {EFFECTS['imagenet']}"
    return Start("imagenet", why, {"backbone": backbone})


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

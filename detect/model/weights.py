"""Weights between detectors: torchvision's both ways, TensorFlow's to ours, heads copied by class name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.errors import InputError
from detect.model.backbones.pretrained import read_state_dict
from detect.model.checkpoint import (
    Checkpoint,
    build_detector,
    build_from_checkpoint,
    checkpoint_content,
    read_checkpoint,
    write_checkpoint,
)
from detect.model.ssdlite import SSDLite
from detect.model.tensorflow.detectors import from_tensorflow
from detect.model.tensorflow.files import read_tensorflow
from detect.model.torchvision_weights import coco_classes, from_torchvision, to_torchvision
from detect.types import ClassMap

CLASS_PREDICTOR = re.compile(r"cls_heads\.\d+\.1\.(weight|bias)")
VOC_TO_COCO = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Names of one thing, without spaces; those that differ by spaces alone need no line."""
TORCHVISION_LICENCE = "BSD-3-Clause (torchvision) where published there, trained on COCO"
TENSORFLOW_LICENCE = (
    "not stated in the file; Apache-2.0 and trained on COCO where it is of TensorFlow's model zoo"
)


class ClassMatch(NamedTuple):
    """What `copy_matching` did."""

    copied: list[str]
    """Tensors taken whole."""
    fresh: list[str]
    """Tensors left as they were: missing in the source, or of another shape there."""
    known_classes: list[str]
    """Classes whose rows of the class heads were copied; "person (from Person)" where the names differ."""
    new_classes: list[str]
    """Classes that start from the prior."""
    other_settings: Sequence[str] = ()
    """Settings that the weights have learnt with other values, one sentence each."""


def convert_weights(
    source: Path,
    target: Path,
    *,
    to: Literal["detect", "torchvision"] = "detect",
    class_names: Sequence[str] | None = None,
) -> None:
    """Rewrite torchvision's `ssdlite320_mobilenet_v3_large` as a checkpoint of ours, or the other way round.

    An import carries torchvision's thresholds, resize rule and loss settings, so that detections on an image
    of any size are torchvision's. An export is a plain state dict: thresholds that are not torchvision's
    defaults are arguments of its function.

    Args:
        source: a state dict (`.pth`, `.safetensors`), or a checkpoint of ours.
        target: the file to write.
        to: the side that `target` is for.
        class_names: of an import, without background, in the order of its columns. Null: COCO's for 90
            classes, else "class 1", "class 2", ...

    Raises:
        InputError: the source is not such a detector, or torchvision cannot build it.
    """
    if to == "torchvision":
        net = build_from_checkpoint(read_checkpoint(source)).net
        write_checkpoint(target, dict(to_torchvision(net)))
        return
    write_checkpoint(
        target, import_torchvision(read_state_dict(source), name=source.name, class_names=class_names)
    )


def import_torchvision(
    theirs: dict[str, Tensor], *, name: str, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """The checkpoint of a state dict of torchvision's, see `convert_weights`.

    Args:
        theirs: tensors by torchvision's names.
        name: of the file that they are from.
        class_names: see `convert_weights`.
    """
    state_dict, settings = from_torchvision(theirs)
    detector = build_detector(settings)
    detector.net.load_state_dict(state_dict)
    detector.classes = imported_classes(settings["num_classes"], class_names)
    detector.net.backbone.weights_origin = {"weights": name, "licence": TORCHVISION_LICENCE}
    content = checkpoint_content(detector)
    content["detect"]["model"]["loss"] = settings["loss"]
    return content


def import_tensorflow(
    path: Path,
    *,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The checkpoint of an SSDLite of TensorFlow's Object Detection API.

    It carries TensorFlow's padding, anchors, thresholds and sigmoid scores. On the same input, logits and
    boxes are TensorFlow's but for rounding.

    Args:
        path: see `read_tensorflow`.
        class_names: see `convert_weights`.
        image_size: (H, W) of the input in px; null: that of the file, else as published.

    Raises:
        InputError: the file is not such a detector.
    """
    file = read_tensorflow(path)
    state_dict, settings = from_tensorflow(file.state_dict, image_size or file.image_size)
    detector = build_detector(settings, score_activation="sigmoid")
    detector.net.load_state_dict(state_dict)
    detector.classes = imported_classes(settings["num_classes"], class_names)
    digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    detector.net.backbone.weights_origin = {
        **{"weights": file.path.name, "licence": TENSORFLOW_LICENCE, "sha256": digest}
    }
    content = checkpoint_content(detector)
    content["detect"]["model"]["loss"] = settings["loss"]
    return content


def imported_classes(num_classes: int, names: Sequence[str] | None) -> ClassMap:
    """What the labels of an import mean; a category id is the label, for torchvision knows no other.

    Raises:
        InputError: the number of names is not the number of classes.
    """
    if names is None and num_classes == len(coco := coco_classes().names):
        names = coco
    if names is None:
        names = [f"class {label}" for label in range(1, num_classes + 1)]
    if len(names) != num_classes:
        raise InputError(f"{len(names)} class names for a detector of {num_classes} classes (no background)")
    return ClassMap(tuple(names), tuple(range(1, num_classes + 1)))


def copy_matching(
    net: SSDLite, classes: ClassMap, *, source: Mapping[str, Tensor], source_classes: ClassMap
) -> ClassMatch:
    """Start `net` from a detector of other classes.

    Tensors of the same name and shape are copied. Of a class head, the rows of background and of each class
    with the same name in both (see `same_classes`) are copied; the others keep what `net` was drawn with, the
    prior's bias.

    Args:
        net: the detector to be trained; changed in place.
        classes: its classes.
        source: state dict of an `SSDLite` with the same backbone, or another: what fits is copied.
        source_classes: classes of the source.

    Raises:
        InputError: nothing fits.
    """
    copied, fresh = [], []
    same = same_classes(classes, source_classes)
    rows = {0: 0} | {  # background, then the classes that both know
        classes.names.index(name) + 1: source_classes.names.index(other) + 1 for name, other in same.items()
    }
    columns = classes.num_classes + 1, source_classes.num_classes + 1
    heads_fit = True
    for key, tensor in net.state_dict().items():
        values = source.get(key)
        if values is not None and CLASS_PREDICTOR.fullmatch(key):
            if not _copy_rows(tensor, values, rows, columns):
                heads_fit = False
                fresh.append(key)
        elif values is not None and values.shape == tensor.shape:
            tensor.copy_(values)
            copied.append(key)
        else:
            fresh.append(key)
    if not copied:
        raise InputError("no tensor of the given checkpoint fits this detector: is its backbone another?")
    known = same if heads_fit else {}
    return ClassMatch(
        copied,
        fresh,
        [name if name == other else f"{name} (from {other})" for name, other in known.items()],
        [name for name in classes.names if name not in known],
    )


def same_classes(ours: ClassMap, theirs: ClassMap) -> dict[str, str]:
    """Names of ours that theirs has too, with the name there.

    Case, spaces and punctuation do not matter ("Traffic_Light" is "traffic light"), and where Pascal VOC and
    COCO say the same thing differently, either is taken ("aeroplane" is "airplane").
    """
    known = {_plain_name(name): name for name in reversed(theirs.names)}
    return {
        name: name if name in theirs.names else known[_plain_name(name)]
        for name in ours.names
        if _plain_name(name) in known
    }


def _plain_name(name: str) -> str:
    plain = re.sub(r"[\W_]", "", name.casefold())
    return VOC_TO_COCO.get(plain, plain)


def _copy_rows(tensor: Tensor, source: Tensor, same: dict[int, int], columns: tuple[int, int]) -> bool:
    """Copy the rows of background and of the classes that both know, where the heads are of one shape."""
    # (anchors * columns, ...) -> (anchors, columns, ...)
    ours, theirs = tensor.unflatten(0, (-1, columns[0])), source.unflatten(0, (-1, columns[1]))
    if ours.shape[:1] + ours.shape[2:] != theirs.shape[:1] + theirs.shape[2:]:
        return False
    ours[:, list(same)] = theirs[:, list(same.values())].to(ours)
    return True


def match_table(match: ClassMatch, *, source: str) -> Table:
    """What started from where, for people."""
    table = Table("part", "from", title=Text(f"started from {source}"))
    table.add_row(f"{len(match.copied)} tensors", "copied")
    table.add_row(Text(f"classes: {', '.join(match.known_classes) or 'none'}"), "rows copied by name")
    table.add_row(Text(f"classes: {', '.join(match.new_classes) or 'none'}"), "fresh")
    for part in _fresh_parts(match):
        table.add_row(part, "fresh")
    for line in match.other_settings:
        table.add_row(Text(line), "other than in training")
    return table


def _fresh_parts(match: ClassMatch) -> list[str]:
    """Tensors that are fresh; a part of which nothing was copied, such as a neck, in one line."""
    kept = {above for key in match.copied for above in _above(key)}
    parts: dict[str, list[str]] = {}
    for key in match.fresh:
        parts.setdefault(next((above for above in _above(key) if above not in kept), key), []).append(key)
    lines = []
    for part, keys in parts.items():
        lines += keys if len(keys) <= 2 else [f"{part} ({len(keys)} tensors)"]
    return lines


def _above(key: str) -> list[str]:
    """Names of the parts that hold a tensor, the largest first."""
    names = key.split(".")
    return [".".join(names[:length]) for length in range(1, len(names))]


def describe_origin(origin: Mapping[str, str]) -> str:
    """Where pretrained weights are from and what binds their use, for people."""
    return ", ".join(f"{key} {value}" for key, value in origin.items())


def init_from(net: SSDLite, classes: ClassMap, path: Path) -> ClassMatch:
    """Start `net` from a checkpoint of ours, see `copy_matching`; the origin of its weights comes along.

    Raises:
        InputError: the file is no checkpoint of ours, its backbone is another, or nothing in it fits.
    """
    checkpoint = read_checkpoint(path)
    refuse_other_backbone(net, checkpoint)
    source = {
        key.removeprefix("net."): value
        for key, value in checkpoint.state_dict.items()
        if key.startswith("net.")
    }
    try:
        match = copy_matching(net, classes, source=source, source_classes=checkpoint.classes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if (origin := checkpoint.description.get("weights_origin")) is not None:
        net.backbone.weights_origin = origin
    return match._replace(other_settings=_other_settings(net, checkpoint))


def _other_settings(net: SSDLite, checkpoint: Checkpoint) -> list[str]:
    """What the weights have learnt with other values than they are to be trained with now."""
    theirs = checkpoint.description["input"]
    ours = {"mean": net.mean.tolist(), "std": net.std.tolist()}
    pairs = [(f"model.{name}", _short(ours[name]), _short(theirs[name])) for name in ours]
    learnt = checkpoint.description["model"]["backbone"]["init_args"].get("settings") or {}
    for name, value in asdict(net.backbone.settings).items():
        if name in ("padding", "bn_eps"):
            pairs.append((f"model.backbone.settings.{name}", value, learnt.get(name, value)))
    return [f"{name} {value}, in the start {other}" for name, value, other in pairs if value != other]


def _short(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


def refuse_other_backbone(net: SSDLite, checkpoint: Checkpoint) -> None:
    """Refuse a start of which hardly a tensor would fit.

    Raises:
        InputError: the backbones differ in more than where their first weights come from; says how.
    """
    theirs = flat_backbone(checkpoint.description["model"]["backbone"])
    ours = flat_backbone(net.backbone.to_settings())
    if other := [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]:
        differences = ", ".join(f"{key} {theirs.get(key)} (here {ours.get(key)})" for key in sorted(other))
        raise InputError(
            f"{checkpoint.path}: its backbone is another, {differences}: give model.backbone the same "
            "values, or start from another detector"
        )


def flat_backbone(settings: dict[str, Any]) -> dict[str, Any]:
    """The class of a backbone and the arguments that decide which tensors it has.

    Null ones (the paper's rows) are left out: checkpoints of earlier versions do not have them.
    """
    arguments = {
        key: value
        for key, value in settings["init_args"].items()
        if key not in ("weights", "settings") and value is not None
    }
    return {"class_path": settings["class_path"], **arguments}

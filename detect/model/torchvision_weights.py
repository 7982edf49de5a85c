"""State dicts of torchvision's `ssdlite320_mobilenet_v3_large`, to ours and back.

Every tensor is the same in both; only the names differ, so both directions are one table, read from the left
or from the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

from detect.errors import InputError
from detect.model.anchors import AnchorConfig, even_scales
from detect.model.backbones import MobileNetV3
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.backbones.layer_names import torchvision_layout
from detect.model.ssdlite import TAPS, SSDLite
from detect.types import ClassMap

MODEL = "ssdlite320_mobilenet_v3_large"
FULL_TAIL_CHANNELS, REDUCED_TAIL_CHANNELS = 960, 480
ANCHORS_PER_CELL = 6
LAST_CONVOLUTION = "backbone.features.1.3.0.weight"
FIRST_CLASS_BIAS = "head.classification_head.module_list.0.1.bias"

# Thresholds and loss of torchvision/models/detection/ssdlite.py and ssd.py, which an import carries along.
SETTINGS: dict[str, Any] = {
    "image_size": [320, 320],
    "anchors": {"style": "torchvision"},
    "loss": {"class_path": "detect.training.losses.MultiBoxLoss", "init_args": {"min_negatives": 0}},
    "postprocess": {
        "score_threshold": 0.001,
        "nms_threshold": 0.55,
        "max_detections": 300,
        "topk_candidates": None,
        "topk_per_class": 300,
    },
    "resize_rule": "torchvision",
    # Another memory layout sums in another order; in torchvision's the logits are equal to the last bit.
    "channels_last": False,
}


def from_torchvision(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rename a state dict of torchvision's detector.

    Args:
        state_dict: of `ssdlite320_mobilenet_v3_large`, reduced or full tail, any number of classes.

    Returns:
        The state dict of an `SSDLite`, and the `model:` settings that build the module around it.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; names it.
    """
    for key in (LAST_CONVOLUTION, FIRST_CLASS_BIAS):
        if key not in state_dict:
            raise InputError(f"not a state dict of {MODEL}: {key} is missing")
    tail = state_dict[LAST_CONVOLUTION].shape[0]
    if tail not in (FULL_TAIL_CHANNELS, REDUCED_TAIL_CHANNELS):
        raise InputError(
            f"{LAST_CONVOLUTION} has {tail} output channels, expected {REDUCED_TAIL_CHANNELS} (reduced tail) "
            f"or {FULL_TAIL_CHANNELS}"
        )
    num_classes = state_dict[FIRST_CLASS_BIAS].shape[0] // ANCHORS_PER_CELL - 1
    reduced_tail = tail == REDUCED_TAIL_CHANNELS
    with torch.device("meta"):  # for names and shapes alone
        backbone = MobileNetV3("large", reduced_tail=reduced_tail)
        net = SSDLite(backbone, num_classes, anchors=AnchorConfig("torchvision"))
    init_args = {"size": "large", "reduced_tail": reduced_tail}
    settings = {
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": init_args},
        "num_classes": num_classes,
        **deepcopy(SETTINGS),
    }
    table = _layer_table(net)
    return renamed(state_dict, table, expected=net.state_dict(), what=f"a state dict of {MODEL}"), settings


def to_torchvision(net: SSDLite) -> dict[str, Tensor]:
    """The state dict that `ssdlite320_mobilenet_v3_large(num_classes=K + 1)` loads.

    Raises:
        InputError: torchvision's function cannot build this network; says why.
    """
    backbone = net.backbone
    reasons = []
    if not isinstance(backbone, MobileNetV3) or backbone.name != "mobilenet_v3_large":
        reasons.append(f"its backbone is {backbone.name}, not mobilenet_v3_large")
    if backbone.width != 1.0:
        reasons.append(f"its width is {backbone.width}, not 1.0")
    anchors = net.anchor_generator.config
    if anchors.scales == even_scales(net.strides):  # the usual ones, written as numbers
        anchors = replace(anchors, scales=None)
    if anchors != AnchorConfig("torchvision"):
        reasons.append("its anchors are not torchvision's: `anchors: {style: torchvision}` and nothing else")
    if net.taps != TAPS or net.neck is not None:
        reasons.append("its heads do not stand on c4 and c5: `taps: [c4, c5]` and no neck")
    if net.own_extra_levels:
        reasons.append("its extra levels are not torchvision's: `extra_levels: null`")
    if net.box_bins is not None:
        reasons.append("its boxes are expectations of bins: `box_bins: null`")
    if list(net.image_size) != SETTINGS["image_size"]:
        reasons.append(f"its input is {net.image_size[0]}x{net.image_size[1]}, not 320x320")
    if reasons:
        raise InputError(f"torchvision has no such detector: {'; '.join(reasons)}")
    ours = net.state_dict()
    table = {theirs: mine for mine, theirs in _layer_table(net).items()}
    return {
        f"{theirs}.{name}": ours[f"{mine}.{name}"]
        for theirs, mine in table.items()
        for name in net.get_submodule(mine).state_dict()
    }


def coco_classes() -> ClassMap:
    """Labels 1..90 of the published checkpoint: a label is COCO's category id, ten of them unused."""
    names = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"][1:]
    unique = tuple(f"unused {i}" if name == "N/A" else name for i, name in enumerate(names, 1))
    return ClassMap(unique, tuple(range(1, len(unique) + 1)))


def _layer_table(net: SSDLite) -> dict[str, str]:
    """Our layers to torchvision's; layers, for the tensors of a layer have the same names in both."""
    assert isinstance(net.backbone, InvertedResidualBackbone)
    index = {name: i for i, name in net.backbone.expansions.items()}
    tap = index["c4"] + 1  # torchvision counts the stem as features.0
    table = {
        f"backbone.{ours}": f"backbone.{_split_at_tap(theirs, tap)}"
        for ours, theirs in torchvision_layout(net.backbone, "block").items()
    }
    for i in range(len(net.extra_levels)):
        table |= {
            f"extra_levels.{i}.{j}.{k}": f"backbone.extra.{i}.{j}.{k}" for j in range(3) for k in range(2)
        }
    for ours, theirs in (("cls_heads", "classification_head"), ("box_heads", "regression_head")):
        for i in range(len(net.cls_heads)):
            for layer in ("0.0", "0.1", "1"):
                table[f"{ours}.{i}.{layer}"] = f"head.{theirs}.module_list.{i}.{layer}"
    return table


def _split_at_tap(name: str, tap: int) -> str:
    """Torchvision cuts the classifier's `features` in two inside block `tap`, behind its expansion."""
    _, number, rest = name.split(".", 2)
    index = int(number)
    if index < tap:
        return f"features.0.{index}.{rest}"
    if index > tap:
        return f"features.1.{index - tap}.{rest}"
    layer = rest.removeprefix("block.")
    if layer.startswith("0."):
        return f"features.0.{tap}.{layer.removeprefix('0.')}"
    return f"features.1.0.{layer}"


def renamed(
    source: Mapping[str, Tensor], table: Mapping[str, str], *, expected: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """A detector of another library under our names, in our shapes; nothing missing, nothing left over.

    Args:
        source: tensors by the library's names.
        table: our layers to the library's.
        expected: our names, with tensors of the shapes.
        what: the source should be, for messages.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; names it.
    """
    renamed: dict[str, Tensor] = {}
    left = set(source)
    for key, like in expected.items():
        layer, _, name = key.rpartition(".")
        theirs = f"{table[layer]}.{name}"
        if theirs not in source:
            raise InputError(f"not {what}: {theirs} is missing")
        if source[theirs].shape != like.shape:
            raise InputError(
                f"{theirs} has the shape {tuple(source[theirs].shape)}, expected {tuple(like.shape)}"
            )
        renamed[key] = source[theirs]
        left.remove(theirs)
    if left:
        raise InputError(f"not {what}: it has {min(left)} besides")
    return renamed

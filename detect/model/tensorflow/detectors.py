"""SSDLite of TensorFlow's Object Detection API to ours: which network it is, and what its layers are called.

Source: tensorflow/models, research/object_detection: `models/ssd_mobilenet_v{1,2,3}_feature_extractor.py`,
`models/feature_map_generators.py`, `predictors/convolutional_box_predictor.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detect.errors import InputError
from detect.model.backbones.layer_names import slim_layout
from detect.model.backbones.mobilenet_v3 import TABLES, Size
from detect.model.blocks import EXTRA_LEVELS, make_divisible
from detect.model.ssdlite import SSDLite
from detect.model.torchvision_weights import renamed

FIRST_EXTRA = re.compile(r"(FeatureExtractor/(MobilenetV[123]))/(\w+)_1_Conv2d_2_1x1_(\d+)\.weight")
"""The scope of the network, its family, the layer that the extra levels stand on, their first width."""
V3_SIZES: dict[str, Size] = {"layer_17": "large", "layer_13": "small"}
"""MobileNetV3 by the layer that the extra levels stand on."""
PUBLISHED_SIZES = {"MobilenetV1": (300, 300), "MobilenetV2": (300, 300), "MobilenetV3": (320, 320)}
"""(H, W) px of the API's sample configurations, for files that do not say it."""
GATE = 0.16667
"""Slim's hard sigmoid is relu6(x + 3) * 0.16667. Against a sixth, the logits of V3-Large differ by 2e-3."""
BOXES, CLASSES = "BoxEncodingPredictor", "ClassPredictor"
TO_XY = [1, 0, 3, 2]
"""TensorFlow's deltas are (ty, tx, th, tw)."""
WHAT = "an SSDLite of TensorFlow's Object Detection API"

# Of the API's sample configurations, but for `topk_candidates`: TensorFlow takes all, for which NMS over 90
# classes needs minutes. The best hundred differ only where the best thousand overlap to less than a hundred.
SETTINGS: dict[str, Any] = {
    "norm": {"padding": "same"},
    "anchors": {"style": "paper"},
    "loss": {
        "class_path": "detect.training.losses.FocalLoss",
        "init_args": {"alpha": 0.75, "gamma": 2.0, "prior": 0.01, "box_weight": 0.25},
    },
    "postprocess": {
        "score_threshold": 1e-8,
        "nms_threshold": 0.6,
        "max_detections": 100,
        "topk_candidates": 1000,
        "topk_per_class": None,
    },
    "resize_rule": "torchvision",
}


class Family(NamedTuple):
    """What the names of a file say about the network."""

    scope: str
    """Of its variables: FeatureExtractor/MobilenetV2."""
    top: str
    """The layer that the extra levels stand on: layer_19."""
    backbone: dict[str, Any]
    """Settings of ours."""
    image_size: tuple[int, int]
    """(H, W) px, as published."""


def from_tensorflow(
    state_dict: Mapping[str, Tensor], image_size: tuple[int, int] | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rename a state dict of the Object Detection API.

    Args:
        state_dict: see `read_tensorflow`.
        image_size: (H, W) of the input in px; null: as published.

    Returns:
        The state dict of an `SSDLite`, and the `model:` settings that build the module around it.

    Raises:
        InputError: it is another detector, or a tensor is missing, left over, or of another shape; names it.
    """
    from detect.model.checkpoint import build_detector

    family = find_family(state_dict)
    settings = {
        "backbone": family.backbone,
        "num_classes": _num_classes(state_dict),
        "image_size": list(image_size or family.image_size),
        **deepcopy(SETTINGS),
    }
    with torch.device("meta"):  # for names and shapes alone
        net = build_detector(settings).net
    table = _layer_table(net, family)
    whole = _with_norms(_with_exact_gates(state_dict), table, eps=net.backbone.settings.bn_eps)
    ours = renamed(whole, table, expected=net.state_dict(), what=WHAT)
    return {key: _in_xy(value) if _is_box_predictor(key) else value for key, value in ours.items()}, settings


def find_family(keys: Mapping[str, Tensor]) -> Family:
    """Which network the names are of, its width, and whether its tail is reduced.

    Raises:
        InputError: no network with SSDLite's extra levels.
    """
    found = next((match for key in keys if (match := FIRST_EXTRA.fullmatch(key))), None)
    if found is None or f"BoxPredictor_0/{BOXES}_depthwise.weight" not in keys:
        scopes = sorted({"/".join(key.split("/")[:2]) for key in keys if key.startswith("FeatureExtractor")})
        raise InputError(
            f"not {WHAT} on MobilenetV1, V2 or V3 ({', '.join(scopes) or 'it has no FeatureExtractor'}): SSD "
            "without depthwise heads, pyramids (FPN, FPNLite) and other networks are not converted"
        )
    scope, network, top, mid = found.groups()
    width = round(int(mid) / EXTRA_LEVELS[0][0], 2)
    arguments: dict[str, Any] = {"width": width, "settings": {"padding": "same"}}
    name = network.replace("Mobilenet", "MobileNet")
    if network == "MobilenetV3":
        if top not in V3_SIZES:
            raise InputError(
                f"not {WHAT}: its extra levels stand on {scope}/{top}, no MobileNetV3 that we know"
            )
        size = V3_SIZES[top]
        arguments |= {} if width == 1 else {"expansions": "input"}
        last = keys.get(f"{scope}/Conv_1.weight")
        full = make_divisible(TABLES[size][-1].out * width)
        arguments |= {
            "size": size,
            "reduced_tail": last is not None and last.shape[1] != full,
            "minimalistic": not any("/squeeze_excite/" in key for key in keys),
        }
    backbone = {"class_path": f"detect.model.backbones.{name}", "init_args": arguments}
    return Family(scope, top, backbone, PUBLISHED_SIZES[network])


def _num_classes(state_dict: Mapping[str, Tensor]) -> int:
    try:
        boxes, classes = (state_dict[f"BoxPredictor_0/{head}.bias"] for head in (BOXES, CLASSES))
    except KeyError as error:
        raise InputError(f"not {WHAT}: {error.args[0]} is missing") from error
    return len(classes) * 4 // len(boxes) - 1


def _layer_table(net: SSDLite, family: Family) -> dict[str, str]:
    """Our layers to TensorFlow's."""
    table = {
        f"backbone.{ours}": f"{family.scope}/{theirs}" for ours, theirs in slim_layout(net.backbone).items()
    }
    width = net.backbone.width
    for i, (mid, out) in enumerate(EXTRA_LEVELS):
        stem = f"{family.scope}/{family.top}"
        second = f"{stem}_2_Conv2d_{i + 2}_3x3_s2_{int(out * width)}"
        layers = (f"{stem}_1_Conv2d_{i + 2}_1x1_{int(mid * width)}", f"{second}_depthwise", second)
        for j, theirs in enumerate(layers):
            table |= {f"extra_levels.{i}.{j}.0": theirs, f"extra_levels.{i}.{j}.1": f"{theirs}/BatchNorm"}
    for ours, head in (("cls_heads", CLASSES), ("box_heads", BOXES)):
        for i in range(len(net.cls_heads)):
            theirs = f"BoxPredictor_{i}/{head}"
            table[f"{ours}.{i}.0.0"] = f"{theirs}_depthwise"
            table[f"{ours}.{i}.0.1"] = f"{theirs}_depthwise/BatchNorm"
            table[f"{ours}.{i}.1"] = theirs
    return table


def _with_exact_gates(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the projection after each gate what TensorFlow's has more than a sixth."""
    blocks = {key.partition("/squeeze_excite/")[0] for key in state_dict if "/squeeze_excite/" in key}
    projections = [key for block in blocks if (key := f"{block}/project.weight") in state_dict]
    return {**state_dict, **{key: state_dict[key] * (GATE * 6) for key in projections}}


def _with_norms(
    state_dict: Mapping[str, Tensor], table: Mapping[str, str], *, eps: float
) -> dict[str, Tensor]:
    """Give a BatchNorm that does nothing but shift to each convolution into which one was folded."""
    whole = dict(state_dict)
    for norm in (name for name in table.values() if name.endswith("/BatchNorm")):
        layer = norm.removesuffix("/BatchNorm")
        if f"{norm}.weight" not in whole and f"{layer}.bias" in whole:
            shift = whole.pop(f"{layer}.bias")
            one = torch.ones_like(shift)
            whole |= {
                f"{norm}.weight": one,
                f"{norm}.bias": shift,
                f"{norm}.running_mean": torch.zeros_like(shift),
                f"{norm}.running_var": one - eps,
                f"{norm}.num_batches_tracked": torch.tensor(0),
            }
    return whole


def _is_box_predictor(key: str) -> bool:
    return re.fullmatch(r"box_heads\.\d+\.1\.(weight|bias)", key) is not None


def _in_xy(predictor: Tensor) -> Tensor:
    """(anchors * 4, ...) rows from TensorFlow's order of deltas to (tx, ty, tw, th)."""
    return predictor.unflatten(0, (-1, 4))[:, TO_XY].flatten(0, 1)

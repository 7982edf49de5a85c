"""What torchvision, timm, TensorFlow's slim and Keras call the layers of our backbones.

Every answer is a dictionary, our layer (a convolution or BatchNorm) to theirs, from input to output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Literal

from torch import nn

from detect.errors import InputError
from detect.model.backbones.base import Backbone
from detect.model.blocks import DepthwiseSeparable, InvertedResidual, SqueezeExcite

TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(?:conv_dw|conv)\.weight")
TORCHVISION_PART = re.compile(r"features\.(\d+)\.")
KERAS_STAGE = re.compile(r"(conv1?|conv_1|conv_pw_\d+|(?:expanded_conv|block)(?:_\d+)?_project)\.weight")

Container = Literal["block", "conv"]
"""What a block of torchvision's keeps its layers in: `block` in MobileNetV3, `conv` in V2."""


def torchvision_names(backbone: Backbone, keys: Collection[str]) -> dict[str, str]:
    """Names in torchvision's MobileNetV2 and MobileNetV3.

    Args:
        backbone: one of ours with inverted residuals.
        keys: of torchvision's state dict.

    Raises:
        InputError: the source has another number of blocks.
    """
    found = {match[1] for key in keys if (match := TORCHVISION_PART.match(key))}
    _check_depth(found, len(backbone.stages()))
    return torchvision_layout(backbone, "block" if any(".block." in key for key in keys) else "conv")


def torchvision_layout(backbone: Backbone, container: Container) -> dict[str, str]:
    """As `torchvision_names`, without a state dict to look at."""
    paths = _paths(backbone)
    names: dict[str, str] = {}
    for i, stage in enumerate(backbone.stages().values()):
        ours, theirs = paths[stage], f"features.{i}"
        if isinstance(stage, InvertedResidual):
            names |= _torchvision_block(stage, ours, f"{theirs}.{container}")
        else:
            names |= {f"{ours}.0": f"{theirs}.0", f"{ours}.1": f"{theirs}.1"}
    return names


def timm_names(backbone: Backbone, keys: Collection[str]) -> dict[str, str]:
    """Names in timm's MobileNets and MnasNets (its `EfficientNet` and `MobileNetV3` classes).

    Args:
        backbone: one of ours.
        keys: of timm's state dict, which groups blocks in stages: ours are counted through.

    Raises:
        InputError: the source has another number of blocks.
    """
    blocks = sorted({(int(m[1]), int(m[2])) for key in keys if (m := TIMM_BLOCK.fullmatch(key))})
    theirs_in_order = ["stem", *(f"blocks.{stage}.{index}" for stage, index in blocks)]
    if "bn2.weight" in keys:  # V2 and MnasNet: the last 1x1 stands outside the stages
        theirs_in_order.append("head")
    stages = backbone.stages()
    _check_depth(theirs_in_order, len(stages))
    paths = _paths(backbone)
    names: dict[str, str] = {}
    for (name, stage), theirs in zip(stages.items(), theirs_in_order, strict=True):
        ours = paths[stage]
        if name == "stem":
            names |= {f"{ours}.0": "conv_stem", f"{ours}.1": "bn1"}
        elif theirs == "head":
            names |= {f"{ours}.0": "conv_head", f"{ours}.1": "bn2"}
        elif name == "last":  # V3: a stage of its own
            names |= {f"{ours}.0": f"{theirs}.conv", f"{ours}.1": f"{theirs}.bn1"}
        else:
            names |= _timm_block(stage, ours, theirs)
    return names


def slim_layout(backbone: Backbone) -> dict[str, str]:
    """Names in slim, TensorFlow's library of networks, below the scope of the network (`MobilenetV2/`).

    Args:
        backbone: one of ours but `Timm`.
    """
    names: dict[str, str] = {}
    for i, (ours, stage) in enumerate(_own_stages(backbone)):
        if isinstance(stage, DepthwiseSeparable):
            theirs = {"0": f"Conv2d_{i}_depthwise", "1": f"Conv2d_{i}_pointwise"}
        elif isinstance(stage, InvertedResidual):
            block = "expanded_conv" + (f"_{i - 1}" if i > 1 else "")
            theirs = {layer: f"{block}/{layer}" for layer in _layers(stage)}
        else:
            first = "Conv2d_0" if isinstance(backbone.stages()["block1"], DepthwiseSeparable) else "Conv"
            theirs = {"": first if i == 0 else "Conv_1"}
        names |= _with_norms(ours, theirs, squeeze="_excite/Conv", norm=lambda layer: f"{layer}/BatchNorm")
    return names


def keras_names(backbone: Backbone, keys: Collection[str]) -> dict[str, str]:
    """Names in `keras.applications`, in the spelling of Keras 3 and lower case (see `read_keras`).

    Args:
        backbone: one of ours but `Timm` and `MnasNetA1`, which Keras does not have.
        keys: of the state dict.

    Raises:
        InputError: the source has another number of blocks.
    """
    _check_depth({match[1] for key in keys if (match := KERAS_STAGE.fullmatch(key))}, len(backbone.stages()))
    second = (
        "block" if "block_1_project.weight" in keys else "expanded_conv"
    )  # V2: only the first is expanded_conv
    names: dict[str, str] = {}
    for i, (ours, stage) in enumerate(_own_stages(backbone)):
        if isinstance(stage, DepthwiseSeparable):
            theirs = {"0": f"conv_dw_{i}", "1": f"conv_pw_{i}"}
        elif isinstance(stage, InvertedResidual):
            block = f"{second}_{i - 1}" if i > 1 else "expanded_conv"
            theirs = {layer: f"{block}_{layer}" for layer in _layers(stage)}
        elif i == 0:
            theirs = {"": "conv1" if "conv1.weight" in keys else "conv"}
        else:
            theirs = {"": "conv_1"}
        names |= _with_norms(ours, theirs, squeeze="_excite_conv", norm=lambda layer: f"{layer}_bn")
    if "bn_conv1.weight" in keys:  # V2 alone
        names["stem.1"] = "bn_conv1"
    return names


def _own_stages(backbone: Backbone) -> list[tuple[str, nn.Module]]:
    """Stages by their path in the backbone, stem first."""
    paths = _paths(backbone)
    return [(paths[stage], stage) for stage in backbone.stages().values()]


def _with_norms(
    ours: str, theirs: dict[str, str], *, squeeze: str, norm: Callable[[str], str]
) -> dict[str, str]:
    """Convolutions and their BatchNorm; a squeeze-and-excite has two convolutions and none."""
    names: dict[str, str] = {}
    for layer, name in theirs.items():
        path = f"{ours}.{layer}".rstrip(".")
        if layer == "squeeze":
            names |= {f"{path}.reduce": f"{name}{squeeze}", f"{path}.expand": f"{name}{squeeze}_1"}
        else:
            names |= {f"{path}.0": name, f"{path}.1": norm(name)}
    return names


def _paths(backbone: Backbone) -> dict[nn.Module, str]:
    return {module: path for path, module in backbone.named_modules()}


def _check_depth(found: Collection[str], expected: int) -> None:
    if len(found) != expected:
        raise InputError(f"these weights have {len(found)} stages and blocks, the backbone has {expected}")


def _layers(block: InvertedResidual | DepthwiseSeparable) -> list[str]:
    """The layers that a block has, from input to output."""
    if isinstance(block, DepthwiseSeparable):
        return ["0", "1"]
    return [
        name
        for name in ("expand", "depthwise", "squeeze", "project")
        if not isinstance(getattr(block, name), (type(None), nn.Identity))
    ]


def _torchvision_block(block: InvertedResidual, ours: str, theirs: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for j, layer in enumerate(_layers(block)):
        if isinstance(getattr(block, layer), SqueezeExcite):
            names |= {f"{ours}.{layer}.reduce": f"{theirs}.{j}.fc1"}
            names |= {f"{ours}.{layer}.expand": f"{theirs}.{j}.fc2"}
        elif layer == "project" and theirs.endswith(".conv"):  # V2 does not wrap the projection
            names |= {f"{ours}.{layer}.0": f"{theirs}.{j}", f"{ours}.{layer}.1": f"{theirs}.{j + 1}"}
        else:
            names |= {f"{ours}.{layer}.{k}": f"{theirs}.{j}.{k}" for k in (0, 1)}
    return names


def _timm_block(block: nn.Module, ours: str, theirs: str) -> dict[str, str]:
    assert isinstance(block, (InvertedResidual, DepthwiseSeparable))
    layers = _layers(block)
    convolutions = ["conv_pw", "conv_dw", "conv_pwl"] if "expand" in layers else ["conv_dw", "conv_pw"]
    names: dict[str, str] = {}
    for i, (layer, conv) in enumerate(
        zip((n for n in layers if n != "squeeze"), convolutions, strict=True), 1
    ):
        names |= {f"{ours}.{layer}.0": f"{theirs}.{conv}", f"{ours}.{layer}.1": f"{theirs}.bn{i}"}
    if "squeeze" in layers:
        names |= {f"{ours}.squeeze.{n}": f"{theirs}.se.conv_{n}" for n in ("reduce", "expand")}
    return names

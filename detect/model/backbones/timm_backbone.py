"""Any timm model with features at strides 16 and 32 as a backbone (the `timm` extra).

Where timm's blocks have an expansion layer, it is tapped as in our own backbones; elsewhere a tap is timm's
last map at that stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from detect.errors import InputError, install_hint
from detect.model.backbones.base import TAP_NAMES, Backbone, Tap, Transfer
from detect.model.backbones.pretrained import local_path, no_network, read_state_dict
from detect.model.blocks import Init, NormSettings

TapKind = Literal["auto", "expansion", "features"]
REQUIRED_STRIDES = {16, 32}
"""A model may lack features at stride 8."""


class Halves(NamedTuple):
    """Layers of one of timm's blocks, by name: those up to the expansion's activation, and those after it."""

    expand: tuple[str, ...]
    rest: tuple[str, ...]


HALVES = {
    "InvertedResidual": Halves(("conv_pw", "bn1"), ("conv_dw", "bn2", "aa", "se", "conv_pwl", "bn3")),
    "UniversalInvertedResidual": Halves(
        ("dw_start", "pw_exp"), ("dw_mid", "se", "pw_proj", "dw_end", "layer_scale")
    ),
}


def halves_of(block: nn.Module) -> Halves | None:
    """How to cut a block that strides, which has no shortcut; null: no expansion layer before its stride."""
    if type(block).__name__ == "UniversalInvertedResidual" and _stride(block.get_submodule("dw_mid")) != 2:
        return None
    return HALVES.get(type(block).__name__)


def run(block: nn.Module, layers: Sequence[str], x: Tensor) -> Tensor:
    """Apply the named layers of `block` in turn."""
    for name in layers:
        x = getattr(block, name)(x)
    return x


class TappedBlock(nn.Module):
    """A strided block of timm's, cut behind its expansion."""

    def __init__(self, block: nn.Module, halves: Halves) -> None:
        super().__init__()
        self.expand = nn.Sequential(*(getattr(block, name) for name in halves.expand))
        self.rest = nn.Sequential(*(getattr(block, name) for name in halves.rest))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The expansion's output, and the block's."""
        expanded = self.expand(x)
        return expanded, self.rest(expanded)


class ExpansionTapped(nn.Module):
    """Timm's `EfficientNet` or `MobileNetV3` class, tapped as the V3 paper's section 6.3 says.

    Args:
        model: the classifier; its layers are taken over, its pooling and classifier left.
        strided: indices of its blocks that stride from 8 to 16 and from 16 to 32, counted through all stages.
        halves: of those two blocks; of the first null where it has no expansion: c3 is then its input.
    """

    def __init__(self, model: Any, strided: tuple[int, int], halves: tuple[Halves | None, Halves]) -> None:
        super().__init__()
        blocks = [block for stage in model.blocks for block in stage]
        self.c3_index, c4_index = strided
        self.c3_halves = halves[0]
        self.stem = nn.Sequential(model.conv_stem, model.bn1)
        self.before = nn.Sequential(*blocks[:c4_index])
        self.tapped = TappedBlock(blocks[c4_index], halves[1])
        # EfficientNets have a 1x1 before pooling besides; in MobileNetV3 it is the last block.
        self.after = nn.Sequential(
            *blocks[c4_index + 1 :], *([model.conv_head, model.bn2] if hasattr(model, "bn2") else [])
        )

    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The maps of the named taps."""
        maps: dict[str, Tensor] = {}
        x = self.stem(images)
        for i, block in enumerate(self.before):
            if i != self.c3_index or "c3" not in taps:
                x = block(x)
            elif self.c3_halves is None:
                maps["c3"] = x
                x = block(x)
            else:
                maps["c3"] = run(block, self.c3_halves.expand, x)
                x = run(block, self.c3_halves.rest, maps["c3"])
        maps["c4"], x = self.tapped(x)
        maps["c5"] = self.after(x)
        return [maps[name] for name in taps]

    def parts(self) -> dict[str, nn.Module]:
        """Stem and numbered blocks; what follows the last block counts as one more each."""
        blocks = [*self.before, self.tapped, *self.after]
        return {"stem": self.stem} | {f"block{i}": block for i, block in enumerate(blocks, 1)}


class FeatureTapped(nn.Module):
    """Timm's own feature extractor.

    Args:
        model: of `timm.create_model(features_only=True)`.
        names: of the taps that it gives, in its order.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.channels_last_axis = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The maps of the named taps."""
        maps = dict(zip(self.names, self.model(images), strict=True))
        # (B, H, W, C) of some transformers -> (B, C, H, W)
        return [maps[name].permute(0, 3, 1, 2) if self.channels_last_axis else maps[name] for name in taps]

    def parts(self) -> dict[str, nn.Module]:
        """Timm's own children that have parameters."""
        return {
            name: child
            for name, child in self.model.named_children()
            if next(child.parameters(), None) is not None
        }


class Timm(Backbone):
    """A timm model up to stride 32.

    Args:
        name: timm's, with or without a tag: "mobilenetv4_conv_small", "resnet18.a1_in1k".
        tap: what c3 and c4 are. "expansion": the expansion layers of the blocks that stride from 8 to 16 and
            from 16 to 32, as in the V3 paper; "features": timm's last maps at strides 8 and 16; "auto": the
            expansion where there is one.
        settings: eps and momentum of every BatchNorm. Null: timm's own.
        weights: "imagenet" for timm's weights of that name (and tag), a path or a `file://` URL.

    Raises:
        InputError: timm is not installed, has no such model or weights, or the model lacks stride 16 or 32.
            In `forward`: the model rounds its grids otherwise than the anchors.
    """

    def __init__(
        self,
        name: str,
        *,
        tap: TapKind = "auto",
        settings: NormSettings | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.name = f"timm/{name}"
        weight_arguments = _weight_arguments(name, weights)
        self.body, self.taps = _build(name, tap, weight_arguments)
        config = _pretrained_config(name)
        self.mean, self.std = config["mean"], config["std"]
        if weights is not None:
            tagged = f"{config['architecture']}.{config['tag']}"
            self.weights_origin = {
                "weights": tagged if weights == "imagenet" else local_path(weights).name,
                "licence": f"{config.get('license') or 'not stated'} (timm)",
            }
        if weight_arguments:
            self.transfer_report = [
                Transfer(layer, "copied", tuple(module.weight.shape), tuple(module.weight.shape))
                for layer, module in self.body.named_modules()
                if isinstance(getattr(module, "weight", None), Tensor)
            ]
        if settings is not None:
            for module in self.body.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps, module.momentum = settings.bn_eps, settings.bn_momentum

    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        maps: list[Tensor] = self.body(images, taps)
        for taken, name in zip(maps, taps, strict=True):
            stride = self.taps[name].stride
            grid = [-(-side // stride) for side in images.shape[-2:]]
            if list(taken.shape[-2:]) != grid:
                raise InputError(
                    f"{self.name} gives a grid of {list(taken.shape[-2:])} at stride {stride}, a detector of "
                    f"this input needs {grid}: make model.image_size a multiple of 64"
                )
        return maps

    def stages(self) -> dict[str, nn.Module]:
        return self.body.parts()

    def init_weights(self, scheme: Init) -> None:
        """Keep what timm drew: its models know their own initialisation."""

    def resolved_args(self) -> dict[str, Any]:
        return {}  # timm's settings belong to the name


def _timm() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise InputError(f"timm models need timm: {install_hint('timm')}") from error


def _pretrained_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = _timm().get_pretrained_cfg(name).to_dict()
    return config


def _weight_arguments(name: str, weights: str | None) -> dict[str, Any]:
    """What `timm.create_model` is told about weights."""
    if weights is None or torch.get_default_device().type == "meta":
        return {}
    if weights == "imagenet":
        return {"pretrained": True}
    path = local_path(weights)
    given = read_state_dict(path)
    with torch.device("meta"):
        needed = _create(name, {}).state_dict().keys()
    classifier = _pretrained_config(name).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    missing = [key for key in needed if key not in given and not key.startswith(heads)]
    if missing:  # timm itself would only warn
        raise InputError(
            f"{path} lacks {len(missing)} tensors of timm's {name}: {', '.join(missing[:3])}, ..."
        )
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}


def _build(
    name: str, kind: TapKind, weights: dict[str, Any]
) -> tuple[ExpansionTapped | FeatureTapped, dict[str, Tap]]:
    timm = _timm()
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8])
        raise InputError(f"timm {timm.__version__} has no model {name!r}; similar: {similar or 'none'}")
    if kind != "features":
        model = _create(name, weights, num_classes=0, global_pool="")
        body = _tap_expansions(model)
        if body is not None:
            return body, _expansion_taps(body, model, kind)
        if kind == "expansion":
            raise InputError(f"timm's {name} has no expansion layer at stride 16; take `tap: features`")
    strides = _create(name, {}, features_only=True).feature_info.reduction()
    if not REQUIRED_STRIDES <= set(strides):
        raise InputError(f"timm's {name} has features at strides {strides}; a detector needs 16 and 32")
    found = [stride for stride in TAP_NAMES if stride in strides]
    # the deepest map of each stride
    indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in found]
    model = _create(name, weights, features_only=True, out_indices=indices)
    taps = {
        TAP_NAMES[stride]: Tap(channels, stride, source="features")
        for stride, channels in zip(found, model.feature_info.channels(), strict=True)
    }
    return FeatureTapped(model, list(taps)), taps


def _create(name: str, weights: dict[str, Any], **options: Any) -> Any:
    try:
        return _timm().create_model(name, **weights, **options)
    except Exception as error:  # no common base: timm's own, its hub client's, PyTorch's for shapes
        if "pretrained_cfg_overlay" in weights:
            file = weights["pretrained_cfg_overlay"]["file"]
            raise InputError(f"{file} does not fit timm's {name}: {error}") from error
        if weights:
            raise InputError(no_network(f"timm's {name}", error)) from error
        raise InputError(f"timm's {name} cannot be a backbone: {error}") from error


def _tap_expansions(model: Any) -> ExpansionTapped | None:
    """Cut `model` at the expansion of the block that strides from 16 to 32, if it has one."""
    if not (hasattr(model, "conv_stem") and hasattr(model, "blocks")):
        return None
    blocks = [block for stage in model.blocks for block in stage]
    strided = [i for i, block in enumerate(blocks) if _stride(block) == 2]
    if len(strided) != 4:  # the stem strides once; four blocks more reach 32
        return None
    to_16, to_32 = strided[2:]
    halves = halves_of(blocks[to_32])
    if halves is None:
        return None
    return ExpansionTapped(model, (to_16, to_32), (halves_of(blocks[to_16]), halves))


def _expansion_taps(body: ExpansionTapped, model: Any, kind: TapKind) -> dict[str, Tap]:
    """Taps of a cut model; without c3 where only expansions are wanted and its block has none."""
    blocks = list(body.before)
    block, halves = blocks[body.c3_index], body.c3_halves
    last = nn.ModuleList([body.tapped.expand])
    c4 = Tap(_channels(last), 16, source=f"expansion of block{len(blocks) + 1}")
    taps = {"c4": c4, "c5": Tap(model.num_features, 32, source="last")}
    if halves is not None:
        expand = nn.ModuleList([getattr(block, name) for name in halves.expand])
        c3 = Tap(_channels(expand), 8, source=f"expansion of block{body.c3_index + 1}")
    elif kind == "auto":
        c3 = Tap(
            _channels(nn.ModuleList(blocks[: body.c3_index])), 8, source=f"output of block{body.c3_index}"
        )
    else:
        return taps
    return {"c3": c3} | taps


def _channels(layers: nn.Module) -> int:
    """Output channels of the last convolution."""
    return [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels


def _stride(module: nn.Module) -> int:
    return max((layer.stride[0] for layer in module.modules() if isinstance(layer, nn.Conv2d)), default=1)

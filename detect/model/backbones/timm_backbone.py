"""Any timm model with features at strides 16 and 32 as a backbone (the `timm` extra)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.backbones.base import Backbone, Transfer
from detect.model.backbones.pretrained import local_path, no_network, read_state_dict
from detect.model.blocks import ConvSettings, Init

Tap = Literal["auto", "expansion", "features"]
STRIDES = (16, 32)


class TappedBlock(nn.Module):
    """A strided inverted residual of timm's, cut behind its expansion; it has no shortcut, for it strides."""

    def __init__(self, expand: list[nn.Module], rest: list[nn.Module]) -> None:
        super().__init__()
        self.expand = nn.Sequential(*expand)
        self.rest = nn.Sequential(*rest)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The expansion's output, and the block's."""
        expanded = self.expand(x)
        return expanded, self.rest(expanded)

    @classmethod
    def cut(cls, block: Any) -> TappedBlock | None:
        """Cut a block of timm's `_efficientnet_blocks`; null where it has no expansion before its stride."""
        kind = type(block).__name__
        if kind == "InvertedResidual":
            rest = [block.conv_dw, block.bn2, block.aa, block.se, block.conv_pwl, block.bn3]
            return cls([block.conv_pw, block.bn1], rest)
        if kind == "UniversalInvertedResidual" and _stride(block.dw_mid) == 2:
            rest = [block.dw_mid, block.se, block.pw_proj, block.dw_end, block.layer_scale]
            return cls([block.dw_start, block.pw_exp], rest)
        return None


class ExpansionTapped(nn.Module):
    """Timm's `EfficientNet` or `MobileNetV3` class, tapped as the V3 paper's section 6.3 says.

    Args:
        model: the classifier; its layers are taken over, its pooling and classifier left.
        tapped: its block that strides from 16 to 32, cut.
        tap: index of that block, counted through all stages.
    """

    def __init__(self, model: Any, tapped: TappedBlock, tap: int) -> None:
        super().__init__()
        blocks = [block for stage in model.blocks for block in stage]
        self.stem = nn.Sequential(model.conv_stem, model.bn1)
        self.before = nn.Sequential(*blocks[:tap])
        self.tapped = tapped
        # EfficientNets have a 1x1 before pooling besides; in MobileNetV3 it is the last block.
        self.after = nn.Sequential(
            *blocks[tap + 1 :], *([model.conv_head, model.bn2] if hasattr(model, "bn2") else [])
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        c4, x = self.tapped(self.before(self.stem(images)))
        return c4, self.after(x)

    def parts(self) -> dict[str, nn.Module]:
        """Stem and numbered blocks; what follows the last block counts as one more each."""
        blocks = [*self.before, self.tapped, *self.after]
        return {"stem": self.stem} | {f"block{i}": block for i, block in enumerate(blocks, 1)}


class FeatureTapped(nn.Module):
    """Timm's own feature extractor at strides 16 and 32.

    Args:
        model: of `timm.create_model(features_only=True)`, with two outputs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.channels_last_axis = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        c4, c5 = self.model(images)
        if self.channels_last_axis:  # (B, H, W, C) of some transformers -> (B, C, H, W)
            return c4.permute(0, 3, 1, 2), c5.permute(0, 3, 1, 2)
        return c4, c5

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
        tap: what c4 is. "expansion": the expansion layer of the block that strides from 16 to 32, as the V3
            paper's; "features": timm's last map at stride 16; "auto": the expansion where there is one.
        settings: eps and momentum of every BatchNorm. Null: timm's own.
        weights: "imagenet" for timm's weights of that name (and tag), a path or a `file://` URL.

    Raises:
        InputError: timm is not installed, has no such model or weights, or the model lacks the strides.
            In `forward`: the model rounds its grids otherwise than the anchors.
    """

    def __init__(
        self,
        name: str,
        *,
        tap: Tap = "auto",
        settings: ConvSettings | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.name = f"timm/{name}"
        weight_arguments = _weight_arguments(name, weights)
        self.body, self.out_channels = _build(name, tap, weight_arguments)
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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        c4, c5 = self.body(images)
        for taken, stride in zip((c4, c5), STRIDES, strict=True):
            grid = [-(-side // stride) for side in images.shape[-2:]]
            if list(taken.shape[-2:]) != grid:
                raise InputError(
                    f"{self.name} gives a grid of {list(taken.shape[-2:])} at stride {stride}, a detector of "
                    f"this input needs {grid}: make model.image_size a multiple of 64"
                )
        return c4, c5

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
        raise InputError("timm models need the extra: `pip install detect[timm]`") from error


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
    name: str, tap: Tap, weights: dict[str, Any]
) -> tuple[ExpansionTapped | FeatureTapped, tuple[int, int]]:
    timm = _timm()
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8])
        raise InputError(f"timm {timm.__version__} has no model {name!r}; similar: {similar or 'none'}")
    if tap != "features":
        model = _create(name, weights, num_classes=0, global_pool="")
        body = _tap_expansion(model)
        if body is not None:
            c4 = [layer for layer in body.tapped.expand.modules() if isinstance(layer, nn.Conv2d)][-1]
            return body, (c4.out_channels, model.num_features)
        if tap == "expansion":
            raise InputError(f"timm's {name} has no expansion layer at stride 16; take `tap: features`")
    strides = _create(name, {}, features_only=True).feature_info.reduction()
    if not set(STRIDES) <= set(strides):
        raise InputError(f"timm's {name} has features at strides {strides}; a detector needs 16 and 32")
    # the deepest map of each stride
    indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    model = _create(name, weights, features_only=True, out_indices=indices)
    c4, c5 = model.feature_info.channels()
    return FeatureTapped(model), (c4, c5)


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


def _tap_expansion(model: Any) -> ExpansionTapped | None:
    """Cut `model` at the expansion of the block that strides from 16 to 32, if it has one."""
    if not (hasattr(model, "conv_stem") and hasattr(model, "blocks")):
        return None
    blocks = [block for stage in model.blocks for block in stage]
    strided = [i for i, block in enumerate(blocks) if _stride(block) == 2]
    tapped = TappedBlock.cut(blocks[strided[-1]]) if strided else None
    # The stem strides once; four blocks more reach 32.
    return ExpansionTapped(model, tapped, strided[-1]) if tapped is not None and len(strided) == 4 else None


def _stride(module: nn.Module) -> int:
    return max((layer.stride[0] for layer in module.modules() if isinstance(layer, nn.Conv2d)), default=1)

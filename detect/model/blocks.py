"""Convolution blocks of backbones, extra levels and heads: the only copy in the project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detect.errors import InputError

Activation = Literal["relu", "relu6", "hard_swish", "none"]
Gate = Literal["hard_sigmoid", "sigmoid"]
Init = Literal["normal", "kaiming"]
"""Normal with `INIT_STD`, or Kaiming's by fan-out (torchvision's classification networks)."""

# Channels (mid, out) of the four maps after C5 at width 1.0; counted from Table 6 of the V3 paper.
EXTRA_LEVELS = ((256, 512), (128, 256), (128, 256), (64, 128))
INIT_STD = 0.03  # TensorFlow's detectors (initializer stddev 0.03) and torchvision's ssdlite320

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "none": nn.Identity,
}


@dataclass(frozen=True)
class NormSettings:
    """BatchNorm of every layer of a network: a network of another library takes no more than this."""

    bn_eps: float = 1e-3
    """Added to the variance. TensorFlow's value; torchvision's MobileNetV2 and most of timm use 1e-5."""
    bn_momentum: float = 0.03
    """Weight of a new batch in the running statistics: TensorFlow's decay 0.97 in detectors. 0.1 for runs of
    a few hundred steps, so that they settle."""

    def __post_init__(self) -> None:
        if not self.bn_eps > 0 or not 0 < self.bn_momentum <= 1:
            raise InputError(f"{self}: bn_eps must be above 0, bn_momentum above 0 and at most 1")


@dataclass(frozen=True)
class ConvSettings(NormSettings):
    """What differs between the sources of weights, the same for every block of a network."""

    padding: Literal["symmetric", "same"] = "symmetric"
    """"same" is TensorFlow's: where a stride leaves an odd number of pixels, the extra one is at the end."""


@dataclass(frozen=True)
class SqueezeSettings(ConvSettings):
    """Settings of a network with squeeze-and-excite blocks."""

    squeeze_divisor: int = 8
    """Squeeze widths are multiples of this: of 8 in the papers; timm's MnasNet does not round (1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.squeeze_divisor < 1:
            raise InputError(f"{self}: squeeze_divisor must be at least 1")


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never below `divisor` or nine tenths of `value`.

    Raises:
        InputError: there would be no channels.

    Source: TensorFlow's slim `mobilenet/conv_blocks.py`.
    """
    if value <= 0:
        raise InputError(f"a layer of {value:g} channels: the width of a backbone is above 0")
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Conv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": total padding by input size, the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, BatchNorm, activation; keeps the grid size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "relu6",
        settings: ConvSettings,
    ) -> None:
        same = settings.padding == "same" and stride > 1
        conv_class = Conv2dSame if same else nn.Conv2d
        conv = conv_class(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=0 if same else (kernel - 1) // 2,
            groups=groups,
            bias=False,
        )
        norm = nn.BatchNorm2d(out_channels, eps=settings.bn_eps, momentum=settings.bn_momentum)
        layers = [conv, norm]
        if activation != "none":
            layers.append(ACTIVATIONS[activation]())
        super().__init__(*layers)
        self.out_channels = out_channels


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of the map; convolutions have a bias and no norm.

    Source: MobileNetV3 section 5.3 (hard-sigmoid gate), MnasNet-A1 (sigmoid gate).
    """

    def __init__(self, channels: int, squeeze: int, *, gate: Gate) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = nn.Hardsigmoid() if gate == "hard_sigmoid" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.act(self.reduce(pooled))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise kxk, squeeze-and-excite, 1x1 projection; a residual where shapes allow.

    `expand` is a module of its own, so that a detector can tap its output (V3 paper 6.3, V2 paper 6.2).

    Source: MobileNetV2 section 3.3; squeeze-and-excite from MobileNetV3 section 5.3.
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        squeeze: int | None,
        gate: Gate = "hard_sigmoid",
        activation: Activation,
        settings: ConvSettings,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.expanded_channels = expanded
        self.out_channels = out_channels
        self.residual = stride == 1 and in_channels == out_channels
        # An expansion of 1 is no layer at all: the depthwise convolution reads the input.
        self.expand: nn.Module = (
            nn.Identity()
            if expanded == in_channels
            else ConvNormAct(in_channels, expanded, activation=activation, settings=settings)
        )
        self.depthwise = ConvNormAct(
            expanded,
            expanded,
            kernel=kernel,
            stride=stride,
            groups=expanded,
            activation=activation,
            settings=settings,
        )
        self.squeeze = None if squeeze is None else SqueezeExcite(expanded, squeeze, gate=gate)
        self.project = ConvNormAct(expanded, out_channels, activation="none", settings=settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.from_expanded(self.expand(x), x)

    def from_expanded(self, expanded: Tensor, x: Tensor) -> Tensor:
        """The rest of the block after `expanded = self.expand(x)`, for a caller that taps the expansion."""
        y = self.depthwise(expanded)
        if self.squeeze is not None:
            y = self.squeeze(y)
        y = self.project(y)
        return x + y if self.residual else y


class DepthwiseSeparable(nn.Sequential):
    """Depthwise, then 1x1, each with BatchNorm and activation: MobileNetV1's block (its Table 1)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int,
        activation: Activation,
        settings: ConvSettings,
    ) -> None:
        super().__init__(
            ConvNormAct(
                in_channels,
                in_channels,
                kernel=kernel,
                stride=stride,
                groups=in_channels,
                activation=activation,
                settings=settings,
            ),
            ConvNormAct(in_channels, out_channels, activation=activation, settings=settings),
        )
        self.out_channels = out_channels


class ExtraLevel(nn.Sequential):
    """Halve the map before it: 1x1 to `mid`, 3x3 depthwise with stride 2, 1x1 to `out_channels`."""

    def __init__(self, in_channels: int, mid: int, out_channels: int, *, settings: ConvSettings) -> None:
        super().__init__(
            ConvNormAct(in_channels, mid, settings=settings),
            ConvNormAct(mid, mid, kernel=3, stride=2, groups=mid, settings=settings),
            ConvNormAct(mid, out_channels, settings=settings),
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) map to (B, out_channels, h / 2, w / 2), rounded up."""
        if x.shape[-1] == 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # oneDNN (torch 2.14) does not write the gradient of the weights of a depthwise convolution that
            # strides over one column: it holds what lay in memory. Inputs up to 256 px have such maps.
            with torch.autocast("cpu", enabled=False):
                return self._layers(x.float())
        return self._layers(x)

    def _layers(self, x: Tensor) -> Tensor:
        y: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return y


class PredictionHead(nn.Sequential):
    """SSDLite's predictor of one map: 3x3 depthwise with BatchNorm and ReLU6, then 1x1 with bias.

    Source: MobileNetV2 section 6.2; biases by the count of MobileNetV3 Table 6.
    """

    def __init__(self, in_channels: int, anchors: int, columns: int, *, settings: ConvSettings) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, kernel=3, groups=in_channels, settings=settings),
            nn.Conv2d(in_channels, anchors * columns, 1),
        )
        self.columns = columns

    @property
    def predictor(self) -> nn.Conv2d:
        """The last convolution; its bias is `columns` values for each anchor per cell."""
        return cast(nn.Conv2d, self[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) map to (B, h * w * anchors, columns), the anchors of a cell side by side."""
        y: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        # (B, anchors * columns, h, w) -> (B, h, w, anchors * columns) -> (B, h * w * anchors, columns)
        return y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, self.columns)


def init_weights(module: nn.Module, scheme: Init) -> None:
    """Draw the weights of every convolution below `module`, biases 0; BatchNorm keeps scale 1 and shift 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if scheme == "normal":
                nn.init.normal_(layer.weight, std=INIT_STD)
            else:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Scale pixels to the range that a backbone was trained on, on the device of the images.

    The operations are torchvision's, in its order, so that an imported detector rounds as the original does.

    Args:
        images: (B, 3, H, W) uint8, or float32 in the same 0..255 units.
        mean: (3,) in 0..1.
        std: (3,) in 0..1.

    Returns:
        (B, 3, H, W) float32.
    """
    return (images.to(torch.float32) / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)

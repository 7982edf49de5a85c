"""Which layers of a network lose most in 8 bits: each alone is rounded as int8 would round it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detect.model.blocks import ConvNormAct
from detect.model.ssdlite import SSDLite

LEVELS = 255


class LayerError(NamedTuple):
    """What 8 bits in one layer do to the outputs."""

    layer: str
    """Path of the module below the network: "backbone.blocks.3.depthwise"."""
    error: float
    """Root mean square change of logits and deltas over that of their spread."""


def layer_errors(net: SSDLite, images: Tensor) -> list[LayerError]:
    """Every convolution with its BatchNorm alone in 8 bits, the worst first.

    Rounds weights per output channel and the layer's input per tensor, between the extremes seen on `images`:
    a simulation in torch, the same whatever runtime the file is for.

    Args:
        net: the network.
        images: (B, 3, H, W) as it takes them.
    """
    net = net.eval()
    with torch.inference_mode():
        wanted = torch.cat([output.flatten() for output in net(images)[:2]])
        spread = wanted.std()
        found = []
        for name, conv in convolutions(net).items():
            with rounded(net, conv, name):
                outputs = torch.cat([output.flatten() for output in net(images)[:2]])
            found.append(LayerError(name, float((outputs - wanted).square().mean().sqrt() / spread)))
    return sorted(found, key=lambda layer: -layer.error)


def block_errors(net: SSDLite, images: Tensor, *, kept: Sequence[str] = ()) -> list[LayerError]:
    """Every block alone in 8 bits, all its convolutions at once, the worst first; see `layer_errors`.

    A block is what a runtime keeps in float32 without going back and forth between its layers: the stem, a
    block of the backbone, an extra level, the head of a level.

    Args:
        net: the network.
        images: (B, 3, H, W) as it takes them.
        kept: paths of layers in float32, which are left out.
    """
    net = net.eval()
    blocks: dict[str, list[str]] = {}
    layers = convolutions(net)
    for layer in layers:
        if not any(f"{layer}.".startswith(f"{path}.") for path in kept):
            blocks.setdefault(block_of(layer), []).append(layer)
    with torch.inference_mode():
        wanted = torch.cat([output.flatten() for output in net(images)[:2]])
        spread = wanted.std()
        found = []
        for block, members in blocks.items():
            with contextlib.ExitStack() as stack:
                for layer in members:
                    stack.enter_context(rounded(net, layers[layer], layer))
                outputs = torch.cat([output.flatten() for output in net(images)[:2]])
            found.append(LayerError(block, float((outputs - wanted).square().mean().sqrt() / spread)))
    return sorted(found, key=lambda block: -block.error)


def block_of(layer: str) -> str:
    """The block that a layer is part of: "backbone.blocks.3" of "backbone.blocks.3.1"."""
    parts = layer.split(".")
    return ".".join(parts[: 3 if parts[0] == "backbone" else 2])


def convolutions(net: SSDLite) -> dict[str, nn.Conv2d]:
    """Convolutions by the path of their layer: of the block that holds its BatchNorm, where there is one."""
    found: dict[str, nn.Conv2d] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            parent, _, _ = name.rpartition(".")
            in_block = isinstance(net.get_submodule(parent), ConvNormAct)
            found[parent if in_block else name] = module
    return found


@contextlib.contextmanager
def rounded(net: SSDLite, conv: nn.Conv2d, name: str) -> Iterator[None]:
    """The network with one convolution in 8 bits."""
    weight = conv.weight.data
    scale = folded_scale(net, name, len(weight))
    hook = conv.register_forward_pre_hook(lambda _, inputs: (round_per_tensor(inputs[0]), *inputs[1:]))
    conv.weight.data = round_per_channel(weight * scale) / scale
    try:
        yield
    finally:
        conv.weight.data = weight
        hook.remove()


def folded_scale(net: SSDLite, name: str, channels: int) -> Tensor:
    """(C, 1, 1, 1) what BatchNorm multiplies each channel with: folded in before weights are rounded."""
    block = net.get_submodule(name)
    if not isinstance(block, ConvNormAct):
        return torch.ones(channels, 1, 1, 1)
    norm = block[1]
    assert isinstance(norm, nn.BatchNorm2d)
    scale = norm.weight.data / torch.sqrt(norm.get_buffer("running_var") + norm.eps)
    # A channel that BatchNorm switched off has nothing to round.
    return torch.where(scale == 0, 1.0, scale).view(-1, 1, 1, 1)


def round_per_channel(weight: Tensor) -> Tensor:
    """(C, ...) weights to int8, symmetric, a scale for each output channel, and back."""
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) * 2 / (LEVELS - 1)
    return (weight / step).round() * step


def round_per_tensor(values: Tensor) -> Tensor:
    """Activations to uint8 between their extremes, 0 included, and back."""
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    step = (high - low).clamp(min=1e-12) / LEVELS
    return ((values - low) / step).round() * step + low

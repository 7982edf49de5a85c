"""How large a network is: parameters and multiply-adds of one image, by the conventions of the V3 paper.

TensorFlow's profiler, which the paper used, trims BatchNorm's scale and shift: it is folded into the
convolution before it. One MAdd is a multiplication with its addition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

PAPER_CLASSES = 90
"""COCO's category ids without background; also counted with where a config takes K from data."""
HARD_SWISH_MADDS = 1.5  # an element: add, clamp, two products; with it V3-Large has the paper's 0.62 billion

COUNTED = (nn.Conv2d, nn.Linear, nn.Hardswish)


class Counts(NamedTuple):
    """Size of a network, and its arithmetic at one input size, batch 1."""

    params: int
    """All weights and biases."""
    params_without_bn: int
    """Without BatchNorm's scale and shift: the paper's figure."""
    conv_madds: int
    """Convolutions only."""
    madds: int
    """Convolutions, linear layers (some timm backbones) and h-swish; attention products are not counted."""


def count(network: nn.Module, image_size: tuple[int, int]) -> Counts:
    """Count by running `network` once on a batch of one black image of `image_size` (H, W).

    The network may live on the meta device, where that costs no arithmetic. Its mode is restored.
    """
    madds: list[tuple[nn.Module, float]] = []
    handles = [
        module.register_forward_hook(lambda module, _, output: madds.append((module, _madds(module, output))))
        for module in network.modules()
        if isinstance(module, COUNTED)
    ]
    training = network.training
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *image_size, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()

    params = sum(parameter.numel() for parameter in network.parameters())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    in_norms = sum(parameter.numel() for norm in norms for parameter in norm.parameters(recurse=False))
    in_convs = sum(int(number) for module, number in madds if isinstance(module, nn.Conv2d))
    return Counts(params, params - in_norms, in_convs, round(sum(number for _, number in madds)))


def _madds(module: nn.Module, output: Tensor) -> float:
    match module:
        case nn.Conv2d():
            return output.numel() * module.weight[0].numel()
        case nn.Linear():
            return output.numel() * module.in_features
    return HARD_SWISH_MADDS * output.numel()

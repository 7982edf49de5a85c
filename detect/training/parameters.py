"""Which parameters learn, how fast and with how much decay: freezing and the optimizer's parameter groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from detect.errors import InputError
from detect.model.classifier import Classifier
from detect.model.ssdlite import SSDLite

Kind = Literal["weight", "bias", "norm"]
Network = SSDLite | Classifier
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
BLOCK_RANGE = re.compile(r"block(\d+)-(\d+)")


@dataclass(frozen=True)
class ParameterConfig:
    """What differs between the parts of a network in training.

    A part is a stage of the backbone (`stem`, `block1`, `block2`, ..., `last`; `block3-7` for several),
    `backbone` for all of them, `neck` where there is one, `extra_levels`, `cls_heads` or `box_heads`; in a
    classifier `head`.
    """

    freeze: list[str] = field(default_factory=list)
    """Parts that keep their weights, and their BatchNorm its statistics: `[stem, block1-6]` of pretrained
    weights where images are few."""
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Factor on the learning rate of a part; 1 where none is given. `{backbone: 0.1}` spares pretrained
    weights."""
    norm_weight_decay: float | None = None
    """Weight decay of scales and shifts of norms; null: the optimizer's."""
    bias_weight_decay: float | None = None
    """Weight decay of the biases of convolutions; null: the optimizer's."""


def parts_of(net: Network) -> dict[str, nn.Module]:
    """The smallest parts that can be named, from input to output; together they hold every parameter."""
    if isinstance(net, Classifier):
        return net.backbone.stages() | {"head": net.head}
    heads = {"extra_levels": net.extra_levels, "cls_heads": net.cls_heads, "box_heads": net.box_heads}
    neck = {} if net.neck is None else {"neck": net.neck}
    return net.backbone.stages() | neck | heads


def freeze(net: Network, names: Sequence[str]) -> None:
    """Stop the parts `names` from learning.

    Raises:
        InputError: a name is no part of `net`, or nothing would be left to train.
    """
    for module in _named(net, names):
        module.requires_grad_(False)
    hold_statistics(net, names)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise InputError(
            f"model.parameters.freeze names every part ({', '.join(names)}): nothing would train"
        )


def hold_statistics(net: Network, names: Sequence[str]) -> None:
    """Put the parts `names` into evaluation mode; to be called after every `net.train()`, which undoes it."""
    for module in _named(net, names):
        module.eval()


def parameter_groups(net: Network, config: ParameterConfig) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its `lr_factor`, and `weight_decay` where it is not the optimizer's.

    Frozen parameters are left out. The order depends on the names alone, so that optimizer states fit after
    a restart.

    Raises:
        InputError: a name is no part of `net`, or a part is named twice.
    """
    factors = _factors_by_part(net, config.lr_factors)
    decays: dict[Kind, float | None] = {
        "weight": None,
        "bias": config.bias_weight_decay,
        "norm": config.norm_weight_decay,
    }
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = {}
    for part, module in parts_of(net).items():
        for kind, parameter in _parameters_by_kind(module):
            if parameter.requires_grad:
                groups.setdefault((factors[part], decays[kind]), []).append(parameter)
    return [
        {"params": parameters, "lr_factor": factor} | ({} if decay is None else {"weight_decay": decay})
        for (factor, decay), parameters in groups.items()
    ]


def scale_learning_rates(optimizer: torch.optim.Optimizer) -> None:
    """Apply each group's `lr_factor` to its learning rate; once, before a schedule reads it."""
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_factor"]


def resolve(name: str, net: Network) -> list[str]:
    """The parts that a name in a config stands for.

    Raises:
        InputError: it stands for none; the message lists what there is.
    """
    stages, parts = list(net.backbone.stages()), parts_of(net)
    if name in parts:
        return [name]
    if name == "backbone":
        return stages
    if match := BLOCK_RANGE.fullmatch(name):
        first, last = int(match[1]), int(match[2])
        blocks = [f"block{i}" for i in range(first, last + 1)]
        if blocks and all(block in parts for block in blocks):
            return blocks
    raise InputError(
        f"model.parameters: this network has no part {name!r}; there are backbone, {', '.join(parts)}, "
        "and ranges such as block1-3"
    )


def _named(net: Network, names: Sequence[str]) -> list[nn.Module]:
    parts = parts_of(net)
    return [parts[part] for name in names for part in resolve(name, net)]


def _factors_by_part(net: Network, lr_factors: dict[str, float]) -> dict[str, float]:
    factors: dict[str, float] = {}
    for name, factor in lr_factors.items():
        for part in resolve(name, net):
            if part in factors:
                raise InputError(
                    f"model.parameters.lr_factors: {name!r} names {part}, which has a factor already"
                )
            factors[part] = factor
    return {part: factors.get(part, 1.0) for part in parts_of(net)}


def _parameters_by_kind(module: nn.Module) -> Iterator[tuple[Kind, nn.Parameter]]:
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if isinstance(child, NORMS):
                yield "norm", parameter
            else:
                yield ("bias" if name == "bias" else "weight"), parameter

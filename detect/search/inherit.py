"""A narrower network with the weights of a wider one: which channels are kept, and every tensor cut to them.

Channels that are added or concatenated belong together: each stands in a space, and a space keeps the same
channels wherever they are read or given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.blocks import InvertedResidual
from detect.model.necks import FPN, LCPAN, TopDown
from detect.model.ssdlite import SSDLite

Keep = Literal["l2", "taylor"]
"""By the L2 norm of filters, or by the change of the loss to first order."""
NORM_VECTORS = ("weight", "bias", "running_mean", "running_var")


class Layer(NamedTuple):
    """The channels of a convolution and of the BatchNorm behind it, as spaces that follow each other."""

    reads: tuple[str, ...]
    """Empty: all of them, and in a depthwise convolution those that it gives."""
    gives: tuple[str, ...]
    """Empty: all of them, of a predictor."""
    decides: bool = True
    """Whether its filters count in which channels are kept: it is no depthwise convolution and no gate."""
    normed: bool = True


Layers = dict[str, Layer]
"""By the path of the `ConvNormAct`, or of a convolution without BatchNorm, in the order of the network."""


def layers_of(net: SSDLite) -> Layers:
    """Every convolution of a network.

    Raises:
        InputError: the backbone or the neck is none that a search knows.
    """
    layers: Layers = {}
    maps = _backbone(net, layers)
    if net.neck is not None:
        maps = _neck(net, maps, layers)
    for i in range(len(net.extra_levels)):
        path, mid, out = f"extra_levels.{i}", f"extra{i + 1}.mid", f"extra{i + 1}.out"
        layers[f"{path}.0"] = Layer((maps[-1],), (mid,))
        layers[f"{path}.1"] = Layer((), (mid,), decides=False)
        layers[f"{path}.2"] = Layer((mid,), (out,))
        maps.append(out)
    for heads in ("cls_heads", "box_heads"):
        for i, space in enumerate(maps):
            layers[f"{heads}.{i}.0"] = Layer((), (space,), decides=False)
            layers[f"{heads}.{i}.1"] = Layer((space,), (), normed=False)
    return layers


def _backbone(net: SSDLite, layers: Layers) -> list[str]:
    """Note the layers of the backbone; returns the space of each tap."""
    backbone = net.backbone
    if not isinstance(backbone, InvertedResidualBackbone):
        raise InputError(f"model.backbone is {type(backbone).__name__}, which is no table of rows")
    space = "stem"
    layers["backbone.stem"] = Layer((), (space,))
    taps: dict[str, str] = {}
    for i, module in enumerate(backbone.blocks):
        block, name, path = cast(InvertedResidual, module), f"block{i + 1}", f"backbone.blocks.{i}"
        expanded = space if isinstance(block.expand, nn.Identity) else f"{name}.expansion"
        if expanded != space:
            layers[f"{path}.expand"] = Layer((space,), (expanded,))
        layers[f"{path}.depthwise"] = Layer((), (expanded,), decides=False)
        if block.squeeze is not None:
            squeezed = f"{name}.squeeze"
            layers[f"{path}.squeeze.reduce"] = Layer((expanded,), (squeezed,), normed=False)
            layers[f"{path}.squeeze.expand"] = Layer((squeezed,), (expanded,), decides=False, normed=False)
        space = space if block.residual else f"{name}.out"
        layers[f"{path}.project"] = Layer((expanded,), (space,))
        if i in backbone.expansions:
            taps[backbone.expansions[i]] = expanded
        if i in backbone.outputs:
            taps[backbone.outputs[i]] = space
    if backbone.last is not None:
        layers["backbone.last"] = Layer((space,), ("last",))
        taps["c5"] = "last"
    return [taps[name] for name in net.taps]


def _neck(net: SSDLite, taps: list[str], layers: Layers) -> list[str]:
    """Note the layers of the neck; returns the space of each map that it gives."""

    def separable(path: str, reads: tuple[str, ...], gives: str) -> str:
        layers[f"neck.{path}.0"] = Layer((), reads, decides=False)
        layers[f"neck.{path}.1"] = Layer(reads, (gives,))
        return gives

    if isinstance(net.neck, TopDown):
        for i, (finer, coarser) in enumerate(pairwise(taps)):
            layers[f"neck.lateral.{i}"] = Layer((coarser,), (finer,))
        return taps
    if isinstance(net.neck, FPN):
        for i, tap in enumerate(taps):
            layers[f"neck.lateral.{i}"] = Layer((tap,), ("neck.sum",))
        return [separable(f"smooth.{i}", ("neck.sum",), f"neck.smooth{i}") for i in range(len(taps))]
    if isinstance(net.neck, LCPAN):
        return _lcpan(net.neck, taps, layers, separable)
    raise InputError(f"model.neck is {type(net.neck).__name__}: a search knows FPN, LCPAN and TopDown")


def _lcpan(
    neck: LCPAN, taps: Sequence[str], layers: Layers, separable: Callable[[str, tuple[str, ...], str], str]
) -> list[str]:
    """As `LCPAN.forward`, with the names of spaces in place of maps."""
    laterals = [f"neck.lateral{i}" for i in range(len(taps))]
    for i, tap in enumerate(taps):
        layers[f"neck.lateral.{i}"] = Layer((tap,), (laterals[i],))
    merged = [laterals[-1]]
    for i, finer in enumerate(reversed(laterals[:-1])):
        merged.insert(0, separable(f"top_down.{i}", (merged[0], finer), f"neck.top_down{i}"))
    given = [merged[0]]
    for i, coarser in enumerate(merged[1:]):
        down = separable(f"down.{i}", (given[-1],), f"neck.down{i}")
        given.append(separable(f"bottom_up.{i}", (down, coarser), f"neck.bottom_up{i}"))
    separable("top_of_tap", (laterals[-1],), "neck.top")
    given.append(separable("top_of_map", (given[-1],), "neck.top"))
    for i in range(len(given)):
        for j in range(neck.convs):
            given[i] = separable(f"towers.{i}.{j}", (given[i],), f"neck.tower{i}.{j}")
    return given


def sizes_of(net: SSDLite, layers: Layers) -> dict[str, int]:
    """Channels of every space."""
    return {
        layer.gives[0]: len(net.get_parameter(f"{path}.0.weight" if layer.normed else f"{path}.weight"))
        for path, layer in layers.items()
        if len(layer.gives) == 1
    }


def scores_of(net: SSDLite, layers: Layers, keep: Keep) -> dict[str, Tensor]:
    """How much each channel of every space matters, (C,) each.

    "l2" is the squared norm of the filters that give it, as they run with BatchNorm folded in. "taylor" is
    what the loss would change to first order without the channel, squared; the gradients are those that lie
    on the parameters. Before BatchNorm a filter's own gradient says nothing, for its length does not matter:
    so it is taken at BatchNorm's scale and shift.

    Source: NetAdapt (arXiv 1804.03230) section 3.3; "Importance Estimation for Neural Network Pruning" (arXiv
    1906.10771) equation 8.
    """
    scores = {space: torch.zeros(size, dtype=torch.float64) for space, size in sizes_of(net, layers).items()}
    for path, layer in layers.items():
        if layer.decides and layer.gives:
            score = _taylor(net, path, layer) if keep == "taylor" else _energy(net, path, layer)
            scores[layer.gives[0]] += score.cpu()
    return scores


@torch.no_grad()
def _energy(net: SSDLite, path: str, layer: Layer) -> Tensor:
    weight = net.get_parameter(f"{path}.0.weight" if layer.normed else f"{path}.weight")
    energy = weight.double().square().flatten(1).sum(1)
    if not layer.normed:
        return energy
    norm = cast(nn.BatchNorm2d, net.get_submodule(f"{path}.1"))
    return (
        energy * norm.weight.double().square() / (net.get_buffer(f"{path}.1.running_var").double() + norm.eps)
    )


@torch.no_grad()
def _taylor(net: SSDLite, path: str, layer: Layer) -> Tensor:
    names = (f"{path}.1.weight", f"{path}.1.bias") if layer.normed else (f"{path}.weight", f"{path}.bias")
    change = torch.zeros(len(net.get_parameter(names[0])), dtype=torch.float64)
    for name in names:
        parameter = net.get_parameter(name)
        if parameter.grad is not None:
            products = parameter.double() * parameter.grad.double()
            change += products.view(len(parameter), -1).sum(1).cpu()
    return change.square()


def kept_channels(scores: dict[str, Tensor], sizes: dict[str, int]) -> dict[str, Tensor]:
    """Of each space the channels of the highest scores, in their own order; of equal ones the first.

    Args:
        scores: see `scores_of`, of the wider network.
        sizes: of the narrower one.

    Raises:
        InputError: the narrower network has other spaces, or a wider one: its layers are others.
    """
    if scores.keys() != sizes.keys() or any(sizes[space] > len(scores[space]) for space in sizes):
        raise InputError("these networks differ in more than in the number of channels that one has less")
    return {
        space: torch.argsort(score, descending=True, stable=True)[: sizes[space]].sort().values
        for space, score in scores.items()
    }


@torch.no_grad()
def inherit(wide: SSDLite, narrow: SSDLite, *, keep: Keep = "l2") -> None:
    """Fill a narrower network of the same layers with weights of a wider one; what is kept is copied exactly.

    Were the filters of the channels that are not kept zero, both would give the same outputs.

    Args:
        wide: with the gradients of the loss on its parameters, where `keep` is "taylor".
        narrow: its weights are overwritten.
        keep: what decides.

    Raises:
        InputError: see `kept_channels`.
    """
    layers = layers_of(wide)
    if layers != layers_of(narrow):
        raise InputError("these networks have other layers: a residual, an expansion or a tap is not in both")
    kept = kept_channels(scores_of(wide, layers, keep), sizes_of(narrow, layers))
    sizes = sizes_of(wide, layers)
    source, cut = wide.state_dict(), narrow.state_dict()
    for path, layer in layers.items():
        given, read = (_places(spaces, kept, sizes) for spaces in (layer.gives, layer.reads))
        prefix = f"{path}.0" if layer.normed else path
        weight = source[f"{prefix}.weight"]
        weight = weight if given is None else weight[given.to(weight.device)]
        weight = weight if read is None else weight[:, read.to(weight.device)]
        cut[f"{prefix}.weight"].copy_(weight)
        vectors = [f"{path}.1.{name}" for name in NORM_VECTORS] if layer.normed else [f"{path}.bias"]
        for name in vectors:
            vector = source[name]
            cut[name].copy_(vector if given is None else vector[given.to(vector.device)])
        if layer.normed:
            cut[f"{path}.1.num_batches_tracked"].copy_(source[f"{path}.1.num_batches_tracked"])


def _places(spaces: tuple[str, ...], kept: dict[str, Tensor], sizes: dict[str, int]) -> Tensor | None:
    """Channels to keep of spaces that follow each other; None: all."""
    if not spaces:
        return None
    starts = [sum(sizes[space] for space in spaces[:i]) for i in range(len(spaces))]
    return torch.cat([kept[space] + start for space, start in zip(spaces, starts, strict=True)])

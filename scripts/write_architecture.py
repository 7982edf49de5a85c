"""Draw docs/architecture.md from the networks.

python scripts/write_architecture.py docs/architecture.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detect.config.model_section import read_model_section
from detect.inspection.models import Model, agrees, count_config
from detect.model.blocks import ConvNormAct, InvertedResidual
from detect.model.ssdlite import SSDLite

DRAWN = "v3_large_reduced"
COMPARED = "v3_large"
ACTIVATIONS = {nn.ReLU: "ReLU", nn.ReLU6: "ReLU6", nn.Hardswish: "h-swish"}


class Part(NamedTuple):
    """A stage of a backbone, an extra level or a head, with what it costs at one input size."""

    name: str
    layers: str
    shape: tuple[int, ...]
    """(channels, rows, columns) of its last convolution."""
    params: int
    """Without BatchNorm's scale and shift."""
    madds: int
    """Multiply-adds of its convolutions."""


def describe(module: nn.Module) -> str:
    """The convolutions of a block in words, from the modules."""
    if isinstance(module, ConvNormAct):
        conv = module[0]
        assert isinstance(conv, nn.Conv2d)
        depthwise = "depthwise " if conv.groups > 1 else ""
        stride = f", stride {conv.stride[0]}" if conv.stride[0] > 1 else ""
        activation = ACTIVATIONS.get(type(module[-1]))
        ending = f", {activation}" if activation else ""
        return f"{conv.kernel_size[0]}x{conv.kernel_size[0]} {depthwise}{conv.out_channels}{stride}{ending}"
    if isinstance(module, nn.Conv2d):
        return f"1x1 {module.out_channels} with bias"
    if isinstance(module, InvertedResidual):
        layers = [] if isinstance(module.expand, nn.Identity) else [module.expand]
        words = [describe(layer) for layer in (*layers, module.depthwise)]
        if module.squeeze is not None:
            words.append(f"squeeze {module.squeeze.reduce.out_channels}")
        shortcut = ["shortcut"] if module.residual else []
        return "; ".join([*words, describe(module.project), *shortcut])
    return "; ".join(describe(child) for child in module.children())


def measure_parts(net: SSDLite) -> list[Part]:
    """Every part of a detector on the meta device, from input to output."""
    named: dict[str, nn.Module] = dict(net.backbone.stages())
    if net.neck is not None:
        named["neck"] = net.neck
    for kind, modules in (
        ("extra", net.extra_levels),
        ("class head", net.cls_heads),
        ("box head", net.box_heads),
    ):
        named |= {f"{kind} {i}": module for i, module in enumerate(modules, 1)}
    measured: dict[nn.Module, tuple[tuple[int, ...], int]] = {}

    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        measured[module] = (tuple(output.shape[1:]), output.numel() * module.weight[0].numel())

    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(record) for module in convolutions]
    net.eval()(torch.empty(1, 3, *net.image_size, device="meta"))
    for handle in handles:
        handle.remove()
    return [_part(name, module, measured) for name, module in named.items()]


def _part(name: str, module: nn.Module, measured: dict[nn.Module, tuple[tuple[int, ...], int]]) -> Part:
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d)]
    params = sum(p.numel() for conv in convolutions for p in conv.parameters())
    madds = sum(measured[conv][1] for conv in convolutions)
    return Part(name, describe(module), measured[convolutions[-1]][0], params, madds)


def architecture_page(configs: Path) -> str:
    """The whole page in Markdown; `configs` is the folder that holds `table6`."""
    models: dict[str, Model] = {}
    for path in sorted((configs / "table6").glob("*.yaml")):
        section = read_model_section(path)
        assert section is not None
        models[path.stem] = count_config(path, section)
    drawn, full = models[DRAWN].net, models[COMPARED].net
    parts, c4 = measure_parts(drawn), drawn.backbone.taps["c4"]
    return "\n".join(
        [
            "# Architecture",
            "",
            "Drawn from the networks by `python scripts/write_architecture.py docs/architecture.md`;",
            "a test holds the page to the code. Shapes are channels x rows x columns for a 320x320 input,",
            "parameters are without BatchNorm's scale and shift, MAdds are those of convolutions.",
            "",
            "## One detector",
            "",
            f"`configs/table6/{DRAWN}.yaml`: two maps of the backbone, four more halved from the last,",
            "and on each map a class head and a box head of its own.",
            "",
            *_flow(drawn, parts),
            "",
            "## Its layers",
            "",
            *_parts_table(parts),
            "",
            "## The reduced tail",
            "",
            "From the block that strides to 32 on, output channels are halved (V3 paper, section 6.3); an",
            "expansion follows the input of its block, so the first keeps its own, and C4 stays as wide.",
            "",
            *_tail_table(measure_parts(full), parts, first=c4.source.removeprefix("expansion of ")),
            "",
            "## Taps and counts of the eleven rows of Table 6",
            "",
            *_models_table(models),
            "",
            "MAdds count h-swish at 1.5 per element. A cross: the paper's MAdds of V2 and of V2 0.35 do not",
            "follow from convolutions and h-swish, the only two of the eleven; its parameters agree in all.",
            "",
        ]
    )


def _flow(net: SSDLite, parts: list[Part]) -> list[str]:
    extras = [part for part in parts if part.name.startswith("extra")]
    shapes: list[tuple[int, ...]] = [*_tap_shapes(net), *(part.shape for part in extras)]
    names = [*(name.upper() for name in net.taps), *(part.name for part in extras)]
    lines = [
        "```mermaid",
        "flowchart LR",
        f"  image[image 3 x {net.image_size[0]} x {net.image_size[1]}] --> m0",
    ]
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        label = f"{name} {_shape(shape)}" + (f", {net.backbone.taps['c4'].source}" if name == "C4" else "")
        lines.append(f'  m{i}["{label}"]')
        if i:
            lines.append(f"  m{i - 1} --> m{i}")
        anchors = net.anchor_generator.per_cell[i]
        boxes = anchors * shape[1] * shape[2]
        lines.append(
            f'  m{i} --> h{i}["{anchors} anchors per cell: {boxes} boxes x ({net.num_classes + 1} + 4)"]'
        )
    return [*lines, "```", "", f"In all {len(net.anchors)} anchors."]


def _parts_table(parts: Iterable[Part]) -> list[str]:
    rows = ["| part | layers | output | parameters | MAdds |", "|---|---|---|---:|---:|"]
    return rows + [
        f"| {part.name} | {part.layers} | {_shape(part.shape)} | {part.params:,} | {part.madds:,} |"
        for part in parts
    ]


def _tail_table(full: list[Part], reduced: list[Part], *, first: str) -> list[str]:
    by_name = {part.name: part for part in reduced}
    names = [part.name for part in full]
    tail = [
        part for part in full[names.index(first) :] if part.name in ("last",) or part.name.startswith("block")
    ]
    rows = [
        "| part | full tail | MAdds | reduced tail | MAdds |",
        "|---|---|---:|---|---:|",
    ]
    for part in tail:
        other = by_name[part.name]
        rows.append(f"| {part.name} | {part.layers} | {part.madds:,} | {other.layers} | {other.madds:,} |")
    return rows


def _models_table(models: dict[str, Model]) -> list[str]:
    rows = [
        "| config | C4 | from | C5 | classes | params | w/o BN | paper, M | conv MAdds | MAdds | paper, B |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, model in models.items():
        net, counts, paper = model.net, model.counts, model.paper
        assert paper is not None
        params_agree = "✓" if agrees(counts.params_without_bn, paper.params_m, 1e6) else "✗"
        madds_agree = "✓" if agrees(counts.madds, paper.madds_b, 1e9) else "✗"
        c4, c5 = (_shape(shape) for shape in _tap_shapes(net))
        source = net.backbone.taps["c4"].source
        rows.append(
            f"| {name} | {c4} | {source} | {c5} | {net.num_classes} | {counts.params:,} "
            f"| {counts.params_without_bn:,} | {paper.params_m} {params_agree} | {counts.conv_madds:,} "
            f"| {counts.madds:,} | {paper.madds_b} {madds_agree} |"
        )
    return rows


def _tap_shapes(net: SSDLite) -> list[tuple[int, int, int]]:
    """(channels, rows, columns) of the taps that a detector uses."""
    grids = net.grid_sizes[: len(net.taps)]
    return [(net.backbone.taps[name].channels, *grid) for name, grid in zip(net.taps, grids, strict=True)]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def main() -> None:
    """Write the page to the path given as the only argument."""
    target = Path(sys.argv[1])
    target.write_text(architecture_page(Path(__file__).parents[1] / "configs"))
    print(f"written to {target}")


if __name__ == "__main__":
    main()

"""`detect models --config C`: the network of one configuration, layer by layer as the V3 paper's Table 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.table import Table

from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.ssdlite import SSDLite


class Layer(NamedTuple):
    """A row of the table; empty where a column says nothing of its kind."""

    stride: int
    """Input px per cell of what it reads."""
    channels: str
    """Of what it reads."""
    operator: str
    expansion: str = ""
    out: str = ""
    squeeze: str = ""
    nonlinearity: str = ""
    step: str = ""
    """Its own stride."""


def network_table(net: SSDLite, *, title: str) -> Table:
    """The table of a network for people: backbone, neck, extra levels and heads in order."""
    table = Table(title=title, caption="input: height x width x channels; exp: channels of the expansion")
    for name in ("input", "operator", "exp", "out", "SE", "NL", "stride"):
        table.add_column(name, justify="left" if name == "operator" else "right")
    for layer in [*_backbone(net), *_detector(net)]:
        rows, columns = (-(-side // layer.stride) for side in net.image_size)
        size = f"{rows}x{columns}x{layer.channels}"
        table.add_row(size, *layer[2:])
    return table


def table_json(net: SSDLite) -> dict[str, Any]:
    """The widths of a network as its configuration may give them; rows are null where the family has none."""
    backbone = net.backbone
    rows = [list(row) for row in backbone.rows] if isinstance(backbone, InvertedResidualBackbone) else None
    return {"rows": rows, "extra_levels": [[_first(level), level.out_channels] for level in net.extra_levels]}


def _first(part: Any) -> int:
    """Channels that the first layer of an extra level or a head gives."""
    channels: int = part[0].out_channels
    return channels


def _backbone(net: SSDLite) -> Iterator[Layer]:
    backbone = net.backbone
    if not isinstance(backbone, InvertedResidualBackbone):
        yield Layer(1, "3", backbone.name)
        return
    tapped = {net.backbone.taps[name].source: name for name in net.taps}
    channels = backbone.stem.out_channels
    yield Layer(1, "3", "conv2d 3x3", out=str(channels), step="2")
    stride = 2
    for number, row in enumerate(backbone.rows, 1):
        names = [tapped.get(f"{kind} of block{number}") for kind in ("expansion", "output")]
        taps = "".join(f", {name}" for name in names if name)
        yield Layer(
            stride,
            str(channels),
            f"bneck {row.kernel}x{row.kernel}{taps}",
            str(row.expansion),
            str(row.out),
            "yes" if row.squeeze else "-",
            row.nonlinearity,
            str(row.stride),
        )
        stride, channels = stride * row.stride, row.out
    if backbone.last is not None:
        yield Layer(stride, str(channels), "conv2d 1x1, c5", out=str(backbone.last.out_channels), step="1")


def _detector(net: SSDLite) -> Iterator[Layer]:
    taps = [net.backbone.taps[name] for name in net.taps]
    channels = [str(_first(head)) for head in net.cls_heads]
    if net.neck is not None:
        width = getattr(net.neck, "channels", "as they are")
        yield Layer(
            taps[0].stride,
            str(taps[0].channels),
            f"{type(net.neck).__name__} on {', '.join(net.taps)}",
            out=str(width),
        )
    first = len(channels) - len(net.extra_levels)
    for i, level in enumerate(net.extra_levels, first):
        yield Layer(
            net.strides[i - 1],
            channels[i - 1],
            "extra level",
            str(_first(level)),
            channels[i],
            "-",
            "RE6",
            "2",
        )
    anchors = net.anchor_generator.per_cell
    for stride, count, width in zip(net.strides, anchors, channels, strict=True):
        yield Layer(stride, width, f"heads, {count} anchors", out=f"{count} x ({net.num_classes + 1} + 4)")

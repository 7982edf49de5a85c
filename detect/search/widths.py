"""The widths of a detector that a search may change, by name, and the settings of one with other widths.

A width is one number of channels: the expansion of a block, the bottleneck that neighbours share, the
last 1x1, the neck, or the extra levels, all of them together. The heads follow the map that they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import groupby
from typing import Any

import torch

from detect.errors import InputError
from detect.inspection.anchor_layout import without_auto
from detect.inspection.network_table import table_json
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.blocks import make_divisible
from detect.model.checkpoint import build_detector, without_weights
from detect.model.configurable import plain
from detect.model.counts import PAPER_CLASSES
from detect.model.ssdlite import SSDLite

Widths = dict[str, int]
"""Channels by name: block4.expansion, blocks4-6.out, last, neck; extra.mid, extra.out of the first level."""

STEP = 8
"""Channels are changed in multiples of it, as in the papers."""
INT8_STEP = 16
"""Depthwise layers whose channels are no multiple of 16 take 2.5 times as long in ONNX Runtime's 8 bits."""
LAST, NECK, EXTRA_MID, EXTRA_OUT = "last", "neck", "extra.mid", "extra.out"
REPLACED = ("reduced_tail", "width")
"""Arguments of a backbone that a table of rows states itself."""


def explicit(settings: dict[str, Any]) -> dict[str, Any]:
    """A `model:` section that states every width itself: rows, stem, last, extra levels; no other weights.

    Raises:
        InputError: a wrong setting, or a backbone without a table of rows.
    """
    net = build_shapes(settings)
    backbone = net.backbone
    if not isinstance(backbone, InvertedResidualBackbone):
        raise InputError(
            f"model.backbone is {type(backbone).__name__}, which is no table of rows: a search changes those "
            "of MobileNetV3, MobileNetV2 or MnasNetA1"
        )
    stated = without_weights(settings)
    named = backbone.to_settings()
    given = stated["backbone"].get("init_args") or {} if isinstance(stated["backbone"], dict) else {}
    kept = {key: named["init_args"][key] for key in given if key not in (*REPLACED, "weights")}
    kept |= {"rows": [list(row) for row in backbone.rows], "stem": backbone.stem.out_channels}
    if backbone.last is not None:
        kept[LAST] = backbone.last.out_channels
    stated["backbone"] = {"class_path": named["class_path"], "init_args": plain(kept)}
    if net.neck is not None:
        stated[NECK] = net.neck.to_settings()
    return {**stated, "extra_levels": table_json(net)["extra_levels"]}


def build_shapes(settings: dict[str, Any]) -> SSDLite:
    """The network of a `model:` section without memory for its weights.

    Raises:
        InputError: a wrong setting.
    """
    alone = without_auto(without_weights(settings))
    with torch.device("meta"):
        return build_detector({**alone, "num_classes": alone.get("num_classes") or PAPER_CLASSES}).net


def widths_of(stated: dict[str, Any]) -> Widths:
    """The widths of settings that `explicit` made, in the order of the network."""
    arguments = stated["backbone"]["init_args"]
    rows, channels = arguments["rows"], arguments["stem"]
    widths: Widths = {}
    groups = {numbers[-1]: name for name, numbers in _bottlenecks(rows).items()}
    for number, (_, expansion, out, *_) in enumerate(rows, 1):
        if expansion != channels:  # else it has no expansion: the depthwise convolution reads the input
            widths[f"block{number}.expansion"] = expansion
        if number in groups:
            widths[groups[number]] = out
        channels = out
    if LAST in arguments:
        widths[LAST] = arguments[LAST]
    if "channels" in _neck_arguments(stated):
        widths[NECK] = _neck_arguments(stated)["channels"]
    if stated["extra_levels"]:
        widths[EXTRA_MID], widths[EXTRA_OUT] = stated["extra_levels"][0]
    return widths


def with_widths(stated: dict[str, Any], widths: Mapping[str, int]) -> dict[str, Any]:
    """The settings of the network with other widths.

    Args:
        stated: the start, from `explicit`: names are of its blocks.
        widths: by name; those that are left out stay.

    Raises:
        InputError: the start has no such width.
    """
    known = widths_of(stated)
    if unknown := [name for name in widths if name not in known]:
        raise InputError(f"no width is named {unknown[0]}; there are {', '.join(known)}")
    changed = deepcopy(stated)
    arguments = changed["backbone"]["init_args"]
    bottlenecks = _bottlenecks(stated["backbone"]["init_args"]["rows"])
    for name, channels in widths.items():
        if channels == known[name]:
            continue  # rounding would change levels that are no multiples of `STEP`
        if name in bottlenecks:
            for number in bottlenecks[name]:
                _set_out(arguments, number, channels)
        elif name.endswith(".expansion"):
            arguments["rows"][int(name.removeprefix("block").removesuffix(".expansion")) - 1][1] = channels
        elif name == LAST:
            arguments[LAST] = channels
        elif name == NECK:
            _neck_arguments(changed)["channels"] = channels
        else:
            place = (EXTRA_MID, EXTRA_OUT).index(name)
            for level, start in zip(changed["extra_levels"], stated["extra_levels"], strict=True):
                level[place] = make_divisible(start[place] * channels / known[name], STEP)
            changed["extra_levels"][0][place] = channels
    return changed


def _set_out(arguments: dict[str, Any], number: int, channels: int) -> None:
    """Set the output of a block; one after it that has no expansion is as wide as it reads."""
    rows = arguments["rows"]
    before = rows[number - 1][2]
    rows[number - 1][2] = channels
    if number < len(rows) and rows[number][1] == before:
        rows[number][1] = channels


def _neck_arguments(stated: dict[str, Any]) -> dict[str, Any]:
    neck = stated.get(NECK)
    arguments: dict[str, Any] = {} if neck is None else neck["init_args"]
    return arguments


def _bottlenecks(rows: list[Any]) -> dict[str, list[int]]:
    """Numbers of the blocks, from 1, that share an output width with their neighbours, by its name."""
    groups = {}
    for _, members in groupby(enumerate(rows, 1), key=lambda item: item[1][2]):
        numbers = [number for number, _ in members]
        ends = dict.fromkeys((numbers[0], numbers[-1]))
        groups[f"block{'s' if len(ends) > 1 else ''}{'-'.join(map(str, ends))}.out"] = numbers
    return groups


def step_of(precision: str) -> int:
    """Channels are changed in multiples of this where networks run in such a precision."""
    return INT8_STEP if precision == "int8" else STEP


def smaller(start: int, count: int, *, least: float, step: int = STEP) -> list[int]:
    """Up to `count` widths below `start`, in even steps from `least` of it on, multiples of `step`."""
    wanted = (start * (least + (1 - least) * i / count) for i in range(count))
    found = dict.fromkeys(max(step, round(value / step) * step) for value in wanted)
    return [value for value in found if value < start]

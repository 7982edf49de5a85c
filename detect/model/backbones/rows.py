"""Networks as tables: one row per block, in the columns of Tables 1 and 2 of the MobileNetV3 paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from detect.errors import InputError
from detect.model.blocks import Activation, make_divisible

Nonlinearity = Literal["RE", "RE6", "HS"]
NONLINEARITIES: dict[Nonlinearity, Activation] = {"RE": "relu", "RE6": "relu6", "HS": "hard_swish"}
"""The paper's short names; RE6 is MobileNetV2's."""
COLUMNS = "[kernel, expansion, out, SE, NL, stride]"
EXAMPLE = "[5, 240, 40, true, HS, 1]"
BLOCK_STRIDES = 4
"""Blocks of stride 2: the stem has the first 2 of the 32 px per cell of c5."""


class Row(NamedTuple):
    """One block."""

    kernel: int
    expansion: int
    """Channels of the depthwise convolution; where they are those of the block's input, there is no 1x1
    before it."""
    out: int
    squeeze: bool
    """Whether it has squeeze-and-excite."""
    nonlinearity: Nonlinearity
    stride: int


class ExpansionRow(NamedTuple):
    """`repeats` blocks as MobileNetV2's and MnasNet's papers state them, the first with `stride`."""

    factor: int
    """Of the expansion, times the channels of the block's input."""
    out: int
    repeats: int
    stride: int
    kernel: int = 3
    squeeze: bool = False


def read_rows(values: Sequence[Any]) -> tuple[Row, ...]:
    """The rows of a configuration.

    Args:
        values: lists as `COLUMNS`.

    Raises:
        InputError: a row is no such list, or they do not stride from 2 to 32 px per cell; names the row.
    """
    rows = tuple(_read_row(number, value) for number, value in enumerate(values, 1))
    strided = [number for number, row in enumerate(rows, 1) if row.stride == 2]
    if len(strided) != BLOCK_STRIDES:
        which = f"rows {', '.join(map(str, strided))} have" if strided else "no row has"
        raise InputError(
            f"backbone.rows: {which} stride 2; give {BLOCK_STRIDES} rows stride 2, so that with the first "
            "convolution c5 has a cell for every 32 px"
        )
    return rows


def _read_row(number: int, value: Any) -> Row:
    if not isinstance(value, list | tuple) or len(value) != len(Row._fields):
        raise InputError(f"backbone.rows: row {number} is {value!r}; write {COLUMNS}, as {EXAMPLE}")
    row = Row(*value)
    wrong = [
        f"{name} is {given!r}, expected {expected}"
        for name, given, fine, expected in (
            ("kernel", row.kernel, _is_count(row.kernel) and row.kernel % 2 == 1, "an odd number"),
            ("expansion", row.expansion, _is_count(row.expansion), "a number of channels"),
            ("out", row.out, _is_count(row.out), "a number of channels"),
            ("SE", row.squeeze, isinstance(row.squeeze, bool), "true or false"),
            (
                "NL",
                row.nonlinearity,
                row.nonlinearity in get_args(Nonlinearity),
                ", ".join(get_args(Nonlinearity)),
            ),
            ("stride", row.stride, _is_count(row.stride) and row.stride <= 2, "1 or 2"),
        )
        if not fine
    ]
    if wrong:
        raise InputError(
            f"backbone.rows: row {number} is {list(value)}: {'; '.join(wrong)} (the columns are {COLUMNS})"
        )
    return row


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def channels_at(width: float, channels: int) -> int:
    """Channels at a width multiplier; those of a table are kept as they are at 1.0.

    Raises:
        InputError: the width is not above 0.
    """
    return channels if width == 1.0 else make_divisible(channels * width)


def scale_rows(rows: Sequence[Row], width: float) -> tuple[Row, ...]:
    """A table at a width multiplier: expansions and outputs each for itself."""
    return tuple(
        row._replace(expansion=channels_at(width, row.expansion), out=channels_at(width, row.out))
        for row in rows
    )


def widen_by_input(rows: Sequence[Row], *, stem: int, width: float) -> tuple[Row, ...]:
    """A table at a width multiplier: expansions are ratios times the rounded channels of the block's input.

    Args:
        rows: widths are those of multiplier 1.0.
        stem: channels of the first block's input at 1.0.
        width: the multiplier.

    Source: TensorFlow's slim, `expand_input_by_factor` in `nets/mobilenet/conv_blocks.py`.
    """
    if width == 1.0:
        return tuple(rows)
    inputs = [stem, *(row.out for row in rows)]
    return tuple(
        row._replace(
            expansion=make_divisible(row.expansion / above * channels_at(width, above)),
            out=channels_at(width, row.out),
        )
        for above, row in zip(inputs, rows, strict=False)
    )


def unroll(
    table: Sequence[ExpansionRow], *, stem: int, width: float, nonlinearity: Nonlinearity
) -> tuple[Row, ...]:
    """A table of expansion factors at a width multiplier, one row per block.

    Args:
        table: widths are those of multiplier 1.0.
        stem: channels of the first block's input, at `width`.
        width: the multiplier.
        nonlinearity: of every block.
    """
    rows: list[Row] = []
    channels = stem
    for line in table:
        out = make_divisible(line.out * width)
        for i in range(line.repeats):
            stride = line.stride if i == 0 else 1
            rows.append(Row(line.kernel, line.factor * channels, out, line.squeeze, nonlinearity, stride))
            channels = out
    return tuple(rows)

"""Checkpoints of TensorFlow: a sorted table of names and places (`.index`), and raw data (`.data-*`).

Source: TensorFlow's `tensor_bundle.proto`, LevelDB's table format, protobuf's encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.errors import InputError
from detect.model.tensorflow.layout import Arrays

FLOATS: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 19: np.dtype("<f2")}
"""DT_FLOAT and DT_HALF of TensorFlow's `types.proto`."""
TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
NO_COMPRESSION = 0


def read_checkpoint_files(index: Path) -> Arrays:
    """Float variables of a checkpoint.

    Source: TensorFlow's `tensor_bundle.proto` and LevelDB's table format.

    Raises:
        InputError: a file is missing, broken or too short.
    """
    try:
        entries = dict(table_entries(index.read_bytes()))
        shards = _message(entries[b""]).get(1, 1)
    except (IndexError, KeyError, struct.error) as error:
        raise InputError(f"{index}: it is not the index of a checkpoint, or it is broken") from error
    arrays: Arrays = {}
    for name, content in entries.items():
        entry = _message(content)
        if name and entry.get(1) in FLOATS:
            stem = str(index).removesuffix(".index")
            shard = Path(f"{stem}.data-{entry.get(3, 0):05d}-of-{shards:05d}")
            arrays[name.decode()] = _read_slice(shard, entry, name.decode())
    return arrays


def _read_slice(shard: Path, entry: dict[int, Any], name: str) -> NDArray[Any]:
    """One tensor by its `BundleEntryProto`: dtype 1, shape 2, shard 3, offset 4, size 5."""
    if not shard.is_file():
        raise InputError(f"{shard}: no such file; the index of the checkpoint says that {name} is in it")
    shape = [_message(dim).get(1, 0) for dim in _repeated(entry.get(2, b""), 2)]
    dtype, size = FLOATS[entry[1]], entry.get(5, 0)
    with shard.open("rb") as file:
        file.seek(entry.get(4, 0))
        data = file.read(size)
    if len(data) != size or size != dtype.itemsize * int(np.prod(shape)):
        raise InputError(f"{shard}: {name} is incomplete in it; is the file cut off?")
    return np.frombuffer(data, dtype).reshape(shape)


def table_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table: blocks, found by an index, of entries that share beginnings."""
    (magic,) = struct.unpack("<Q", data[-8:])
    if magic != TABLE_MAGIC:
        raise KeyError("no table")
    footer = data[-FOOTER_BYTES:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)  # the handle of the meta index, which TensorFlow leaves empty
    for _, handle in _block_entries(data, footer[at:]):
        yield from _block_entries(data, handle)


def _block_entries(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    block = data[offset : offset + size]
    if data[offset + size] != NO_COMPRESSION:
        raise KeyError("TensorFlow compresses no block of an index")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's variable length, and where the next byte is."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value: Any
            value, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:  # fixed64 and fixed32
            length = 8 if wire == 1 else 4
            value, at = data[at : at + length], at + length
        yield number, value


def _message(data: bytes) -> dict[int, Any]:
    return dict(_fields(data))


def _repeated(data: bytes, wanted: int) -> list[Any]:
    return [value for number, value in _fields(data) if number == wanted]

"""Detectors as TensorFlow's Object Detection API writes them, by hand: weights by name, and files of them.

`networks/*.json` come from the API itself (its `model_builder` under TensorFlow 2.15, inputs of 96x96):
layers with the shapes of their kernels, and every eleventh row of what the network gave for `image()` with
the weights that `draw` gives.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

SIZE = 96
EPS = 1e-3
BLOCK_ENTRIES = 50


def network(name: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "networks" / f"{name}.json").read_text(encoding="utf-8"))


def image(size: int = SIZE) -> np.ndarray:
    """(size, size, 3) squares of 12 px."""
    y, x, c = np.indices((size, size, 3))
    return ((y // 12 * 37 + x // 12 * 61 + c * 83) ** 2 % 251).astype(np.uint8)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of a variable, which depend on its name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rpartition("/")[2]
    if kind == "moving_variance":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind == "gamma":
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    fan_in = shape[0] * shape[1] * (1 if kind == "depthwise_weights" else shape[2]) if len(shape) == 4 else 1
    centre, spread = {
        "moving_mean": (0, 0.1),
        "beta": (0.3, 0.2),
        "biases": (0, 0.5),
        "depthwise_weights": (0, (2 / fan_in) ** 0.5),
        "weights": (0, (1.5 / fan_in) ** 0.5),
    }[kind]
    return rng.normal(centre, spread, shape).astype(np.float32)


def variables(layers: Mapping[str, list[int]]) -> Arrays:
    """All variables of a network by their names."""
    found: Arrays = {}
    for layer, shape in layers.items():
        depthwise = shape[3] == 1
        width = (shape[2] if depthwise else shape[3],)
        names = {f"{layer}/{'depthwise_weights' if depthwise else 'weights'}": tuple(shape)}
        if "squeeze_excite" in layer or layer.endswith("Predictor"):
            names[f"{layer}/biases"] = width
        else:
            parts = ("gamma", "beta", "moving_mean", "moving_variance")
            names |= {f"{layer}/BatchNorm/{part}": width for part in parts}
        found |= {name: draw(name, shape) for name, shape in names.items()}
    return found


def frozen_graph(arrays: Arrays, *, resize_to: int | None = None) -> bytes:
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_INT32

    graph = GraphDef()
    placeholder = graph.node.add(name="image_tensor", op="Placeholder")
    for size in (-1, -1, -1, 3):
        placeholder.attr["shape"].shape.dim.add(size=size)
    constants = dict(arrays)
    if resize_to is not None:
        constants["Preprocessor/map/while/ResizeImage/stack"] = np.array([resize_to, resize_to], np.int32)
    for name, array in constants.items():
        tensor = graph.node.add(name=name, op="Const").attr["value"].tensor
        tensor.dtype = DT_INT32 if array.dtype == np.int32 else DT_FLOAT
        tensor.tensor_content = array.tobytes()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        graph.node.add(name=f"{name}/read", op="Identity", input=[name])
    return graph.SerializeToString()


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def message(fields: list[tuple[int, int | bytes]]) -> bytes:
    """A protobuf message of numbers and bytes."""
    return b"".join(
        varint(number << 3 | 2) + varint(len(value)) + value
        if isinstance(value, bytes)
        else varint(number << 3) + varint(value)
        for number, value in fields
    )


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block of LevelDB's table: each key without what it shares with the one before."""
    parts, before = [], b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
        parts.append(varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value)
        before = key
    return b"".join(parts) + struct.pack("<II", 0, 1)


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    content, handles = b"", []
    for i in range(0, len(entries), BLOCK_ENTRIES):
        part = entries[i : i + BLOCK_ENTRIES]
        handles.append((part[-1][0], varint(len(content)) + varint(len(block(part)))))
        content += block(part) + b"\0" + bytes(4)  # no compression, no checksum
    index = varint(len(content)) + varint(len(block(handles)))
    content += block(handles) + b"\0" + bytes(4)
    return content + (b"\0\0" + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def save_checkpoint(arrays: Arrays, prefix: Path) -> Path:
    """Write `prefix`.index and its one file of data."""
    data, entries = b"", [(b"", message([(1, 1)]))]
    for name, array in sorted(arrays.items()):
        shape = message([(2, message([(1, size)])) for size in array.shape])
        code = {"f": 1, "i": 9}[array.dtype.kind]
        fields = [(1, code), (2, shape), (4, len(data)), (5, array.nbytes)]
        entries.append((name.encode(), message([(k, v) for k, v in fields if v != 0]) + b"\x35" + bytes(4)))
        data += array.tobytes()
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    return prefix


def folded(arrays: Arrays, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and biases of a layer with its BatchNorm in them, as converters to `.tflite` leave them."""
    kernel = arrays.get(f"{layer}/weights", arrays.get(f"{layer}/depthwise_weights"))
    assert kernel is not None
    if f"{layer}/biases" in arrays:
        return kernel, arrays[f"{layer}/biases"]
    gamma, beta, mean, variance = (
        arrays[f"{layer}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPS)
    depthwise = kernel.shape[3] == 1
    return kernel * (scale[:, None] if depthwise else scale), beta - mean * scale


def tflite_file(arrays: Arrays, layers: Mapping[str, list[int]], *, dtype: str = "<f4") -> bytes:
    """Convolutions alone, named as TensorFlow's converter names them."""
    import flatbuffers
    import tflite

    builder = flatbuffers.Builder(1 << 20)
    buffers, tensors, operators = [_buffer(builder, b"")], [], []

    def tensor(name: str, array: np.ndarray | None = None, shape: tuple[int, ...] = (1,)) -> int:
        number = 0
        if array is not None:
            number = len(buffers)
            buffers.append(_buffer(builder, array.astype(dtype).tobytes()))
            shape = array.shape
        title = builder.CreateString(name)
        tflite.TensorStartShapeVector(builder, len(shape))
        for size in reversed(shape):
            builder.PrependInt32(size)
        sizes = builder.EndVector()
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, sizes)
        half = array is not None and dtype == "<f2"
        tflite.TensorAddType(builder, tflite.TensorType.FLOAT16 if half else tflite.TensorType.FLOAT32)
        tflite.TensorAddBuffer(builder, number)
        tflite.TensorAddName(builder, title)
        tensors.append(tflite.TensorEnd(builder))
        return len(tensors) - 1

    def operator(code: int, inputs: list[int], output: int, *, relu6: bool = False) -> None:
        depthwise = code == 1
        kind = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        getattr(tflite, f"{kind}Start")(builder)
        activation = tflite.ActivationFunctionType.RELU6 if relu6 else tflite.ActivationFunctionType.NONE
        getattr(tflite, f"{kind}AddFusedActivationFunction")(builder, activation)
        options = getattr(tflite, f"{kind}End")(builder)
        vectors = [_integers(builder, inputs), _integers(builder, [output])]
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, code)
        tflite.OperatorAddInputs(builder, vectors[0])
        tflite.OperatorAddOutputs(builder, vectors[1])
        tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, kind))
        tflite.OperatorAddBuiltinOptions(builder, options)
        operators.append(tflite.OperatorEnd(builder))

    x = tensor("pre", shape=(1, SIZE, SIZE, 3))
    for layer, shape in layers.items():
        kernel, bias = folded(arrays, layer)
        gate = layer.endswith("squeeze_excite/Conv_1")
        constants = [
            tensor(f"{layer}/Conv2D", kernel.transpose(3, 0, 1, 2)),
            tensor(f"{layer}/BatchNorm/FusedBatchNormV3", bias + 3 * gate),
        ]
        if dtype == "<f2":
            for i, constant in enumerate(constants):
                constants[i] = tensor("widened")
                operator(2, [constant], constants[i])
        ending = (
            "Relu6" if gate else "BiasAdd" if f"{layer}/biases" in arrays else "BatchNorm/FusedBatchNormV3"
        )
        scope = layer.replace("/MobilenetV1/Conv2d_0", "/MobilenetV1/MobilenetV1/Conv2d_0")
        y = tensor(f"{scope}/{ending};{layer}/Conv2D")
        operator(int(shape[3] == 1), [x, *constants], y, relu6=gate)
        x = y
    known = tflite.BuiltinOperator
    codes = [_code(builder, code) for code in (known.CONV_2D, known.DEPTHWISE_CONV_2D, known.DEQUANTIZE)]
    return _finish(builder, tensors, operators, codes=codes, buffers=buffers)


def _buffer(builder: Any, data: bytes) -> int:
    import tflite

    content = builder.CreateByteVector(data)
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, content)
    return tflite.BufferEnd(builder)


def _integers(builder: Any, values: list[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependInt32(value)
    return builder.EndVector()


def _offsets(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _code(builder: Any, code: int) -> int:
    import tflite

    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    return tflite.OperatorCodeEnd(builder)


def _finish(
    builder: Any, tensors: list[int], operators: list[int], *, codes: list[int], buffers: list[int]
) -> bytes:
    import tflite

    parts = [_offsets(builder, tensors), _integers(builder, [0]), _offsets(builder, operators)]
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, parts[0])
    tflite.SubGraphAddInputs(builder, parts[1])
    tflite.SubGraphAddOperators(builder, parts[2])
    graph = tflite.SubGraphEnd(builder)
    parts = [_offsets(builder, codes), _offsets(builder, [graph]), _offsets(builder, buffers)]
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, parts[0])
    tflite.ModelAddSubgraphs(builder, parts[1])
    tflite.ModelAddBuffers(builder, parts[2])
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())

"""8 bits for ONNX Runtime: which nodes take part, and forms of them that have 8-bit kernels there.

Half of a MobileNetV3 is h-swish and squeeze-and-excite. Left in float32 between 8-bit convolutions they cost
more in conversions than the convolutions save, so both are written such that the whole chain stays in 8 bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.deploy.exported_file import METADATA_KEY
from detect.deploy.runtimes.base import Int8Source, require
from detect.deploy.runtimes.onnx_layers import in_network, nodes_left_in_fp32
from detect.deploy.runtimes.torch_export import quiet_logging

if TYPE_CHECKING:
    from torch import Tensor

QUANTISED_OPS = ("Conv", "Add", "Mul", "GlobalAveragePool", "Relu", "Clip")
"""What runs in 8 bits. On x86 that wants uint8 activations: int8 ones run 2.4 times slower than fp32."""
SPATIAL_AXES = ([-1, -2], [-2, -1], [2, 3])
UINT8_MAX = 255
RGB = 3
MIN_DEPTHWISE = 32
"""Channels from which an 8-bit depthwise layer keeps up with a float one (ONNX Runtime 1.31, AVX-512)."""


def quantize_onnx(source: Int8Source, path: Path) -> None:
    """Write the network in 8 bits: uint8 activations, int8 weights with a scale per channel.

    The convolution of the image and hard-sigmoids stay in float32 as well. See `base.Int8Source`.
    """
    onnx = require("onnx", extra="export")
    quantization = require("onnxruntime.quantization", extra="export")
    model = onnx.load(source.fp32_file)
    write_means_as_pools(model)
    left = nodes_left_in_fp32(model, source.keep_fp32) | slow_convolutions(model)
    taken = [
        node.name for node in model.graph.node if node.op_type in QUANTISED_OPS and node.name not in left
    ]
    with quiet_logging("root"):  # it advises a step that torch's exporter has done
        quantization.quantize_static(
            model,
            path,
            _calibration_reader(quantization, source.images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED_OPS),
            nodes_to_quantize=taken,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    quantised = onnx.load(path)
    write_hard_swish_in_8_bits(quantised)
    del quantised.metadata_props[:]
    onnx.helper.set_model_props(quantised, {METADATA_KEY: json.dumps(source.description)})
    onnx.save(quantised, path)


def slow_convolutions(model: Any) -> set[str]:
    """Names of the convolutions that ONNX Runtime computes faster in float32.

    Of the image's three channels, and depthwise ones of few channels. Depthwise ones of 72 or 120 channels
    are faster too, but what stands between two 8-bit layers ONNX Runtime makes 8-bit by itself.
    """
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer if len(tensor.dims) == 4}
    found = set()
    for node in model.graph.node:
        # Not the 1-d ones of efficient channel attention.
        if node.op_type == "Conv" and node.input[1] in weights:
            channels, channels_a_group = weights[node.input[1]][:2]
            depthwise = channels_a_group == 1
            if channels < MIN_DEPTHWISE if depthwise else channels_a_group == RGB:
                found.add(node.name)
    return found


def write_means_as_pools(model: Any) -> None:
    """Means over height and width become GlobalAveragePool, of which ONNX Runtime has an 8-bit kernel."""
    from onnx import numpy_helper

    axes = {
        constant.name: numpy_helper.to_array(constant).tolist()
        for constant in model.graph.initializer
        if len(constant.dims) == 1
    }
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or not in_network(node) or not _attribute(node, "keepdims", 1):
            continue
        if len(node.input) == 2 and axes.get(node.input[1]) in SPATIAL_AXES:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


def write_hard_swish_in_8_bits(model: Any) -> None:
    """X * relu6(x + 3) / 6 as an 8-bit sum and an 8-bit product, where x is in 8 bits.

    The sum is stored in steps of 6 / 255 from 0, so that its rounding to a byte is the relu6; it is read in
    steps of 1 / 255, which is the division by 6.
    """
    from onnx import numpy_helper

    producers = {output: node.op_type for node in model.graph.node for output in node.output}
    constants: dict[str, Any] = {
        "hard_swish_zero": np.array(0, np.uint8),
        "hard_swish_most": np.array(UINT8_MAX, np.uint8),
        "hard_swish_3": np.array(3 / UINT8_MAX, np.float32),
        "hard_swish_6": np.array(6 / UINT8_MAX, np.float32),
        "hard_swish_1": np.array(1 / UINT8_MAX, np.float32),
    }
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type == "HardSwish" and producers.get(node.input[0]) == "DequantizeLinear":
            nodes += _hard_swish_nodes(node)
        else:
            nodes.append(node)
    if len(nodes) > len(model.graph.node):
        model.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in constants.items()
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _hard_swish_nodes(node: Any) -> Iterator[Any]:
    from onnx import helper

    (x,), (y,), name = node.input, node.output, node.name
    steps = (
        ("DequantizeLinear", ["hard_swish_most", "hard_swish_3", "hard_swish_zero"], f"{name}_three"),
        ("Add", [x, f"{name}_three"], f"{name}_sum"),
        ("QuantizeLinear", [f"{name}_sum", "hard_swish_6", "hard_swish_zero"], f"{name}_relu6"),
        ("DequantizeLinear", [f"{name}_relu6", "hard_swish_1", "hard_swish_zero"], f"{name}_gate"),
        ("Mul", [x, f"{name}_gate"], y),
    )
    for op_type, inputs, output in steps:
        made = helper.make_node(op_type, inputs, [output], name=f"{name}_{op_type}_{output}")
        made.metadata_props.extend(node.metadata_props)  # it stays part of its layer
        yield made


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _calibration_reader(quantization: Any, images: Tensor) -> Any:
    """The images one by one, as ONNX Runtime's calibration asks for them."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(images.split(1))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"images": image.contiguous().numpy()}

    return Reader()

"""`.tflite` of float weights: convolutions with BatchNorm folded into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.errors import InputError
from detect.model.tensorflow.layout import Arrays, package, size_of_images

FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
"""FLOAT32 and FLOAT16 of the format's schema."""
GATE_SHIFT = 3.0
"""Of the hard sigmoid relu6(x + 3) / 6, which `.tflite` adds to the biases of the convolution before it."""
OPERATION = re.compile(r"(.*?)/(?:BatchNorm/.*|BiasAdd|Relu6?|add|Conv2D|depthwise|separable_conv2d/.*)")


def read_tflite(path: Path) -> tuple[Arrays, tuple[int, int] | None]:
    """Kernels and biases of the convolutions by the layer that each was, BatchNorm folded into them.

    An operator is named by the tensor that it gives; converters put the layer first:
    `FeatureExtractor/MobilenetV2/Conv/Relu6;...`.

    Raises:
        InputError: the weights are integers, or the converter was one that this reader does not know.
    """
    tflite = package("tflite", "a .tflite")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise InputError(f"{path}: not a file of TensorFlow Lite")
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    coded = [(_operator_code(model.OperatorCodes(op.OpcodeIndex())), op) for op in operators]
    known = tflite.BuiltinOperator
    widened = {op.Outputs(0): op.Inputs(0) for code, op in coded if code == known.DEQUANTIZE}
    arrays: Arrays = {}
    for code, op in coded:
        output = graph.Tensors(op.Outputs(0)).Name().decode()
        if code == known.MUL and "/hard_swish/" in output:
            raise InputError(
                f"{path}: {output} is computed in parts: its converter may have moved factors of "
                "h-swish into other layers; give the frozen graph or the checkpoint instead"
            )
        if code in (known.CONV_2D, known.DEPTHWISE_CONV_2D):
            layer = layer_of_output(output)
            kernel, bias = (_constant(model, graph, widened.get(i, i)) for i in (op.Inputs(1), op.Inputs(2)))
            if layer.endswith("/squeeze_excite/Conv_1") and _ends_in_relu6(tflite, op):
                bias = bias - np.float32(GATE_SHIFT)
            # (out, h, w, in), depthwise (1, h, w, channels), to slim's layouts
            arrays |= {f"{layer}/weights": kernel.transpose(1, 2, 3, 0), f"{layer}/biases": bias}
    return arrays, size_of_images(graph.Tensors(graph.Inputs(0)).ShapeAsNumpy())


def layer_of_output(name: str) -> str:
    """The layer of the Object Detection API that gives a tensor of a `.tflite`."""
    first = name.split(";")[0]
    # a scope entered twice: FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0
    first = re.sub(r"/(Mobilenet\w+)/\1/", r"/\1/", first)
    match = OPERATION.fullmatch(first)
    return match[1] if match else first


def _operator_code(code: Any) -> int:
    # a byte in the first versions of the format; the larger of both is the code
    return max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))


def _ends_in_relu6(tflite: Any, convolution: Any) -> bool:
    options = tflite.Conv2DOptions()
    table = convolution.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return bool(options.FusedActivationFunction() == tflite.ActivationFunctionType.RELU6)


def _constant(model: Any, graph: Any, index: int) -> NDArray[Any]:
    tensor = graph.Tensors(index)
    dtype = FLOATS.get(tensor.Type())
    name = tensor.Name().decode()
    if dtype is None:
        raise InputError(f"{name} holds integers: only a .tflite of float weights can be converted")
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    if isinstance(data, int):  # flatbuffers' way to say that there are none
        raise InputError(f"{name} has no values in the file")
    return np.frombuffer(data.tobytes(), dtype).reshape(tensor.ShapeAsNumpy())

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detect.data.augment.view import resize_pixels
from detect.data.synthetic.images import generated_images
from detect.deploy.export import ExportOptions, export
from detect.deploy.exported_file import read_json
from detect.deploy.graphs import build_graph
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import Int8Source
from detect.deploy.runtimes.onnx_int8 import (
    QUANTISED_OPS,
    quantize_onnx,
    slow_convolutions,
    write_hard_swish_in_8_bits,
    write_means_as_pools,
)
from tests.detector_cases import lively_detector, save_checkpoint

HARD_SWISH = {
    "class_path": "detect.model.backbones.MobileNetV3",
    "init_args": {"size": "small", "reduced_tail": True},
}


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return output


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_write_hard_swish_in_8_bits__equals_it_to_a_step_of_the_bytes() -> None:
    step = 0.0625
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("HardSwish", ["d"], ["y"], name="h"),
    ]
    model = model_of(nodes, {"s": np.float32(step), "z": np.uint8(128)})
    x = np.linspace(-8, 7.9375, 6 * 256, dtype=np.float32).reshape(1, 2, 3, 256)
    wanted = run(model, x)
    write_hard_swish_in_8_bits(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node][-3:] == ["QuantizeLinear", "DequantizeLinear", "Mul"]
    found = run(model, x)
    assert np.abs(found - wanted).max() <= 8 * 1 / 255 / 2 + 1e-5  # x times half a step of the gate
    assert np.all(found[x >= 3.5] == wanted[x >= 3.5])
    assert np.all(found[x <= -3.5] == 0)


def test_write_hard_swish_in_8_bits__one_in_float_is_left() -> None:
    model = model_of([helper.make_node("HardSwish", ["x"], ["y"], name="h")], {})
    write_hard_swish_in_8_bits(model)
    assert [node.op_type for node in model.graph.node] == ["HardSwish"]
    assert len(model.graph.initializer) == 0


@pytest.fixture(scope="module")
def fp32_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard-swish")
    module = lively_detector(backbone=HARD_SWISH)
    file = folder / "fp32.onnx"
    export(save_checkpoint(module, folder / "small.ckpt"), file, ExportOptions(form="raw"))
    return file


@pytest.mark.slow
def test_write_means_as_pools__the_same_figures(fp32_file: Path) -> None:
    model = onnx.load(fp32_file)
    write_means_as_pools(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("GlobalAveragePool") == 9  # squeezes of V3-Small
    assert "ReduceMean" not in kinds
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 128)).astype(np.uint8)
    outputs = []
    for case in (onnx.load(fp32_file), model):
        session = onnxruntime.InferenceSession(case.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"images": images}))
    for found, wanted in zip(*outputs, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
def test_slow_convolutions__of_the_picture_and_of_few_channels(fp32_file: Path) -> None:
    model = onnx.load(fp32_file)
    slow = slow_convolutions(model)
    first, second = [node.name for node in model.graph.node if node.op_type == "Conv"][:2]
    assert {first, second} <= slow  # 16 channels each; the second is depthwise
    assert len(slow) < 6


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    pictures = [resize_pixels(picture, (96, 128), "antialias") for picture in generated_images(4)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def quantised(fp32_file: Path, path: Path, images: torch.Tensor) -> Path:
    description = read_json(fp32_file)
    description["export"] |= {"precision": "int8", "calibration": {"sha256": "of pictures"}}
    graph = build_graph(lively_detector(backbone=HARD_SWISH), "raw")
    quantize_onnx(Int8Source(graph, fp32_file, images, description, ()), path)
    return path


def test_slow_convolutions__one_dimensional_ones_are_none_of_them() -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c")], {"w": np.ones((1, 1, 3), dtype=np.float32)}
    )
    assert slow_convolutions(model) == set()


@pytest.mark.slow
def test_quantize_onnx__no_float_pass_between_8_bit_layers(
    fp32_file: Path, tmp_path: Path, images: torch.Tensor
) -> None:
    model = onnx.load(quantised(fp32_file, tmp_path / "int8.onnx", images))
    producers = {output: node for node in model.graph.node for output in node.output}
    in_float = [
        node
        for node in model.graph.node
        if node.op_type in (*QUANTISED_OPS, "HardSwish")
        and any(i in producers and producers[i].op_type != "DequantizeLinear" for i in node.input)
    ]
    assert len(in_float) <= 4  # the stem, its h-swish, and the depthwise layers of 16 channels


@pytest.mark.slow
def test_quantize_onnx__h_swish_in_8_bits_costs_little_more_than_in_float(
    fp32_file: Path, tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(file: Path) -> float:
        with open_exported(file) as runtime, open_exported(fp32_file) as reference:
            pairs = zip(runtime.run(images), reference.run(images), strict=True)
            return sum(float((found - wanted).abs().mean()) for found, wanted in pairs)

    ours = error(quantised(fp32_file, tmp_path / "a.onnx", images))
    monkeypatch.setattr("detect.deploy.runtimes.onnx_int8.write_hard_swish_in_8_bits", lambda model: None)
    in_float = error(quantised(fp32_file, tmp_path / "b.onnx", images))
    assert 0 < ours < 1.25 * in_float

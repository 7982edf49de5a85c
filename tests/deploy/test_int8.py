import json
import re

import onnx
import pytest

from detect.commands.main import main
from detect.deploy import int8 as export_int8
from detect.deploy.export import ExportOptions, export
from detect.deploy.exported_file import file_sha256, json_path, read_json
from detect.deploy.graphs import build_graph
from detect.deploy.int8 import Gate, Int8Options, calibrate, gate, refuse
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import Int8Source
from detect.deploy.runtimes.onnx_int8 import slow_convolutions
from detect.deploy.runtimes.onnx_layers import in_layers, nodes_left_in_fp32
from detect.deploy.runtimes.table import FORMATS
from detect.deploy.spec import OUTPUTS, ModelSpec
from detect.deploy.validate import open_validation
from detect.errors import InputError
from tests.conftest import make_coco
from tests.deploy.test_sensitivity import spoil
from tests.detector_cases import checkpoint, exported, lively_detector

DATA = {"workers": 0, "batch_size": 4}
SCORES = OUTPUTS["nms"].index("scores")
"""Best first, so that those of two files can be compared though their boxes may swap."""


@pytest.fixture
def options(tmp_path):
    root = make_coco(tmp_path / "coco", train=6, val=4)
    return Int8Options({"root": root, **DATA}, images=6, max_drop=0.3)


def int8_description(path):
    description = read_json(path)
    description["export"] |= {"precision": "int8", "calibration": {"sha256": "of pictures"}}
    return description


def quantised(path, options, *, keep_fp32=(), format="onnx"):
    """An int8 file from the small detector's ONNX file; far quicker than an export from a checkpoint."""
    description = int8_description(exported())
    description["export"]["format"] = format
    images = calibrate(lively_detector(), options).images
    graph = build_graph(lively_detector(), "nms")
    FORMATS[format].write_int8(Int8Source(graph, exported(), images, description, keep_fp32), path)
    return path


def types_of(model):
    return {initializer.name: initializer.data_type for initializer in model.graph.initializer}


def test_gate__by_hand():
    held = Gate(0.5, 0.495, 72, 0.01)
    assert held.drop == pytest.approx(0.005)
    assert held.passes
    assert not Gate(0.5, 0.48, 72, 0.01).passes
    assert Gate(0.5, 0.52, 72, 0.0).passes  # better is no drop
    assert held.to_json() == {
        "mAP_fp32": 0.5,
        "mAP_int8": 0.495,
        "images": 72,
        "max_drop": 0.01,
        "drop": 0.005,
    }
    assert "a drop of 0.0050, allowed 0.01" in str(held)


def test_gate__too_few_images_to_tell__passes_and_says_so():
    unsure = Gate(0.5, 0.4825, 40, 0.01, (-0.012, 0.05))
    assert unsure.passes
    assert "(95 % of resamples of the images: -0.0120 to 0.0500); so few images cannot tell" in str(unsure)
    assert unsure.to_json()["interval"] == [-0.012, 0.05]
    sure = Gate(0.5, 0.45, 400, 0.01, (0.02, 0.08))
    assert not sure.passes
    assert "cannot tell" not in str(sure)


def test_refuse__names_the_blocks_that_hurt_most(options):
    module = lively_detector()
    spoil(module.net.cls_heads[1])
    message = str(refuse(Gate(0.5, 0.3, 4, 0.01), module, calibrate(module, options)))
    lines = message.splitlines()
    assert "a drop of 0.2000, allowed 0.01; no file was written" in lines[0]
    assert lines[1].startswith("  cls_heads.1: ")
    assert len(lines) == 1 + export_int8.WORST_BLOCKS + 1
    assert "--keep_fp32 cls_heads.1" in lines[-1]


def test_refuse__advises_what_was_tried_and_passes_with_what_was_kept(options):
    module = lively_detector()
    tried = []

    def attempt(keep):
        tried.append(keep)
        return Gate(0.5, 0.3 if len(tried) < 2 else 0.495, 4, 0.01)

    kept = ("cls_heads", "backbone.blocks.3")
    message = str(
        refuse(Gate(0.5, 0.3, 4, 0.01), module, calibrate(module, options), kept=kept, attempt=attempt)
    )
    assert len(tried) == 2
    assert all(keep[:2] == kept for keep in tried)
    assert len(tried[1]) > len(tried[0]) > 2
    assert "  cls_heads" not in message  # what is kept loses nothing
    assert f"this passes, with a drop of 0.0050: --keep_fp32 {' '.join(tried[1])}" in message


def test_refuse__nothing_passes__says_so_and_advises_no_layers(options):
    module = lively_detector()
    failing = Gate(0.5, 0.3, 4, 0.01)
    message = str(refuse(failing, module, calibrate(module, options), attempt=lambda keep: failing))
    assert "the drop is still 0.2000: use the float32 file" in message
    assert "--keep_fp32" not in message


def test_nodes_left_in_fp32__names_the_layer():
    model = onnx.load(exported())
    assert nodes_left_in_fp32(model, ("cls_heads", "box_heads.0.1")) > nodes_left_in_fp32(model, ())
    with pytest.raises(InputError, match=r"--keep_fp32 heads: the network has no such layer"):
        nodes_left_in_fp32(model, ("cls_heads", "heads"))


def test_quantise__onnx_has_int8_weights_uint8_activations_and_its_description(options, tmp_path):
    path = quantised(tmp_path / "a.onnx", options)
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") > 20
    types = types_of(model)
    slow = slow_convolutions(onnx.load(exported()))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.name not in slow]
    assert len(convolutions) > 40
    producers = {node.output[0]: node for node in model.graph.node}
    for node in convolutions:
        activation, weight = (producers[name] for name in node.input[:2])
        assert (activation.op_type, weight.op_type) == ("DequantizeLinear",) * 2
        assert types[activation.input[2]] == onnx.TensorProto.UINT8
        assert types[weight.input[0]] == onnx.TensorProto.INT8
    scale = next(i for i in model.graph.initializer if i.name == producers[convolutions[0].input[1]].input[1])
    assert scale.dims[0] > 1  # a scale for each channel
    images = calibrate(lively_detector(), options).images[:3]
    with open_exported(path) as runtime, open_exported(exported()) as reference:
        assert runtime.precision == "int8"
        found, wanted = (model.run(images)[SCORES] for model in (runtime, reference))
    assert 0 < (found - wanted).abs().mean() < 0.1


def test_quantise__leaves_named_layers_alone(options, tmp_path):
    model = onnx.load(quantised(tmp_path / "a.onnx", options, keep_fp32=("backbone", "cls_heads")))
    producers = {node.output[0]: node.op_type for node in model.graph.node}
    slow = slow_convolutions(onnx.load(exported()))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    kept = [in_layers(node, ("backbone", "cls_heads")) or node.name in slow for node in convolutions]
    assert {True, False} == set(kept)
    assert [producers.get(node.input[1]) for node in convolutions] == [
        None if in_float else "DequantizeLinear" for in_float in kept
    ]


def test_gate__the_same_file_drops_nothing(options):
    data = open_validation(ModelSpec.of_detector(lively_detector()), options.data)
    found = gate(exported(), exported(), data, max_drop=options.max_drop)
    assert found.drop == 0
    assert found.images == 4
    assert found.max_drop == 0.3


@pytest.mark.slow
def test_export__a_drop_too_large_leaves_no_file_and_fails_the_command(tmp_path, monkeypatch, capsys):
    exported()  # made by the real `write_verified`
    monkeypatch.setattr(
        "detect.deploy.export.write_verified", lambda model, path, **rest: copy_of_exported(path)
    )
    monkeypatch.setattr(
        "detect.deploy.export.gate", lambda fp32, int8, data, *, max_drop: Gate(0.5, 0.4, 4, max_drop)
    )
    root = make_coco(tmp_path / "coco", train=3)
    arguments = [
        "--ckpt_path",
        str(checkpoint()),
        "--format",
        "onnx",
        "--output",
        str(tmp_path / "out" / "a.onnx"),
    ]
    arguments += ["--int8", "--calibration", str(root), "--max_drop", "0.05"]
    assert main(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert "a drop of 0.1000, allowed 0.05; no file was written" in captured.err
    assert "blocks in float32 the drop is still 0.1000: use the float32 file" in captured.err
    assert "int8: ranges from 3 images" in captured.out  # also where the output is no terminal
    assert list((tmp_path / "out").iterdir()) == []


def copy_of_exported(path):
    """Instead of an export that takes seconds: the same file, already there."""
    path.write_bytes(exported().read_bytes())
    content = json.loads(json_path(exported()).read_text())
    json_path(path).write_text(json.dumps(content))
    from detect.deploy.verify import Verification

    return Verification((1, 3), {}, 0, [])


def test_export__int8_file_says_what_it_was_calibrated_on(options, tmp_path, monkeypatch, caplog):
    exported()  # made by the real `write_verified`
    monkeypatch.setattr(
        "detect.deploy.export.write_verified", lambda model, path, **rest: copy_of_exported(path)
    )
    path = tmp_path / "a.onnx"
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        assert export(checkpoint(), path, ExportOptions(int8=options)) == 0
    assert sum(message.startswith("val: ") for message in caplog.messages) == 1  # opened once for both files
    content = json.loads(json_path(path).read_text())
    assert content["export"]["precision"] == "int8"
    pictures = sorted((options.data["root"] / "train").iterdir())
    assert content["export"]["calibration"] == {
        "source": "instances_train.json",
        "images": 6,
        "sha256": file_sha256(pictures),
    }
    assert set(content["verification"]) == {
        "mAP_fp32",
        "mAP_int8",
        "images",
        "max_drop",
        "drop",
        "interval",
    }
    assert "int8 ranges were taken on 6 images" in (tmp_path / "a.onnx.md").read_text()
    assert path.stat().st_size < exported().stat().st_size


def test_export_command__int8_and_calibration_belong_together(tmp_path, capsys):
    arguments = ["--ckpt_path", "a.ckpt", "--format", "onnx", "--output", str(tmp_path / "a.onnx")]
    assert main(["export", *arguments, "--int8"]) == 2
    assert "--int8 and --calibration DATA belong together" in capsys.readouterr().err
    assert main(["export", *arguments, "--calibration", str(tmp_path)]) == 2
    assert "belong together" in capsys.readouterr().err


def test_export__litert_in_int8_is_refused_with_the_reason(options, tmp_path):
    with pytest.raises(InputError, match="LiteRT would run it slower than fp32"):
        export(checkpoint(), tmp_path / "a.tflite", ExportOptions(format="litert", int8=options))


@pytest.mark.slow
def test_quantise__openvino_by_nncf(options, tmp_path):
    images = calibrate(lively_detector(), options).images[:3]
    file = quantised(tmp_path / "a.xml", options, keep_fp32=("backbone",), format="openvino")
    with open_exported(file) as runtime, open_exported(exported()) as reference:
        assert runtime.precision == "int8"
        found, wanted = (model.run(images)[SCORES] for model in (runtime, reference))
    assert 0 < (found - wanted).abs().mean() < 0.1
    rounded = {
        name.split("/")[0] for name in re.findall(r'name="(\S+)" type="FakeQuantize"', file.read_text())
    }
    kept = nodes_left_in_fp32(onnx.load(exported()), ("backbone",))
    assert rounded - kept
    assert len(rounded & kept) <= 2 < len(kept)  # what leaves the backbone is rounded for the layers behind

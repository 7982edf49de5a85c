"""Files of TensorFlow: what is read, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.errors import InputError
from detect.model.tensorflow import layout
from detect.model.tensorflow.checkpoint import read_checkpoint_files
from detect.model.tensorflow.files import read_tensorflow
from detect.model.tensorflow.lite import layer_of_output, read_tflite
from tests.model.tensorflow import cases

LAYERS = {"FeatureExtractor/MobilenetV2/Conv": [3, 3, 3, 8], "BoxPredictor_0/ClassPredictor": [1, 1, 8, 6]}


def test_a_checkpoint__every_float_is_read(tmp_path: Path) -> None:
    layers = {f"FeatureExtractor/MobilenetV2/expanded_conv_{i}/expand": [1, 1, 8, 16] for i in range(40)}
    arrays = cases.variables(layers)
    cases.save_checkpoint({**arrays, "global_step": np.array(7)}, tmp_path / "model.ckpt")
    found = read_checkpoint_files(tmp_path / "model.ckpt.index")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    # the name of the index will do as well
    assert read_tensorflow(tmp_path / "model.ckpt.index").state_dict.keys() == (
        read_tensorflow(tmp_path / "model.ckpt").state_dict.keys()
    )


def test_a_checkpoint__broken_or_incomplete__refused(tmp_path: Path) -> None:
    prefix = cases.save_checkpoint(cases.variables(LAYERS), tmp_path / "model.ckpt")
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[:-4])
    with pytest.raises(InputError, match=r"moving_variance is incomplete in it|weights is incomplete in it"):
        read_tensorflow(prefix)
    data.unlink()
    with pytest.raises(InputError, match=r"data-00000-of-00001: no such file"):
        read_tensorflow(prefix)
    index = tmp_path / "model.ckpt.index"
    whole = index.read_bytes()
    for broken in (b"", whole[:-1], b"\xff" * len(whole), whole[:-48] + bytes(40) + whole[-8:]):
        index.write_bytes(broken)
        with pytest.raises(InputError, match=r"model.ckpt.index: it is not the index of a checkpoint"):
            read_tensorflow(prefix)


def test_files_that_are_no_detectors__refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.ckpt: no file of TensorFlow; expected a frozen graph"):
        read_tensorflow(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"model.pb: no such file"):
        read_tensorflow(tmp_path / "model.pb")
    (tmp_path / "model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(InputError, match=r"model.pb: it cannot be read as a frozen graph"):
        read_tensorflow(tmp_path / "model.pb")
    (tmp_path / "model.pb").write_bytes(cases.frozen_graph({"dense/kernel": np.zeros((2, 2), np.float32)}))
    with pytest.raises(InputError, match=r"model.pb: it has no variable FeatureExtractor/"):
        read_tensorflow(tmp_path / "model.pb")
    pytest.importorskip("tflite", reason="needs the tensorflow extra: pip install --editable .[tensorflow]")
    (tmp_path / "model.tflite").write_bytes(b"0123456789")
    with pytest.raises(InputError, match=r"model.tflite: not a file of TensorFlow Lite"):
        read_tensorflow(tmp_path / "model.tflite")


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_a_tflite__kernels_are_those_before(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="needs the tensorflow extra: pip install --editable .[tensorflow]")
    layers = {**LAYERS, "FeatureExtractor/MobilenetV2/expanded_conv/depthwise": [3, 3, 8, 1]}
    arrays = cases.variables(layers)
    (tmp_path / "model.tflite").write_bytes(cases.tflite_file(arrays, layers, dtype=dtype))
    found, image_size = read_tflite(tmp_path / "model.tflite")
    assert image_size == (cases.SIZE, cases.SIZE)
    assert found.keys() == {f"{layer}/{kind}" for layer in layers for kind in ("weights", "biases")}
    for layer in layers:
        kernel, bias = cases.folded(arrays, layer)
        np.testing.assert_array_equal(found[f"{layer}/weights"], kernel.astype(dtype))
        np.testing.assert_array_equal(found[f"{layer}/biases"], bias.astype(dtype))


@pytest.mark.parametrize(
    ("output", "layer"),
    [
        ("FeatureExtractor/MobilenetV2/Conv/Relu6;more", "FeatureExtractor/MobilenetV2/Conv"),
        ("FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/Relu6", "FeatureExtractor/MobilenetV1/Conv2d_0"),
        ("a/expanded_conv/depthwise/depthwise", "a/expanded_conv/depthwise"),
        ("a/expanded_conv/project/BatchNorm/FusedBatchNorm", "a/expanded_conv/project"),
        ("BoxPredictor_0/ClassPredictor/BiasAdd", "BoxPredictor_0/ClassPredictor"),
    ],
)
def test_layer_of_output(output: str, layer: str) -> None:
    assert layer_of_output(output) == layer


def test_without_the_extra__says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tflite", None)
    with pytest.raises(
        InputError, match=r"a .tflite is read with tflite: `pip install --editable '\.\[tensorflow\]'"
    ):
        layout.package("tflite", "a .tflite")

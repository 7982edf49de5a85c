from pathlib import Path

import pytest

from detect.deploy.load import exported_format, load_detector, open_exported, open_model
from detect.deploy.runtimes.table import runtimes_of
from detect.errors import InputError
from tests.deploy.test_random_weights import config
from tests.detector_cases import checkpoint, exported


def test_load_detector__refuses_what_is_no_model(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml: no such config"):
        load_detector(tmp_path / "no.yaml")
    (tmp_path / "overlay.yaml").write_text("trainer: {max_epochs: 1}\n")
    with pytest.raises(InputError, match=r"overlay\.yaml: has no model\.backbone"):
        load_detector(tmp_path / "overlay.yaml")
    with pytest.raises(InputError, match=r"a\.onnx is an exported file; this needs a checkpoint"):
        load_detector(tmp_path / "a.onnx")


def test_load_detector__says_where_weights_came_from(tmp_path):
    assert load_detector(checkpoint()).checkpoint == checkpoint()
    assert load_detector(config(tmp_path, size="small")).checkpoint is None


def test_exported_format__by_suffix():
    assert [exported_format(Path(f"a{s}")) for s in (".onnx", ".xml", ".tflite", ".pte", ".ckpt")] == [
        "onnx",
        "openvino",
        "litert",
        "executorch",
        None,
    ]
    assert [runtime.name for runtime in runtimes_of("onnx")] == ["onnxruntime", "openvino"]
    assert runtimes_of("openvino")[0].name == "openvino"


def test_open_exported__refuses_what_a_runtime_does_not_read(tmp_path):
    with pytest.raises(InputError, match=r"a\.ckpt: not an exported file; known are \.onnx"):
        open_exported(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"a\.onnx: no such file"):
        open_exported(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="litert does not read onnx; onnxruntime, openvino does"):
        open_exported(exported(), "litert")


def test_open_exported__garbage_is_refused_by_each_runtime(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    (tmp_path / "a.xml").write_bytes(b"<no></no>")
    with pytest.raises(InputError, match=r"a\.onnx: ONNX Runtime cannot load it"):
        open_exported(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"a\.xml: OpenVINO cannot load it"):
        open_exported(tmp_path / "a.xml")


def test_open_model__each_kind_in_its_runtime():
    assert open_model(checkpoint(), device="cpu").name == "eager"
    assert open_model(exported()).name == "onnxruntime"

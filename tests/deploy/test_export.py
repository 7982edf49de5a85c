import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from detect.commands.main import main
from detect.deploy import export as export_module
from detect.deploy.export import ExportOptions, choose_form, export, verification_images
from detect.deploy.exported_file import json_path
from detect.deploy.graphs import build_graph
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import RuntimeOptions
from detect.deploy.runtimes.table import FORMATS
from detect.deploy.spec import ModelSpec
from detect.errors import InputError
from tests.detector_cases import CLASSES, checkpoint, exported, lively_detector, photo, save_checkpoint


def test_export__file_and_json_hold_all_that_an_app_needs():
    content = json.loads(json_path(exported()).read_text())
    assert [row["name"] for row in content["classes"]] == list(CLASSES.names)
    assert [row["category_id"] for row in content["classes"]] == list(CLASSES.category_ids)
    assert content["input"]["image_size"] == [96, 128]
    assert content["input"]["resize_rule"] == "antialias"
    assert content["postprocess"]["score_threshold"] == 0.01
    assert content["export"]["outputs"] == ["boxes", "scores", "labels", "counts"]
    assert len(content["export"]["checkpoint"]["sha256"]) == 64
    assert content["verification"]["faults"] == []
    assert content["verification"]["detections"] > 10
    assert content["verification"]["batches"] == [1, 3]


def test_export__leaves_no_file_that_differs_from_torch(tmp_path, monkeypatch):
    other, of_another = lively_detector(init="kaiming"), exported().read_bytes()
    monkeypatch.setattr(
        export_module, "build_graph", lambda module, form: build_graph(other, form)
    )  # as a wrong translation would
    stale = replace(FORMATS["onnx"], write=lambda graph, images, path, **rest: path.write_bytes(of_another))
    monkeypatch.setitem(FORMATS, "onnx", stale)
    detector = lively_detector()
    with torch.no_grad():
        detector.net.cls_heads[0].predictor.bias += 1
    save_checkpoint(detector, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="differs from"):
        export(tmp_path / "other.ckpt", tmp_path / "out" / "a.onnx", ExportOptions())
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_choose_form__says_what_a_format_cannot_hold(format):
    with pytest.raises(InputError, match=f"--form nms: {format} holds decoded or raw"):
        choose_form(ExportOptions(format=format, form="nms"))
    assert choose_form(ExportOptions(format=format)) == "decoded"


def test_export__wrong_suffix_threshold_pictures(tmp_path):
    with pytest.raises(InputError, match=r"a\.pt: a file of onnx ends in \.onnx"):
        export(checkpoint(), tmp_path / "a.pt", ExportOptions())
    with pytest.raises(InputError, match=r"--score_threshold is 1\.5"):
        export(checkpoint(), tmp_path / "a.onnx", ExportOptions(score_threshold=1.5))
    photo().save(tmp_path / "a.png")
    with pytest.raises(InputError, match="1 given, at least 3"):
        export(checkpoint(), tmp_path / "a.onnx", ExportOptions(pictures=[tmp_path / "a.png"]))
    with pytest.raises(InputError, match="is an exported file"):
        export(exported(), tmp_path / "a.onnx", ExportOptions())


def test_verification_images__are_the_given_pictures(tmp_path):
    for i in range(3):
        photo(seed=i).save(tmp_path / f"{i}.png")
    spec = ModelSpec.of_detector(lively_detector())
    images = verification_images(spec, sorted(tmp_path.glob("*.png")))
    assert images.shape == (3, 3, 96, 128)
    assert images.dtype == torch.uint8
    assert not torch.equal(images[0], images[1])
    assert torch.equal(verification_images(spec, None), verification_images(spec, None))


def test_export__a_failure_of_torch_is_one_line(tmp_path, monkeypatch):
    module = lively_detector()
    graph = build_graph(module, "raw")

    def data_dependent(images: torch.Tensor) -> torch.Tensor:
        return images if images.sum().item() > 3 else images[:, :1]

    monkeypatch.setattr(graph, "forward", data_dependent)
    images = torch.zeros(1, 3, 96, 128, dtype=torch.uint8)
    description = {"export": {"outputs": ["cls_logits", "box_deltas"]}}
    with pytest.raises(InputError, match="torch could not export this network to ONNX: ") as caught:
        FORMATS["onnx"].write(graph, images, tmp_path / "a.onnx", description=description)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_export_command__a_missing_package_is_named_with_its_pip_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    arguments = [
        "--ckpt_path",
        str(checkpoint()),
        "--format",
        "litert",
        "--output",
        str(tmp_path / "a.tflite"),
    ]
    assert main(["export", *arguments]) == 2
    message = capsys.readouterr().err
    assert "litert_torch" in message
    assert "pip install --editable '.[litert]'" in message
    assert not list(tmp_path.glob("a*"))


def test_export_command__one_source_and_one_form(tmp_path, capsys):
    output = ["--format", "onnx", "--output", str(tmp_path / "a.onnx")]
    assert main(["export", *output]) == 2
    assert "give --ckpt_path or --config, one of them; 0 were given" in capsys.readouterr().err
    assert main(["export", *output, "--ckpt_path", "a.ckpt", "--nms", "--form", "raw"]) == 2
    assert "contradict" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS["onnx"].forms)
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_export__every_form_runs_at_several_batches(format, form):
    images = verification_images(ModelSpec.of_detector(lively_detector()), None)
    expected = build_graph(lively_detector(), form)
    with open_exported(exported(format, form), options=RuntimeOptions(threads=1)) as runtime:
        for batch in (1, 2, 3):
            outputs = runtime.run(images[:batch])
            with torch.no_grad():
                wanted = expected(images[:batch])
            for output, want in zip(outputs, wanted, strict=True):
                assert output.shape == want.shape
                assert output.dtype == want.dtype
                # Near-tied scores swap rows after NMS, so the columns of that form are compared as sets.
                pair = (output.numpy(), want.numpy())
                values = [np.sort(v, axis=1) if form == "nms" and v.ndim > 1 else v for v in pair]
                np.testing.assert_allclose(*values, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["MobileNetV2", "MobileNetV3", "MnasNetA1"])
def test_export__every_family(family, tmp_path):
    settings = {"backbone": {"class_path": f"detect.model.backbones.{family}"}}
    module = lively_detector(**settings)
    save_checkpoint(module, tmp_path / "a.ckpt")
    assert export(tmp_path / "a.ckpt", tmp_path / "a.onnx", ExportOptions()) == 0

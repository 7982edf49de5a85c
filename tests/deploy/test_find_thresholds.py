import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from detect.api import Detector
from detect.commands.main import main
from detect.deploy.array_postprocess import find
from detect.deploy.find_thresholds import write_with_thresholds
from detect.deploy.graphs import Decode, DenseNms
from detect.deploy.predict import nothing_found
from detect.deploy.spec import ModelSpec
from detect.deploy.verify import nms_faults
from detect.errors import InputError
from detect.model.checkpoint import read_checkpoint
from detect.model.postprocess import PostProcess
from detect.model.thresholds import PostProcessConfig
from detect.types import Detections, HeadOutputs
from tests.detector_cases import checkpoint, lively_detector, photo

OF_CLASSES = (0.6, 0.25, 0.45)


def test_thresholds_command__writes_a_copy_that_predictions_use(coco_root, tmp_path, capsys) -> None:
    before = checkpoint().read_bytes()
    tuned, figures = tmp_path / "tuned.ckpt", tmp_path / "t.json"
    arguments = ["--ckpt_path", str(checkpoint()), "--data.root", str(coco_root), "--data.workers", "0"]
    code = main(["thresholds", *arguments, "--recall", "0.01", "--out", str(tuned), "--json", str(figures)])
    found = json.loads(figures.read_text())
    assert code == (1 if any(one["notice"] for one in found) else 0)
    assert checkpoint().read_bytes() == before
    assert "predictions and exported files use them" in capsys.readouterr().out
    thresholds = tuple(one["threshold"] for one in found)
    detector = Detector.load(tuned, device="cpu")
    assert detector.spec.thresholds.class_thresholds == thresholds
    assert detector.at_threshold(None).score_threshold == thresholds
    assert detector.at_threshold(0.2).score_threshold == 0.2  # one that is given wins
    assert detector.score_threshold == 0.01  # for mAP
    old, new = read_checkpoint(checkpoint()), read_checkpoint(tuned)
    assert all(torch.equal(new.state_dict[key], value) for key, value in old.state_dict.items())


def test_thresholds_command__leaves_a_file_that_is_there(tmp_path, capsys) -> None:
    mine = tmp_path / "mine.ckpt"
    mine.write_bytes(b"mine")
    words = ["--ckpt_path", str(mine), "--data.root", str(tmp_path), "--out", str(mine)]
    assert main(["thresholds", *words]) == 2
    assert "mine.ckpt exists and is never overwritten" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"


def test_thresholds_command__refuses_several_goals_and_exported_files(tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "a.ckpt"), "--data.root", str(tmp_path)]
    two = ["--recall", "0.5", "--precision", "0.9"]
    assert main(["thresholds", "--ckpt_path", str(checkpoint()), *two, *out]) == 2
    assert "one of them; several were given" in capsys.readouterr().err
    assert main(["thresholds", "--ckpt_path", "m.onnx", *out]) == 2
    assert "find the thresholds on its checkpoint and export the copy" in capsys.readouterr().err
    assert main(["thresholds", "--ckpt_path", str(checkpoint()), "--recall", "95", *out]) == 2
    assert "--recall is 95.0; give a fraction" in capsys.readouterr().err


def test_predictions__each_class_by_its_own_threshold() -> None:
    module = lively_detector(postprocess={"class_thresholds": list(OF_CLASSES), "max_detections": 1000})
    low = Detector(module, device="cpu").predict(photo(), score_threshold=0.01)
    found = Detector(module, device="cpu").predict(photo())
    wanted = low.scores > np.array(OF_CLASSES)[low.labels - 1]
    assert 0 < wanted.sum() < len(low.scores)
    np.testing.assert_array_equal(found.scores, low.scores[wanted])
    np.testing.assert_array_equal(found.labels, low.labels[wanted])


@pytest.mark.parametrize("candidates", [1000, 20])
def test_every_form_equals_torch(candidates: int) -> None:
    """The form with NMS has the thresholds in its graph: low scores take no place among the candidates."""
    spec = ModelSpec.of_detector(lively_detector())
    config = PostProcessConfig(OF_CLASSES, topk_candidates=candidates, max_detections=1000)
    postprocess = PostProcess(config, activation="softmax", image_size=spec.image_size)
    assert spec.anchors is not None
    anchors = torch.from_numpy(spec.anchors)
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(1, len(anchors), 4, generator=generator)
    deltas = 2 * torch.randn(1, len(anchors), 4, generator=generator)
    wanted = postprocess(HeadOutputs(logits, deltas), anchors)
    assert len(wanted.labels[0].unique()) == 3
    decoded = Decode(postprocess, anchors)(logits, deltas)
    dense = DenseNms(postprocess)(*decoded)
    forms = {"raw": (logits, deltas), "decoded": decoded, "nms": dense}
    for form, outputs in forms.items():
        its = replace(spec, form=form, thresholds=config, anchors=spec.anchors if form == "raw" else None)
        (found,) = find(its, tuple(output.numpy() for output in outputs), [spec.image_size])
        in_torch = its.detections(outputs)
        count = int((in_torch.labels > 0).sum())
        np.testing.assert_array_equal(found.labels, wanted.labels[0].numpy())
        np.testing.assert_array_equal(in_torch.labels[0, :count].numpy(), wanted.labels[0].numpy())
        np.testing.assert_allclose(found.scores, wanted.scores[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.boxes, wanted.boxes[0].numpy(), atol=1e-3)
    image = Detections(*(part[0] for part in dense[:3]))
    assert list(nms_faults(image, decoded[0][0], decoded[1][0], config)) == []
    lower = replace(config, score_threshold=(0.6, 0.2, 0.45))
    if candidates == 1000:
        assert any("is missing" in fault for fault in nms_faults(image, decoded[0][0], decoded[1][0], lower))


def test_a_graph_with_thresholds_inside__a_lower_one_is_refused_a_higher_one_taken() -> None:
    spec = ModelSpec.of_detector(lively_detector(postprocess={"class_thresholds": list(OF_CLASSES)}))
    spec = replace(
        spec, form="nms", anchors=None, thresholds=replace(spec.thresholds, score_threshold=OF_CLASSES)
    )
    assert spec.at_threshold(None).thresholds.score_threshold == OF_CLASSES
    assert spec.at_threshold(0.7).thresholds.score_threshold == 0.7
    with pytest.raises(InputError, match=r"score_threshold is 0\.5, but the file was exported with 0\.6"):
        spec.at_threshold(0.5)
    higher = replace(spec, thresholds=replace(spec.thresholds, score_threshold=0.4)).at_threshold(None)
    assert higher.thresholds.score_threshold == (0.6, 0.4, 0.45)


def test_a_number_of_thresholds_that_is_not_that_of_the_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"class_thresholds has 2 thresholds for 3 classes; give one each"):
        lively_detector(postprocess={"class_thresholds": [0.1, 0.2]})
    with pytest.raises(InputError, match=r"postprocess\.class_thresholds is 1\.5; give a value from 0"):
        PostProcessConfig(class_thresholds=(0.5, 1.5))


@pytest.mark.slow
def test_an_exported_file_has_them_inside(tmp_path) -> None:
    write_with_thresholds(tmp_path / "tuned.ckpt", read_checkpoint(checkpoint()).raw, list(OF_CLASSES))
    model, image = tmp_path / "m.onnx", photo()
    words = ["export", "--ckpt_path", str(tmp_path / "tuned.ckpt"), "--format", "onnx", "--out", str(model)]
    assert main(words) == 0
    detector = Detector.load(model, threads=1)
    wanted = Detector.load(tmp_path / "tuned.ckpt", device="cpu").predict(image)
    found = detector.predict(image)
    assert found.names == wanted.names
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    assert (found.scores > np.array(OF_CLASSES, np.float32)[found.labels - 1]).all()
    assert "Score thresholds of the classes" in (tmp_path / "m.onnx.md").read_text()
    assert nothing_found(detector).startswith("nothing scores more than the threshold of its class, the thr")

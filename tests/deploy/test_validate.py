import json

import lightning as L
import pytest

from detect.api import Detector
from detect.commands.main import main
from detect.data.datamodule import DetectionData
from detect.deploy.validate import open_validation, validate_detector
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator
from detect.training.module import DetectionModule
from tests.conftest import make_coco
from tests.detector_cases import checkpoint, exported, lively_detector, save_checkpoint

KEYS = ["mAP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def run(model, coco_root, tmp_path, *options):
    arguments = ["validate", "--model", str(model), "--data.root", str(coco_root), "--data.workers", "0"]
    assert main([*arguments, "--json", str(tmp_path / "m.json"), *options]) == 0
    return json.loads((tmp_path / "m.json").read_text())


def test_validate__writes_the_metrics(coco_root, tmp_path, capsys):
    metrics = run(checkpoint(), coco_root, tmp_path)
    assert list(metrics) == [*KEYS, "per_class", "images", "backend", "baseline"]
    assert metrics["images"] == 4
    assert set(metrics["per_class"]) == {"square", "disc", "bar"}
    assert "mAP" in capsys.readouterr().out


def test_validate__both_backends_and_ckpt_path_agree(coco_root, tmp_path):
    fast = run(checkpoint(), coco_root, tmp_path)
    slow = run(checkpoint(), coco_root, tmp_path, "--backend", "pycocotools")
    assert [slow[key] for key in KEYS] == pytest.approx([fast[key] for key in KEYS], abs=1e-6)
    arguments = ["--ckpt_path", str(checkpoint()), "--data.root", str(coco_root), "--data.workers", "0"]
    assert main(["validate", *arguments, "--json", str(tmp_path / "c.json")]) == 0
    assert json.loads((tmp_path / "c.json").read_text()) == fast


def test_validate__an_exported_file_scores_as_its_checkpoint(coco_root, tmp_path):
    of_checkpoint = run(checkpoint(), coco_root, tmp_path)
    of_file = run(exported(), coco_root, tmp_path)
    assert of_file["AR100"] > 0
    assert [of_file[key] for key in KEYS] == pytest.approx([of_checkpoint[key] for key in KEYS], abs=2e-3)


def test_validate_detector__sees_every_image_once(coco_root, monkeypatch):
    detector = Detector(lively_detector())
    data = open_validation(
        detector.spec, {"root": coco_root, "workers": 0, "batch_size": 3, "val_split": "val"}
    )
    seen: list[int] = []
    real = CocoEvaluator.update

    def update(self, sample_idx, detections):
        seen.extend(sample_idx.tolist())
        real(self, sample_idx, detections)

    monkeypatch.setattr(CocoEvaluator, "update", update)
    assert validate_detector(detector, data).images == 4
    assert sorted(seen) == [0, 1, 2, 3]


def test_validate_detector__scores_as_the_validation_of_an_epoch(coco_root):
    module = DetectionModule(lively_detector())
    settings = {"root": coco_root, "workers": 0, "total_batch_size": 3, "batch_size": 3}
    data = DetectionData(**settings, image_size=module.net.image_size)
    data.open()
    trainer = L.Trainer(logger=False, accelerator="cpu", barebones=True, use_distributed_sampler=False)
    trainer.validate(module, datamodule=data, verbose=False)
    detector = Detector(lively_detector())
    found = validate_detector(detector, open_validation(detector.spec, settings))
    assert found.AR100 > 0
    assert found.to_json() == module.metrics.to_json()


def test_open_validation__takes_size_and_resize_rule_of_the_detector(coco_root, tmp_path):
    detector = Detector.load(save_checkpoint(lively_detector(resize_rule="torchvision"), tmp_path / "a.ckpt"))
    data = open_validation(detector.spec, {"root": coco_root, "workers": 0})
    batch = next(iter(data.val_dataloader()))
    assert batch.images.shape[1:] == (3, 96, 128)
    assert batch.images.dtype == detector.spec.input_dtype


def test_open_validation__classes_by_name(coco_root, tmp_path):
    detector = Detector(lively_detector())
    root = make_coco(tmp_path / "other")
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["categories"].reverse()
    file.write_text(json.dumps(content))
    same = open_validation(detector.spec, {"root": coco_root, "workers": 0})
    swapped = open_validation(detector.spec, {"root": root, "workers": 0})
    assert swapped.val.labels.tolist() == same.val.labels.tolist()
    content["categories"][0]["name"] = "globe"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="globe"):
        open_validation(detector.spec, {"root": root, "workers": 0})


def test_validate__needs_one_model(coco_root, capsys):
    assert main(["validate", "--data.root", str(coco_root)]) == 2
    assert "give --ckpt_path or --model, one of them; 0 were given" in capsys.readouterr().err

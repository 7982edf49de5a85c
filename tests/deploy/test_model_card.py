import json

from detect.deploy.exported_file import describe_export, json_path
from detect.deploy.model_card import card_path, run_facts, write_card
from detect.model.checkpoint import build_from_checkpoint, read_checkpoint
from tests.detector_cases import checkpoint, exported, lively_detector, save_checkpoint


def card(tmp_path, *, source, form="nms", **changes):
    module = lively_detector()
    description = describe_export(module, form=form, format="onnx", precision="fp32", checkpoint=source)
    content = (
        description | {"file": {"bytes": 2_500_000, "sha256": "ab" * 32}, "verification": None} | changes
    )
    write_card(tmp_path / "a.onnx", module, content, checkpoint=source)
    return (tmp_path / "a.onnx.md").read_text()


def test_export__writes_a_card_with_all_that_a_stranger_asks():
    text = card_path(exported()).read_text()
    content = json.loads(json_path(exported()).read_text())
    assert text.startswith("# nms.onnx\n")
    assert "SSDLite on MobileNetV1 (width 0.25)" in text
    for row in ("| 1 | 3 | square |", "| 2 | 7 | disc |", "| 3 | 11 | bar |"):
        assert row in text
    assert "96 x 128 px (height x width); images, uint8 RGB" in text
    assert "score 0.01, NMS at IoU 0.55" in text
    assert content["file"]["sha256"] in text
    assert content["export"]["checkpoint"]["sha256"] in text
    assert "Outputs equal PyTorch's at batch 1 and 3" in text
    assert "training data and its metrics are not known" in text
    assert "No pretrained weights" in text
    assert "million parameters" in text
    assert "detect predict --model nms.onnx" in text


def test_write_card__tells_what_the_run_folder_says(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    metrics = {"mAP": 0.5046, "AP50": 0.7855, "AP75": 0.562, "images": 72}
    (run / "metrics.json").write_text(json.dumps(metrics))
    splits = {"train": {"images": 292, "boxes": 3951, "sha256": "cd" * 32}}
    (run / "manifest.json").write_text(json.dumps({"data": splits}))
    source = save_checkpoint(lively_detector(), run / "checkpoints" / "best.ckpt")
    assert set(run_facts(source)) == {"manifest", "metrics"}
    text = card(tmp_path, source=source)
    assert "train: 292 images, 3951 boxes" in text
    assert "on 72 validation images: mAP 0.505, AP50 0.785" in text.replace("0.786", "0.785")
    assert "not known" not in text


def test_write_card__random_weights_are_named(tmp_path):
    text = card(tmp_path, source=None, form="raw")
    assert "**Its weights are random**" in text
    assert "Decoding and NMS are left to the caller" in text
    assert "examples/numpy_detector.py" in text


def test_write_card__pretrained_weights_and_int8_are_named(tmp_path):
    origin = {"weights": "MobileNet_V3_Large_Weights.IMAGENET1K_V1", "licence": "BSD-3-Clause"}
    gate = {"mAP_fp32": 0.503, "mAP_int8": 0.4991, "images": 72}
    text = card(tmp_path, source=checkpoint(), weights_origin=origin, verification=gate)
    assert "weights MobileNet_V3_Large_Weights.IMAGENET1K_V1, licence BSD-3-Clause" in text
    assert "mAP of this file 0.4991, of the same detector in fp32 0.5030, on 72 images" in text


def test_write_card__a_bar_in_a_class_name_breaks_no_table(tmp_path):
    classes = [{"label": 1, "category_id": 1, "name": "a|b"}]
    assert r"| 1 | 1 | a\|b |" in card(tmp_path, source=checkpoint(), classes=classes)


def test_run_facts__none_beside_a_lone_checkpoint():
    assert run_facts(checkpoint()) == {}
    assert build_from_checkpoint(read_checkpoint(checkpoint())).classes is not None

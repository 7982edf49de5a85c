"""Weights between detectors: files of torchvision, and heads by class name."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
import torchvision
from rich.console import Console
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from detect.errors import InputError
from detect.model.backbones import MobileNetV2, MobileNetV3
from detect.model.checkpoint import (
    build_detector,
    build_from_checkpoint,
    checkpoint_content,
    read_checkpoint,
    write_checkpoint,
)
from detect.model.ssdlite import SSDLite
from detect.model.weights import convert_weights, copy_matching, imported_classes, init_from, match_table
from detect.types import ClassMap

SMALL = {
    "class_path": "detect.model.backbones.MobileNetV3",
    "init_args": {"size": "small", "width": 0.35, "reduced_tail": True},
}


def classes(*names: str) -> ClassMap:
    return ClassMap(names, tuple(range(1, len(names) + 1)))


def small_net(num_classes: int, seed: int) -> SSDLite:
    torch.manual_seed(seed)
    return SSDLite(MobileNetV3("small", width=0.35, reduced_tail=True), num_classes)


def save_checkpoint(path: Path, class_map: ClassMap, backbone: dict | None = None) -> Path:
    detector = build_detector({"backbone": backbone or SMALL, "num_classes": class_map.num_classes})
    detector.classes = class_map
    write_checkpoint(path, checkpoint_content(detector))
    return path


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).state_dict()


def test_a_file_of_torchvision_goes_there_and_back(
    torchvision_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"model": torchvision_state, "epoch": 12}, tmp_path / "model_12.pth")
    convert_weights(tmp_path / "model_12.pth", tmp_path / "a.ckpt", class_names=["cat", "dog", "hen"])
    convert_weights(tmp_path / "a.ckpt", tmp_path / "back.pth", to="torchvision")

    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == torchvision_state.keys()
    assert all(torch.equal(back[key], torchvision_state[key]) for key in back)

    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    module = build_from_checkpoint(checkpoint)
    assert module.classes == classes("cat", "dog", "hen")
    assert checkpoint.description["input"]["resize_rule"] == "torchvision"
    assert checkpoint.description["postprocess"]["nms_threshold"] == 0.55
    assert checkpoint.description["weights_origin"] == {
        "weights": "model_12.pth",
        "licence": "BSD-3-Clause (torchvision) where published there, trained on COCO",
    }
    assert module.net.backbone.weights_origin == checkpoint.description["weights_origin"]


def test_classes_of_an_import() -> None:
    assert imported_classes(90, None).names[:2] == ("person", "bicycle")
    assert imported_classes(2, None).names == ("class 1", "class 2")
    assert imported_classes(2, ["a", "b"]).category_ids == (1, 2)
    with pytest.raises(InputError, match="3 class names for a detector of 2 classes"):
        imported_classes(2, ["background", "a", "b"])


def test_a_checkpoint_needs_no_pretrained_weights(tmp_path: Path) -> None:
    source = tmp_path / "mobilenet_v2.pth"
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), source)
    backbone = {"class_path": "detect.model.backbones.MobileNetV2", "init_args": {"weights": str(source)}}
    path = save_checkpoint(tmp_path / "a.ckpt", classes("cat"), backbone)
    source.unlink()

    checkpoint = read_checkpoint(path)
    module = build_from_checkpoint(checkpoint)
    assert isinstance(module.net.backbone, MobileNetV2)
    assert module.net.backbone.settings.bn_eps == 1e-5  # the source's, though nothing is read from it
    assert module.net.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert module.net.backbone.weights_origin["weights"] == "mobilenet_v2.pth"
    assert torch.equal(
        module.net.backbone.stem[0].weight, checkpoint.state_dict["net.backbone.stem.0.weight"]
    )

    # and what is written from it again says the same
    again = tmp_path / "b.ckpt"
    write_checkpoint(again, checkpoint_content(module))
    assert read_checkpoint(again).description == checkpoint.description


def test_rows_of_the_class_head_are_copied_by_name() -> None:
    net, source = small_net(3, seed=1), small_net(2, seed=2)
    fresh = {key: value.clone() for key, value in net.state_dict().items()}
    theirs = source.state_dict()

    match = copy_matching(
        net, classes("dog", "hen", "cat"), source=theirs, source_classes=classes("cat", "dog")
    )

    ours = net.state_dict()
    assert match.known_classes == ["dog", "cat"]
    assert match.new_classes == ["hen"]
    assert match.fresh == []
    for i, anchors in enumerate(net.anchor_generator.per_cell):
        key = f"cls_heads.{i}.1.weight"
        rows, source_rows = ours[key].view(anchors, 4, -1), theirs[key].view(anchors, 3, -1)
        assert torch.equal(rows[:, 0], source_rows[:, 0])  # background
        assert torch.equal(rows[:, 1], source_rows[:, 2])  # dog
        assert torch.equal(rows[:, 3], source_rows[:, 1])  # cat
        assert torch.equal(rows[:, 2], fresh[key].view(anchors, 4, -1)[:, 2])  # hen
    for key, value in theirs.items():
        if ".1.weight" not in key and ".1.bias" not in key:
            assert torch.equal(ours[key], value)


def test_heads_of_other_anchors_stay_fresh() -> None:
    torch.manual_seed(0)
    net = SSDLite(MobileNetV3("small", width=0.5, reduced_tail=True), 2)
    match = copy_matching(
        net, classes("a", "b"), source=small_net(2, 0).state_dict(), source_classes=classes("a", "b")
    )
    assert match.known_classes == []
    assert match.new_classes == ["a", "b"]
    assert "cls_heads.0.1.weight" in match.fresh


def test_init_from_reads_a_checkpoint_and_reports(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "source.ckpt", classes("cat", "dog"))
    net = small_net(2, seed=9)
    match = init_from(net, classes("cat", "cow"), path)
    assert (match.known_classes, match.new_classes) == (["cat"], ["cow"])
    stored = read_checkpoint(path).state_dict["net.backbone.stem.0.weight"]
    assert torch.equal(net.state_dict()["backbone.stem.0.weight"], stored)
    page = StringIO()
    Console(file=page, width=100).print(match_table(match, source=str(path.name)))
    assert "started from source.ckpt" in page.getvalue()
    assert "classes: cow" in page.getvalue()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "source.ckpt", classes("cat"))
    net = small_net(1, seed=0)
    with pytest.raises(InputError, match="no tensor of the given checkpoint fits"):
        copy_matching(net, classes("cat"), source={}, source_classes=classes("cat"))
    broken = torch.load(path, weights_only=True)
    broken["state_dict"] = {}
    torch.save(broken, path)
    with pytest.raises(InputError, match=r"source\.ckpt: no tensor of the given checkpoint fits"):
        init_from(net, classes("cat"), path)


def test_a_start_with_another_backbone_is_refused_in_one_line(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "source.ckpt", classes("cat"))
    large = SSDLite(MobileNetV3("large", width=0.35, reduced_tail=True), 1)
    before = {key: value.clone() for key, value in large.state_dict().items()}
    with pytest.raises(InputError, match=r"source\.ckpt: .* size small \(here large\): give") as refused:
        init_from(large, classes("cat"), path)
    assert "\n" not in str(refused.value)
    assert "reduced_tail" not in str(refused.value)
    assert all(torch.equal(before[key], value) for key, value in large.state_dict().items())
    with pytest.raises(InputError, match=r"class_path \S+MobileNetV3 \(here \S+MobileNetV2\)"):
        init_from(SSDLite(MobileNetV2(width=0.35), 1), classes("cat"), path)
    with pytest.raises(InputError, match=r"reduced_tail True \(here False\)"):
        init_from(SSDLite(MobileNetV3("small", width=0.35), 1), classes("cat"), path)

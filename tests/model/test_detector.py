"""The keys of a `model:` section that choose taps and neck, from a configuration to a checkpoint and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.model.checkpoint import build_detector, build_from_checkpoint, read_checkpoint
from detect.model.necks import FPN
from detect.training.build import build_module, model_parser
from tests.detector_cases import SETTINGS, lively_detector, save_checkpoint
from tests.model.necks.test_fpn import SECTION


def test_taps_and_neck__a_checkpoint_builds_the_same(tmp_path: Path) -> None:
    detector = lively_detector(**SECTION)
    settings = detector.to_settings()
    assert settings["taps"] == SECTION["taps"]
    assert settings["neck"] == SECTION["neck"]
    again = build_from_checkpoint(read_checkpoint(save_checkpoint(detector, tmp_path / "a.ckpt")))
    assert again.to_settings() == settings
    images = torch.randint(0, 256, (1, 3, *detector.image_size), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again.net(images).cls_logits, detector.net(images).cls_logits)


def test_taps_and_neck__defaults() -> None:
    settings = build_detector(SETTINGS).to_settings()
    assert settings["taps"] == ["c4", "c5"]
    assert settings["neck"] is None


def test_neck__short_name_on_the_command_line() -> None:
    parser = model_parser()
    flags = [
        *("--model.backbone", "MobileNetV3", "--model.backbone.size", "small", "--model.num_classes", "2"),
        *("--model.neck", "FPN", "--model.neck.channels", "16", "--model.taps", "[c3, c4, c5]"),
    ]
    net = parser.instantiate(parser.parse_args(flags)).model.net
    assert isinstance(net.neck, FPN)
    assert net.neck.channels == 16
    assert net.taps == ("c3", "c4", "c5")


def test_neck__unknown_argument__named() -> None:
    neck = {"class_path": "detect.model.necks.FPN", "init_args": {"chanels": 8}}
    with pytest.raises(InputError, match="chanels"):
        build_module({**SETTINGS, "neck": neck})


@pytest.mark.parametrize(
    ("backbone", "setting"),
    [
        ({"class_path": "detect.model.backbones.MobileNetV1"}, "squeeze_divisor"),
        ({"class_path": "detect.model.backbones.MobileNetV2"}, "squeeze_divisor"),
        (
            {"class_path": "detect.model.backbones.Timm", "init_args": {"name": "mobilenetv2_035"}},
            "squeeze_divisor",
        ),
        ({"class_path": "detect.model.backbones.Timm", "init_args": {"name": "mobilenetv2_035"}}, "padding"),
    ],
)
def test_settings__that_a_backbone_does_not_use__refused(backbone: dict, setting: str) -> None:
    arguments = {**backbone.get("init_args", {}), "settings": {setting: {"padding": "same"}.get(setting, 4)}}
    with pytest.raises(InputError, match=setting):
        build_module({**SETTINGS, "backbone": {**backbone, "init_args": arguments}})


def test_norm__squeeze_divisor__refused() -> None:
    with pytest.raises(InputError, match=r"norm\.squeeze_divisor"):
        build_module({**SETTINGS, "norm": {"squeeze_divisor": 4}})

"""Timm models as backbones; timm's own forward is the second opinion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.model.backbones import MobileNetV2, Timm, timm_backbone
from detect.model.blocks import ConvSettings, NormSettings
from detect.training.build import build_module

timm = pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")


ALL_TAPS = ("c3", "c4", "c5")
# name, channels of c3, c4 and c5 (the last layer before pooling), the modules of timm's that give c3 and c4
EXPANSIONS = [
    ("mobilenetv2_035", (96, 192, 1280), ("blocks.3.0.bn1", "blocks.5.0.bn1")),
    ("semnasnet_050", (144, 336, 1280), ("blocks.3.0.bn1", "blocks.5.0.bn1")),
    ("mobilenetv3_small_050", (64, 144, 288), ("blocks.2.0.bn1", "blocks.4.0.bn1")),
    ("mobilenetv4_conv_small_035", (72, 192, 336), ("blocks.2.0.pw_exp", "blocks.3.0.pw_exp")),
    ("tinynet_e", (144, 336, 1280), ("blocks.3.0.bn1", "blocks.5.0.bn1")),
]
FEATURES = [
    ("resnet18", (128, 256, 512)),
    ("mobilevitv2_050", (128, 192, 256)),
    ("convnext_atto", (80, 160, 320)),
    ("lcnet_035", (48, 88, 176)),  # MobileNetV3's classes with V1's blocks: no expansion
    # its maps are (B, H, W, C)
    pytest.param("swin_tiny_patch4_window7_224", (192, 384, 768), marks=pytest.mark.slow),
]


def channels_of(backbone: Timm) -> tuple[int, ...]:
    assert list(backbone.taps) == list(ALL_TAPS)
    assert [tap.stride for tap in backbone.taps.values()] == [8, 16, 32]
    return tuple(tap.channels for tap in backbone.taps.values())


@pytest.mark.parametrize(("name", "channels", "modules"), EXPANSIONS, ids=[row[0] for row in EXPANSIONS])
def test_expansions_are_tapped(
    name: str, channels: tuple[int, int, int], modules: tuple[str, str], tmp_path: Path
) -> None:
    source = timm.create_model(name).eval()
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    backbone = Timm(name, weights=str(path)).eval()

    seen: list[torch.Tensor] = []
    for module in modules:
        source.get_submodule(module).register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected_c5 = source.forward_features(images)
        c3, c4, c5 = backbone(images, ALL_TAPS)
        without_c3 = backbone(images, ALL_TAPS[1:])
    assert channels_of(backbone) == channels
    assert tuple(c3.shape) == (1, channels[0], 8, 8)
    assert tuple(c4.shape) == (1, channels[1], 4, 4)
    assert tuple(c5.shape) == (1, channels[2], 2, 2)
    assert torch.equal(c3, seen[0])
    assert torch.equal(c4, seen[1])
    assert torch.equal(c5, expected_c5)
    assert all(torch.equal(one, other) for one, other in zip(without_c3, (c4, c5), strict=True))


@pytest.mark.parametrize(("name", "channels"), FEATURES)
def test_other_models_give_their_features(name: str, channels: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        backbone = Timm(name)
        size = 224 if name.startswith("swin") else 320
        c3, c4, c5 = backbone(torch.empty(1, 3, size, size), ALL_TAPS)
    assert channels_of(backbone) == channels
    assert tuple(c3.shape) == (1, channels[0], size // 8, size // 8)
    assert tuple(c4.shape) == (1, channels[1], size // 16, size // 16)
    assert tuple(c5.shape) == (1, channels[2], size // 32, size // 32)


def test_c3_without_an_expansion__is_the_last_map_of_its_stride() -> None:
    name = "mobilenet_edgetpu_v2_xs"  # block8 strides to 16 and expands in the same convolution
    with torch.device("meta"):
        backbone = Timm(name)
        assert backbone.taps["c3"] == (48, 8, "output of block7")
        assert backbone.taps["c4"] == (1152, 16, "expansion of block16")
        seen: list[torch.Tensor] = []
        backbone.stages()["block7"].register_forward_hook(lambda module, inputs, output: seen.append(output))
        assert backbone(torch.empty(1, 3, 64, 64), ALL_TAPS)[0] is seen[0]
        assert list(Timm(name, tap="expansion").taps) == ["c4", "c5"]


def test_stages_hold_every_parameter_once() -> None:
    with torch.device("meta"):
        for backbone in (Timm("mobilenetv2_035"), Timm("resnet18")):
            staged = [id(p) for stage in backbone.stages().values() for p in stage.parameters()]
            assert sorted(staged) == sorted(id(p) for p in backbone.parameters())
    assert list(Timm("mobilenetv2_035").stages())[:3] == ["stem", "block1", "block2"]


def test_the_tap_can_be_chosen() -> None:
    with torch.device("meta"):
        assert channels_of(Timm("mobilenetv2_035", tap="features")) == (16, 32, 112)
        assert channels_of(Timm("mobilenetv2_035", tap="expansion")) == (96, 192, 1280)


def test_it_is_our_own_mobilenet_v2_with_timms_settings() -> None:
    with torch.device("meta"):
        theirs, ours = Timm("mobilenetv2_100"), MobileNetV2(settings=ConvSettings(bn_eps=1e-5))
    assert theirs.taps == {name: ours.taps[name] for name in ALL_TAPS}
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_settings_and_pixel_range() -> None:
    with torch.device("meta"):
        backbone = Timm("mobilenetv1_100", settings=NormSettings(bn_eps=0.5, bn_momentum=0.25))
        norms = {(m.eps, m.momentum) for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        assert norms == {(0.5, 0.25)}
        assert backbone.mean == (0.5, 0.5, 0.5)
        assert Timm("resnet18").mean == (0.485, 0.456, 0.406)


def test_a_model_section_becomes_a_detector() -> None:
    backbone = {
        "class_path": "detect.model.backbones.Timm",
        "init_args": {"name": "mobilenetv4_conv_small_035"},
    }
    module = build_module({"backbone": backbone, "num_classes": 2, "image_size": [64, 64]}).eval()
    with torch.inference_mode():
        outputs = module.net(torch.zeros(1, 3, 64, 64))
    assert outputs.cls_logits.shape[1] == len(module.net.anchors)
    assert module.net.mean.tolist() == pytest.approx(module.net.backbone.mean)


def test_weights_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = timm.create_model

    def fake(name: str, *, pretrained: bool = False, **options: object) -> torch.nn.Module:
        asked.append(pretrained)
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", fake)
    backbone = Timm("mobilenetv2_050.lamb_in1k", weights="imagenet")
    assert asked == [True]
    assert {row.action for row in backbone.transfer_report} == {"copied"}
    assert backbone.weights_origin == {
        "weights": "mobilenetv2_050.lamb_in1k",
        "licence": "apache-2.0 (timm)",
    }


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"has no model 'mobilenetv9_100'; similar"):
        Timm("mobilenetv9_100")
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 has features at strides \[16, 16, 16\]"):
        Timm("vit_tiny_patch16_224")
    with pytest.raises(InputError, match="resnet18 has no expansion layer"):
        Timm("resnet18", tap="expansion")
    with pytest.raises(InputError, match=r"there is no file nowhere\.pth"):
        Timm("resnet18", weights="nowhere.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth lacks 120 tensors of timm's resnet18: conv1\.weight"):
        Timm("resnet18", weights=str(tmp_path / "a.pth"))
    state_dict = timm.create_model("resnet18").state_dict() | {"conv1.weight": torch.zeros(1)}
    torch.save(state_dict, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"(?s)a\.pth does not fit timm's resnet18: .*conv1\.weight"):
        Timm("resnet18", weights=str(tmp_path / "a.pth"))
    with torch.device("meta"):
        backbone = Timm("mobilevitv2_050")
        with pytest.raises(
            InputError, match=r"grid of \[8, 8\] at stride 32, .*needs \[7, 7\]: .*multiple of 64"
        ):
            backbone(torch.empty(1, 3, 224, 224), ("c4", "c5"))

    def no_network(*names: str, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(
        InputError, match=r"could not download timm's resnet18: no route to host.*give its path"
    ):
        Timm("resnet18", weights="imagenet")
    with pytest.raises(InputError, match="cannot be a backbone: no route"):
        Timm("resnet18")


def test_without_timm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timm(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(timm_backbone, "import_module", no_timm)
    with pytest.raises(InputError, match=r"pip install --editable \'\.\[timm\]\'"):
        Timm("resnet18")

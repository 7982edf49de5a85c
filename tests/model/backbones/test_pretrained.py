"""Pretrained backbones: torchvision and timm, randomly initialised, are the second opinion."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.backbones import Backbone, MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones import pretrained as pretrained_module
from detect.model.backbones.mobilenet_v2 import SOURCES
from detect.model.backbones.pretrained import find_weights, transfer_table
from detect.model.blocks import ConvSettings, SqueezeSettings

Build = Callable[..., Backbone]


def randomised(network: nn.Module) -> nn.Module:
    """Weights as drawn, BatchNorm with statistics, scales and shifts as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.8, 1.2),
                (module.bias.data, -0.2, 0.2),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return network.eval()


def save(network: nn.Module, path: Path) -> str:
    state_dict = network.state_dict()
    save_file(state_dict, path) if path.suffix == ".safetensors" else torch.save(state_dict, path)
    return str(path)


def assert_same_features(backbone: Backbone, source: nn.Module, taps: tuple[str, str]) -> None:
    maps: dict[str, Tensor] = {}
    for name in taps:
        # bound now: the loop variable moves on
        source.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: maps.__setitem__(name, output)
        )
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        source(images)
        features = backbone.eval()(images, ("c4", "c5"))
    for ours, name in zip(features, taps, strict=True):
        assert ours.abs().mean() > 1e-3  # not two maps of zeros
        torch.testing.assert_close(ours, maps[name], rtol=1e-5, atol=1e-5)
    assert {row.action for row in backbone.transfer_report} == {"copied"}


@pytest.mark.parametrize(
    ("build", "arguments", "name", "taps"),
    [
        (MobileNetV2, {}, "mobilenet_v2", ("features.14.conv.0", "features.18")),
        (MobileNetV3, {"size": "large"}, "mobilenet_v3_large", ("features.13.block.0", "features.16")),
        (MobileNetV3, {"size": "small"}, "mobilenet_v3_small", ("features.9.block.0", "features.12")),
    ],
)
def test_features_equal_torchvision(
    build: Build, arguments: dict[str, str], name: str, taps: tuple[str, str], tmp_path: Path
) -> None:
    source = randomised(getattr(torchvision.models, name)(weights=None))
    backbone = build(**arguments, weights=save(source, tmp_path / "source.pth"))
    assert_same_features(backbone, source, taps)
    assert backbone.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("build", "arguments", "name", "taps"),
    [
        (MobileNetV1, {}, "mobilenetv1_100", ("blocks.3.5", "blocks.4.1")),
        (MnasNetA1, {}, "semnasnet_100", ("blocks.5.0.bn1", "bn2")),
        pytest.param(
            *(MobileNetV2, {}, "mobilenetv2_100", ("blocks.5.0.bn1", "bn2")), marks=pytest.mark.slow
        ),
        pytest.param(
            *(MobileNetV3, {"size": "large"}, "mobilenetv3_large_100", ("blocks.5.0.bn1", "blocks.6.0")),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(MobileNetV3, {"size": "small"}, "mobilenetv3_small_100", ("blocks.4.0.bn1", "blocks.5.0")),
            marks=pytest.mark.slow,
        ),
        (
            MobileNetV3,
            {"size": "large", "minimalistic": True},
            "tf_mobilenetv3_large_minimal_100",
            ("blocks.5.0.bn1", "blocks.6.0"),
        ),
        (
            MobileNetV3,
            {"size": "small", "minimalistic": True},
            "tf_mobilenetv3_small_minimal_100",
            ("blocks.4.0.bn1", "blocks.5.0"),
        ),
    ],
)
def test_features_equal_timm(
    build: Build, arguments: dict[str, object], name: str, taps: tuple[str, str], tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")
    source = randomised(timm.create_model(name))
    path = save(source, tmp_path / "source.safetensors")
    assert_same_features(build(**arguments, weights=f"file://{path}"), source, taps)


def test_reduced_tail_takes_the_first_channels_and_reports_them(tmp_path: Path) -> None:
    source = randomised(torchvision.models.mobilenet_v3_large(weights=None))
    backbone = MobileNetV3("large", reduced_tail=True, weights=save(source, tmp_path / "source.pth"))

    actions = {row.layer: row.action for row in backbone.transfer_report}
    tail = {layer for layer in actions if layer == "last" or layer.startswith(("blocks.13.", "blocks.14."))}
    sliced = tail | {
        "blocks.12.project"
    }  # its expansion, depthwise and squeeze keep their width (V3 paper 6.3)
    assert {layer for layer, action in actions.items() if action == "sliced"} == sliced
    assert {layer for layer, action in actions.items() if action != "sliced"} == actions.keys() - sliced
    assert "fresh" not in actions.values()

    last = source.get_submodule("features.16")
    assert torch.equal(backbone.last[0].weight, last[0].weight[:480, :80])
    assert torch.equal(backbone.last[1].running_var, last[1].running_var[:480])

    page = StringIO()
    Console(width=120, file=page).print(transfer_table(backbone))
    text = page.getvalue()
    assert "source.pth" in text
    assert "(480, 80, 1, 1)" in text
    assert "(960, 160, 1, 1)" in text


def test_layers_that_do_not_fit_stay_fresh_and_are_reported(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")
    path = save(randomised(timm.create_model("semnasnet_100")), tmp_path / "source.pth")
    # the papers' squeeze widths (8 16 16 24 32 32) are wider than timm's (6 10 10 20 28 28); 40 fits
    backbone = MnasNetA1(settings=SqueezeSettings(bn_eps=1e-5), weights=path)
    fresh = [row for row in backbone.transfer_report if row.action == "fresh"]
    assert [row.layer for row in fresh] == [f"blocks.{i}.squeeze" for i in (3, 4, 5, 10, 11, 12)]
    assert (fresh[0].shape, fresh[0].source_shape) == ((8, 72, 1, 1), (6, 72, 1, 1))


def test_settings_given_by_hand_win_over_the_sources(tmp_path: Path) -> None:
    path = save(torchvision.models.mobilenet_v2(weights=None), tmp_path / "source.pth")
    assert MobileNetV2(weights=path).settings.bn_eps == 1e-5
    assert MobileNetV2(weights=path, settings=ConvSettings(bn_eps=1e-3)).settings.bn_eps == 1e-3


def test_imagenet_is_fetched_through_the_weights_enum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = torchvision.models.mobilenet_v3_small(weights=None)
    asked: list[tuple[str, dict[str, object]]] = []

    def fake_download(url: str, **options: object) -> dict[str, Tensor]:
        asked.append((url, options))
        return source.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fake_download)
    backbone = MobileNetV3("small", weights="imagenet")
    (url, options), *others = asked
    assert others == []
    assert url.endswith("mobilenet_v3_small-047dcff4.pth")
    assert options == {"progress": True, "check_hash": True, "weights_only": True}
    assert torch.equal(backbone.stem[0].weight, source.get_submodule("features.0.0").weight)
    assert backbone.weights_origin == {
        "weights": "MobileNet_V3_Small_Weights.IMAGENET1K_V1",
        "licence": "BSD-3-Clause (torchvision), trained on ImageNet-1k",
    }


def test_without_a_network_the_message_says_what_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(InputError, match=r"mobilenet_v2-7ebf99e0\.pth.*copy the \.pth or \.safetensors here"):
        MobileNetV2(weights="imagenet")

    timm = pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"timm's semnasnet_100\.rmsp_in1k.*give its path"):
        MnasNetA1(weights="imagenet")


def test_without_timm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timm(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(pretrained_module, "import_module", no_timm)
    with pytest.raises(InputError, match=r"pip install --editable \'\.\[timm\]\'"):
        MobileNetV1(weights="imagenet")


def test_imagenet_at_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"trained at width 1\.0; this backbone has width 0\.5"):
        MobileNetV2(width=0.5, weights="imagenet")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"there is no file nowhere/imagnet\.pth"):
        MobileNetV2(weights="nowhere/imagnet.pth")


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "page.pth"
    text.write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"page\.pth cannot be read as weights"):
        MobileNetV2(weights=str(text))
    text = text.rename(tmp_path / "page.safetensors")
    with pytest.raises(InputError, match=r"page\.safetensors cannot be read as weights"):
        MobileNetV2(weights=str(text))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds list, expected a dictionary of tensors"):
        MobileNetV2(weights=str(tmp_path / "list.pth"))


def test_weights_of_a_training_script_are_unwrapped(tmp_path: Path) -> None:
    source = torchvision.models.mobilenet_v2(weights=None)
    checkpoint = {"model": source.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    backbone = MobileNetV2(weights=str(tmp_path / "checkpoint.pth"))
    assert torch.equal(backbone.stem[0].weight, source.get_submodule("features.0.0").weight)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    resnet = save(torchvision.models.resnet18(weights=None), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"does not have the layer names of.*MobileNet_V2.*conv1\.weight"):
        find_weights(resnet, SOURCES, width=1.0)
    small = save(torchvision.models.mobilenet_v3_small(weights=None), tmp_path / "small.pth")
    with pytest.raises(InputError, match="have 13 stages and blocks, the backbone has 17"):
        MobileNetV3("large", weights=small)

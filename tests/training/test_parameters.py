"""Freezing and parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.model.backbones import MobileNetV3
from detect.model.ssdlite import SSDLite
from detect.training.parameters import (
    ParameterConfig,
    freeze,
    hold_statistics,
    parameter_groups,
    parts_of,
    resolve,
    scale_learning_rates,
)


@pytest.fixture(scope="module")
def net() -> SSDLite:
    return SSDLite(MobileNetV3("small", width=0.35), 3)


def test_parts_hold_every_parameter_once(net: SSDLite) -> None:
    held = [id(p) for part in parts_of(net).values() for p in part.parameters()]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert list(parts_of(net))[:2] == ["stem", "block1"]
    assert list(parts_of(net))[-4:] == ["last", "extra_levels", "cls_heads", "box_heads"]


def test_without_settings_there_is_one_group_of_all(net: SSDLite) -> None:
    (group,) = parameter_groups(net, ParameterConfig())
    assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()}
    assert group.keys() == {"params", "lr_factor"}
    assert group["lr_factor"] == 1.0


def test_weight_decay_by_kind(net: SSDLite) -> None:
    groups = parameter_groups(net, ParameterConfig(norm_weight_decay=0.0, bias_weight_decay=5e-4))
    by_decay = {group.get("weight_decay"): group["params"] for group in groups}
    assert by_decay.keys() == {None, 0.0, 5e-4}
    norms = [p for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert {id(p) for p in by_decay[0.0]} == {id(p) for p in norms}
    biases = [m.bias for m in net.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert {id(p) for p in by_decay[5e-4]} == {id(p) for p in biases}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_learning_rates_follow_the_factors(net: SSDLite) -> None:
    config = ParameterConfig(lr_factors={"stem": 0.25, "block1-3": 0.5, "cls_heads": 2.0})
    optimizer = torch.optim.SGD(parameter_groups(net, config), lr=0.4)
    scale_learning_rates(optimizer)
    lr_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    parts = parts_of(net)
    expected = {"stem": 0.1, "block1": 0.2, "block3": 0.2, "block4": 0.4, "box_heads": 0.4, "cls_heads": 0.8}
    for part, lr in expected.items():
        assert {lr_of[id(p)] for p in parts[part].parameters()} == {lr}


def test_frozen_parts_get_no_gradient_no_group_and_keep_their_statistics() -> None:
    net = SSDLite(MobileNetV3("small", width=0.35), 3)
    freeze(net, ["stem", "block1-2"])
    net.train()
    hold_statistics(net, ["stem", "block1-2"])
    before = {key: value.clone() for key, value in net.state_dict().items()}

    groups = parameter_groups(net, ParameterConfig(freeze=["stem", "block1-2"]))
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    outputs = net(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8).float())
    (outputs.cls_logits.square().mean() + outputs.box_deltas.square().mean()).backward()
    optimizer.step()

    after = net.state_dict()
    held = ("backbone.stem.", "backbone.blocks.0.", "backbone.blocks.1.")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not any(key.startswith(held) for key in changed)
    assert any(key.startswith("backbone.blocks.2.") for key in changed)


def test_names_stand_for_parts(net: SSDLite) -> None:
    assert resolve("block2-4", net) == ["block2", "block3", "block4"]
    assert resolve("backbone", net) == list(net.backbone.stages())


@pytest.mark.parametrize("name", ["stage3", "block9-40", "block4-2", "head"])
def test_a_name_that_is_no_part_is_refused(net: SSDLite, name: str) -> None:
    with pytest.raises(InputError, match=f"no part '{name}'.*backbone, stem, block1"):
        resolve(name, net)


def test_a_part_with_two_factors_is_refused(net: SSDLite) -> None:
    with pytest.raises(InputError, match="'block1-3' names block2, which has a factor already"):
        parameter_groups(net, ParameterConfig(lr_factors={"block2": 0.5, "block1-3": 0.1}))


def test_freezing_everything_is_refused() -> None:
    net = SSDLite(MobileNetV3("small", width=0.35), 3)
    with pytest.raises(InputError, match="nothing would train"):
        freeze(net, ["backbone", "extra_levels", "cls_heads", "box_heads"])

"""Narrower networks with the weights of wider ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.checkpoint import build_detector
from detect.model.ssdlite import SSDLite
from detect.search.inherit import Keep, inherit, kept_channels, layers_of, scores_of, sizes_of
from detect.search.networks import structure
from detect.search.widths import explicit, widths_of, with_widths
from tests.search.cases import ROWS, SETTINGS

NECKS: dict[str, dict[str, Any]] = {
    "none": {},
    "fpn": {"neck": {"class_path": "detect.model.necks.FPN", "init_args": {"channels": 32}}},
    "lcpan": {
        "taps": ["out3", "out4", "out5"],
        "neck": {"class_path": "detect.model.necks.LCPAN", "init_args": {"channels": 32, "kernel": 3}},
        "extra_levels": [],
    },
    "top_down": {
        "taps": ["c3", "c4", "c5"],
        "neck": {"class_path": "detect.model.necks.TopDown", "init_args": {}},
    },
}
V2 = {"class_path": "detect.model.backbones.MobileNetV2", "init_args": {"width": 0.35}}
MNASNET = {"class_path": "detect.model.backbones.MnasNetA1", "init_args": {"width": 0.35}}
CASES = {
    **NECKS,
    "v2": {"backbone": V2},
    "mnasnet": {"backbone": MNASNET},
}


def lively(settings: dict[str, Any]) -> SSDLite:
    """A network whose BatchNorms and biases all matter."""
    torch.manual_seed(0)
    net = build_detector(settings).net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "running_var"):
                getattr(module, name).data.uniform_(0.5, 1.5)
            for name in ("bias", "running_mean"):
                getattr(module, name).data.uniform_(-0.5, 0.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.uniform_(-0.5, 0.5)
    return net


def zero_lost_channels(net: SSDLite, kept: dict[str, Tensor]) -> None:
    """Zero what gives each channel that is not kept: its filter, or its BatchNorm."""
    sizes = sizes_of(net, layers_of(net))
    for path, layer in layers_of(net).items():
        if not layer.gives or ".squeeze.expand" in path:
            continue
        lost = []
        for space in layer.gives:
            mask = torch.ones(sizes[space])
            mask[kept[space]] = 0
            lost.append(mask.bool())
        places = torch.cat(lost)
        layer_of = net.get_submodule(f"{path}.1" if layer.normed else path)
        layer_of.weight.data[places] = 0
        layer_of.bias.data[places] = 0


@pytest.mark.parametrize("keep", ["l2", "taylor"])
@pytest.mark.parametrize("case", CASES)
def test_narrow_network_gives_what_the_wide_one_gives_without_the_lost_filters(case: str, keep: Keep) -> None:
    if keep == "taylor" and case not in ("none", "mnasnet"):
        return
    stated = explicit({**SETTINGS, **CASES[case]})
    start = widths_of(stated)
    changed: dict[str, int] = {}
    for name, value in start.items():
        smaller = {**changed, name: value - 8}
        if value > 8 and structure(with_widths(stated, smaller)) == structure(stated):
            changed = smaller
    assert changed
    wide, narrow = lively(stated), build_detector(with_widths(stated, changed)).net.eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    if keep == "taylor":
        wide(images).cls_logits.square().sum().backward()
    inherit(wide, narrow, keep=keep)
    layers = layers_of(wide)
    zero_lost_channels(wide, kept_channels(scores_of(wide, layers, keep), sizes_of(narrow, layers)))
    with torch.inference_mode():
        for ours, theirs in zip(narrow(images)[:2], wide(images)[:2], strict=True):
            assert ours.abs().max() > 0.1
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_kept_filters_are_the_largest_and_copied_exactly() -> None:
    stated = explicit(SETTINGS)
    wide, narrow = lively(stated), build_detector(with_widths(stated, {"block3.expansion": 16})).net
    expand, norm, _ = wide.backbone.blocks[2].expand
    expand.weight.data[:] = 0.01
    norm.weight.data[:] = norm.running_var[:] = 1.0
    large = torch.arange(1, 48, 3)  # 16 of 48
    expand.weight.data[large] = torch.randn(16, *expand.weight.shape[1:])
    inherit(wide, narrow)
    found = narrow.backbone.blocks[2]
    assert torch.equal(found.expand[0].weight, expand.weight[large])
    assert torch.equal(
        found.depthwise[1].running_mean, wide.backbone.blocks[2].depthwise[1].running_mean[large]
    )
    assert torch.equal(found.project[0].weight, wide.backbone.blocks[2].project[0].weight[:, large])


def test_convolutions_of_a_residual_keep_the_same_channels() -> None:
    layers = layers_of(lively(explicit(SETTINGS)))
    # Blocks 2 and 3 of the rows have 24 channels, and the third has a residual.
    assert ROWS[1][2] == ROWS[2][2] == 24
    assert layers["backbone.blocks.1.project"].gives == layers["backbone.blocks.2.project"].gives
    assert layers["backbone.blocks.3.expand"].reads == layers["backbone.blocks.1.project"].gives


def test_network_of_other_layers__refused() -> None:
    stated = explicit(SETTINGS)
    other = deepcopy(stated)
    other["backbone"]["init_args"]["rows"][3][3] = False  # no squeeze-and-excite
    with pytest.raises(InputError, match="these networks have other layers"):
        inherit(lively(stated), build_detector(other).net)
    wider = with_widths(stated, {"block3.expansion": 56})
    with pytest.raises(InputError, match="differ in more than in the number of channels"):
        inherit(lively(stated), build_detector(wider).net)

"""Shapes, taps and published counts of every backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.model.backbones import Backbone, MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones.mobilenet_v3 import LARGE, reduce_tail, simplify
from detect.model.blocks import ConvNormAct, ConvSettings, InvertedResidual, SqueezeExcite, SqueezeSettings

# name, backbone, channels of c3, c4 and c5, the modules that give c3 and c4 (facts: V3 paper section 6.3, V2
# paper 6.2)
TAPS = [
    ("v1", MobileNetV1, {}, (256, 512, 1024), ("blocks.4.1", "blocks.10.1")),
    ("v2", MobileNetV2, {}, (192, 576, 1280), ("blocks.6.expand", "blocks.13.expand")),
    ("v2_050", MobileNetV2, {"width": 0.5}, (96, 288, 640), ("blocks.6.expand", "blocks.13.expand")),
    ("v2_035", MobileNetV2, {"width": 0.35}, (96, 192, 448), ("blocks.6.expand", "blocks.13.expand")),
    ("mnasnet", MnasNetA1, {}, (240, 672, 1280), ("blocks.6.expand", "blocks.12.expand")),
    ("mnasnet_050", MnasNetA1, {"width": 0.5}, (144, 336, 640), ("blocks.6.expand", "blocks.12.expand")),
    ("mnasnet_035", MnasNetA1, {"width": 0.35}, (96, 240, 448), ("blocks.6.expand", "blocks.12.expand")),
    ("v3_large", MobileNetV3, {}, (240, 672, 960), ("blocks.6.expand", "blocks.12.expand")),
    (
        "v3_large_reduced",
        MobileNetV3,
        {"reduced_tail": True},
        (240, 672, 480),
        ("blocks.6.expand", "blocks.12.expand"),
    ),
    ("v3_small", MobileNetV3, {"size": "small"}, (96, 288, 576), ("blocks.3.expand", "blocks.8.expand")),
    (
        "v3_small_reduced",
        MobileNetV3,
        {"size": "small", "reduced_tail": True},
        (96, 288, 288),
        ("blocks.3.expand", "blocks.8.expand"),
    ),
    (
        "v3_large_minimalistic",
        MobileNetV3,
        {"minimalistic": True},
        (240, 672, 960),
        ("blocks.6.expand", "blocks.12.expand"),
    ),
    (
        "v3_small_minimalistic",
        MobileNetV3,
        {"size": "small", "minimalistic": True},
        (96, 288, 576),
        ("blocks.3.expand", "blocks.8.expand"),
    ),
]
ALL_TAPS = ("c3", "c4", "c5")
WITH_OUTPUTS = ("out3", "c3", "out4", "c4", "out5", "c5")
"""Where a block that strides begins with an expansion, the output before it is another map."""


@pytest.mark.parametrize(
    ("family", "arguments", "channels", "sources"), [row[1:] for row in TAPS], ids=[row[0] for row in TAPS]
)
def test_taps_have_the_channels_strides_and_module_of_the_papers(
    family: type[Backbone],
    arguments: dict[str, object],
    channels: tuple[int, int, int],
    sources: tuple[str, str],
) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        backbone = family(**arguments)
        seen: list[torch.Tensor] = []
        for source in sources:
            backbone.get_submodule(source).register_forward_hook(
                lambda module, inputs, output: seen.append(output)
            )
        c3, c4, c5 = backbone(torch.empty(1, 3, 320, 320), ALL_TAPS)

    assert tuple(backbone.taps) == (ALL_TAPS if family is MobileNetV1 else WITH_OUTPUTS)
    assert [(name, *backbone.taps[name][:2]) for name in ALL_TAPS] == [
        ("c3", channels[0], 8),
        ("c4", channels[1], 16),
        ("c5", channels[2], 32),
    ]
    assert tuple(c3.shape) == (1, channels[0], 40, 40)
    assert tuple(c4.shape) == (1, channels[1], 20, 20)
    assert tuple(c5.shape) == (1, channels[2], 10, 10)
    assert c3 is seen[0]
    assert c4 is seen[1]
    for source in sources:
        assert isinstance(backbone.get_submodule(source), ConvNormAct)


# Channels of out3, out4 and out5, and their blocks by number: the tables of the papers, halved in the tail.
OUTPUTS = [
    (MobileNetV2, {}, (32, 96, 320), (6, 13, 17)),
    (MnasNetA1, {}, (40, 112, 320), (6, 12, 16)),
    (MobileNetV3, {}, (40, 112, 160), (6, 12, 15)),
    (MobileNetV3, {"reduced_tail": True}, (40, 112, 80), (6, 12, 15)),
    (MobileNetV3, {"size": "small"}, (24, 48, 96), (3, 8, 11)),
]


@pytest.mark.parametrize(("family", "arguments", "channels", "blocks"), OUTPUTS)
def test_outputs_are_those_of_the_last_block_at_each_stride(
    family: type[Backbone],
    arguments: dict[str, object],
    channels: tuple[int, int, int],
    blocks: tuple[int, int, int],
) -> None:
    names = ("out3", "out4", "out5")
    with torch.device("meta"):
        backbone = family(**arguments)
        backbone.trim(names)
        seen: list[torch.Tensor] = []
        for number in blocks:
            backbone.get_submodule(f"blocks.{number - 1}").register_forward_hook(
                lambda module, inputs, output: seen.append(output)
            )
        maps = backbone(torch.empty(1, 3, 320, 320), names)
    strides = (8, 16, 32)
    assert [backbone.taps[name] for name in names] == [
        (count, stride, f"output of block{number}")
        for count, stride, number in zip(channels, strides, blocks, strict=True)
    ]
    assert [tuple(found.shape) for found in maps] == [
        (1, count, 320 // stride, 320 // stride) for count, stride in zip(channels, strides, strict=True)
    ]
    assert all(found is expected for found, expected in zip(maps, seen, strict=True))
    assert "last" not in backbone.stages()


@pytest.mark.parametrize("family", [MobileNetV1, MobileNetV2, MnasNetA1, MobileNetV3])
def test_taps_do_not_change_each_other(family: type[Backbone]) -> None:
    torch.manual_seed(0)
    backbone = family(width=0.25).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        all_taps = dict(zip(ALL_TAPS, backbone(images, ALL_TAPS), strict=True))
        for names in (("c5",), ("c4", "c5"), ("c3", "c5")):
            found = backbone(images, names)
            assert len(found) == len(names)
            assert all(torch.equal(x, all_taps[name]) for x, name in zip(found, names, strict=True))


@pytest.mark.parametrize("family", [MobileNetV1, MobileNetV2, MnasNetA1, MobileNetV3])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_grids_round_up_on_sizes_that_32_does_not_divide(family: type[Backbone], padding: str) -> None:
    with torch.device("meta"):
        settings_class = ConvSettings if family in (MobileNetV1, MobileNetV2) else SqueezeSettings
        backbone = family(settings=settings_class(padding=padding))
        c3, c4, c5 = backbone(torch.empty(1, 3, 201, 330), ALL_TAPS)
    assert tuple(c3.shape[2:]) == (26, 42)  # 201 / 8 = 25.1, 330 / 8 = 41.3
    assert tuple(c4.shape[2:]) == (13, 21)  # 201 / 16 = 12.6, 330 / 16 = 20.6
    assert tuple(c5.shape[2:]) == (7, 11)


@pytest.mark.parametrize("family", [MobileNetV1, MobileNetV2, MnasNetA1, MobileNetV3])
def test_stages_hold_every_parameter_once_in_order(family: type[Backbone]) -> None:
    backbone = family()
    staged = [parameter for stage in backbone.stages().values() for parameter in stage.parameters()]
    assert [id(p) for p in staged] == [id(p) for p in backbone.parameters()]
    assert next(iter(backbone.stages())) == "stem"


def test_settings_reach_every_batch_norm() -> None:
    backbone = MnasNetA1(settings=SqueezeSettings(bn_eps=0.5, bn_momentum=0.25))
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == len([m for m in backbone.modules() if isinstance(m, ConvNormAct)])
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}


def test_squeeze_widths_are_those_of_the_papers() -> None:
    def widths(backbone: Backbone) -> list[int]:
        return [m.reduce.out_channels for m in backbone.modules() if isinstance(m, SqueezeExcite)]

    assert widths(MobileNetV3("large")) == [24, 32, 32, 120, 168, 168, 240, 240]
    assert widths(MobileNetV3("large", reduced_tail=True)) == [24, 32, 32, 120, 168, 168, 120, 120]
    assert widths(MobileNetV3("small")) == [8, 24, 64, 64, 32, 40, 72, 144, 144]
    assert widths(MobileNetV3("small", reduced_tail=True))[-3:] == [72, 72, 72]
    # a quarter of the block's input, 24 40 40 80 112 112 160 160, to multiples of 8 (never below nine tenths)
    assert widths(MnasNetA1()) == [8, 16, 16, 24, 32, 32, 40, 40]
    assert widths(MnasNetA1(settings=SqueezeSettings(squeeze_divisor=1))) == [6, 10, 10, 20, 28, 28, 40, 40]


def test_reduced_tail_halves_from_the_first_stride_32_block_and_keeps_its_expansion() -> None:
    reduced = reduce_tail(LARGE)
    tap = 12  # block 13 of Table 1 strides from 16 to 32
    assert reduced[:tap] == LARGE[:tap]
    assert [(row.expansion, row.out) for row in reduced[tap:]] == [(672, 80), (480, 80), (480, 80)]


def test_expansions_follow_the_table_or_the_rounded_input() -> None:
    def channels(**arguments) -> list[int]:
        blocks = MobileNetV3("large", **arguments).blocks
        return [block.expanded_channels for block in blocks]

    # outputs 16 24 24 32 32 32 64 64 64 64 88 88 120 120 120, first input 16
    by_table = [16, 48, 56, 56, 88, 88, 184, 152, 136, 136, 360, 504, 504, 720, 720]
    by_input = [16, 64, 72, 72, 96, 96, 192, 160, 144, 144, 384, 528, 528, 720, 720]
    assert channels(width=0.75) == by_table
    assert channels(width=0.75, expansions="input") == by_input
    assert channels(reduced_tail=True, expansions="input") == channels(reduced_tail=True)
    small = MobileNetV3("small", width=0.35, expansions="input")
    assert small.taps["c5"].channels == 200  # 576 * 0.35 = 201.6, and not 6 times the 32 before


def test_minimalistic_has_no_squeeze_no_hard_swish_and_no_5x5() -> None:
    backbone = MobileNetV3("large", minimalistic=True)
    assert all(row.kernel == 3 and not row.squeeze for row in simplify(LARGE))
    kinds = {type(module) for module in backbone.modules()}
    assert kinds.isdisjoint({SqueezeExcite, nn.Hardswish, nn.Hardsigmoid})
    assert all(max(m.kernel_size) <= 3 for m in backbone.modules() if isinstance(m, nn.Conv2d))


def test_minimalistic__squeeze_divisor__refused() -> None:
    with pytest.raises(InputError, match=r"squeeze_divisor is 4, but a minimalistic network"):
        MobileNetV3("small", minimalistic=True, settings=SqueezeSettings(squeeze_divisor=4))


def test_mobilenet_v3_uses_relu_and_hard_swish_where_the_paper_does() -> None:
    blocks = [m for m in MobileNetV3("large").modules() if isinstance(m, InvertedResidual)]
    assert [isinstance(block.depthwise[2], nn.Hardswish) for block in blocks] == [False] * 6 + [True] * 9


def test_init_weights_draws_the_asked_spread_and_keeps_pretrained_weights() -> None:
    backbone = MobileNetV2()
    backbone.init_weights("normal")
    assert backbone.last[0].weight.std().item() == pytest.approx(0.03, rel=0.02)
    backbone.init_weights("kaiming")
    # fan-out of the last 1x1 is 1280: std = sqrt(2 / 1280)
    assert backbone.last[0].weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)

    backbone.weights_origin = {"weights": "some.pth"}
    before = backbone.last[0].weight.clone()
    backbone.init_weights("normal")
    assert torch.equal(backbone.last[0].weight, before)

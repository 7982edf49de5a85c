"""The slot between taps and heads, with a neck that is not one of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detect.model.backbones import MobileNetV3
from detect.model.backbones.base import Tap
from detect.model.blocks import ConvNormAct, ConvSettings
from detect.model.necks import Neck
from detect.model.ssdlite import SSDLite
from detect.training.parameters import ParameterConfig, freeze, parameter_groups, parts_of


class Pooled(Neck):
    """Gives other maps than it takes, and wants one level after them."""

    extra_levels = ((32, 48),)

    def build(self, taps: Sequence[Tap], settings: ConvSettings) -> list[Tap]:
        self.last = ConvNormAct(taps[-1].channels, 16, settings=settings)
        return [*taps, Tap(16, 2 * taps[-1].stride)]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [*maps, self.last(F.max_pool2d(maps[-1], 2, ceil_mode=True))]


class Bare(Pooled):
    extra_levels = ()


def test_levels_follow_from_the_neck() -> None:
    net = SSDLite(MobileNetV3("small", width=0.5), 2, image_size=(96, 160), neck=Pooled())
    assert net.strides == [16, 32, 64, 128]
    assert net.extra_levels[0].out_channels == 24  # 48 at width 0.5
    maps = net.eval().feature_maps(torch.zeros(1, 3, 96, 160))
    assert [tuple(m.shape[2:]) for m in maps] == net.grid_sizes == [(6, 10), (3, 5), (2, 3), (1, 2)]
    assert maps[-1].shape[1] == 24
    assert net.anchor_generator.per_cell == [3, 6, 6, 6]


def test_a_neck_may_want_no_level_after_it() -> None:
    net = SSDLite(MobileNetV3("small", width=0.5), 2, image_size=(96, 160), neck=Bare())
    assert net.strides == [16, 32, 64]
    assert len(net.extra_levels) == 0
    assert len(net.eval()(torch.zeros(1, 3, 96, 160)).box_deltas[0]) == len(net.anchors)


def test_weights_of_a_neck_are_drawn_trained_and_named() -> None:
    torch.manual_seed(0)
    net = SSDLite(MobileNetV3("small"), 2, neck=Pooled())
    convolution = net.neck.last[0]
    assert isinstance(convolution, nn.Conv2d)
    assert abs(convolution.weight.std().item() / 0.03 - 1) < 0.1  # init: normal
    assert list(parts_of(net))[-5:] == ["last", "neck", "extra_levels", "cls_heads", "box_heads"]
    grouped = {id(p) for group in parameter_groups(net, ParameterConfig()) for p in group["params"]}
    assert grouped == {id(p) for p in net.parameters()}
    freeze(net, ["neck"])
    assert not any(p.requires_grad for p in net.neck.parameters())


def test_settings_reach_every_batch_norm_of_a_neck() -> None:
    net = SSDLite(MobileNetV3("small"), 2, neck=Pooled(), settings=ConvSettings(bn_eps=0.5, bn_momentum=0.25))
    assert (net.neck.last[1].eps, net.neck.last[1].momentum) == (0.5, 0.25)

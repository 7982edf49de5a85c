"""Counts by hand, and against torchvision's own figures."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

from detect.model.anchors import AnchorConfig
from detect.model.backbones import MobileNetV3
from detect.model.counts import count
from detect.model.ssdlite import SSDLite


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.Hardswish()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.linear = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.depthwise(self.act(self.norm(self.conv(images)))).mean((2, 3)))


def test_counts_of_a_network_that_can_be_counted_by_hand() -> None:
    network = Toy().train()
    counts = count(network, (4, 6))  # a 2x3 grid after the stride
    # conv 8*3*9 + 8 biases, norm 8 + 8, depthwise 8*9, linear 8*5 + 5
    assert counts.params == 224 + 16 + 72 + 45
    assert counts.params_without_bn == 224 + 72 + 45
    # 6 cells: conv 6*8*3*9, depthwise 6*8*9
    assert counts.conv_madds == 1296 + 432
    # linear 8*5, h-swish 1.5 * 6*8
    assert counts.madds == 1296 + 432 + 40 + 72
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_the_torchvision_head_has_the_counts_that_torchvision_publishes() -> None:
    with torch.device("meta"):
        net = SSDLite(MobileNetV3(reduced_tail=True), 90, anchors=AnchorConfig("torchvision"))
    counts = count(net, (320, 320))
    meta = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta
    assert counts.params == meta["num_params"] == 3_440_060
    assert counts.conv_madds == 583_171_904
    assert round(counts.conv_madds / 1e9, 3) == meta["_ops"]
    assert sum(p.numel() for p in net.backbone.parameters()) == 1_620_512
    assert sum(p.numel() for p in net.extra_levels.parameters()) == 452_160

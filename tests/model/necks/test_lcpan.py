"""LCPAN: grids, which maps know of which, counts by hand, compiling."""

import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.model.anchors import AnchorConfig
from detect.model.backbones import MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones.base import Tap
from detect.model.blocks import ConvSettings
from detect.model.counts import count
from detect.model.necks import LCPAN
from detect.model.ssdlite import SSDLite

OUTPUTS = ("out3", "out4", "out5")


@pytest.mark.parametrize(
    ("family", "image_size", "taps"),
    [
        (MobileNetV1, (300, 300), ("c3", "c4", "c5")),
        (MobileNetV2, (96, 160), OUTPUTS),
        (MnasNetA1, (97, 333), OUTPUTS),
        (MobileNetV3, (300, 300), ("out4", "out5")),
        (MobileNetV3, (97, 333), ("c3", "c5")),
        (MobileNetV3, (96, 160), ("out5",)),
    ],
)
def test_maps__have_the_grids_of_the_anchors(family, image_size, taps):
    with torch.device("meta"):
        net = SSDLite(family(width=0.25), 3, image_size=image_size, taps=taps, neck=LCPAN(24)).eval()
        maps = net.feature_maps(torch.zeros(1, 3, *image_size))
        outputs = net(torch.zeros(2, 3, *image_size))
    assert [tuple(m.shape[2:]) for m in maps] == net.grid_sizes
    assert [m.shape[1] for m in maps] == [24] * (len(taps) + 1)
    assert net.strides[-1] == 64
    assert outputs.box_deltas.shape == (2, len(net.anchors), 4)


def test_forward__every_map_knows_of_every_tap():
    torch.manual_seed(0)
    neck = LCPAN(8, convs=0)
    assert neck.build([Tap(3, 8), Tap(5, 16)], ConvSettings()) == [Tap(8, 8), Tap(8, 16), Tap(8, 32)]
    neck.eval()
    fine, coarse = torch.randn(1, 3, 9, 13), torch.randn(1, 5, 5, 7)
    with torch.inference_mode():
        maps = neck([fine, coarse])
        assert [tuple(m.shape[2:]) for m in maps] == [(9, 13), (5, 7), (3, 4)]
        for changed in ([fine + 1, coarse], [fine, coarse + 1]):
            moved = neck(changed)
            assert not any(torch.equal(one, other) for one, other in zip(maps, moved, strict=True))


def test_counts__by_hand():
    with torch.device("meta"):
        net = SSDLite(
            MobileNetV3(reduced_tail=True),
            80,
            taps=OUTPUTS,
            neck=LCPAN(64, convs=1),
            anchors=AnchorConfig("points"),
        )
        assert isinstance(net.neck, LCPAN)
        neck = sum(p.numel() for p in net.neck.parameters())
        heads = sum(p.numel() for part in (net.cls_heads, net.box_heads) for p in part.parameters())
        counts = count(net, (320, 320))
    lateral = 64 * (40 + 112 + 80) + 3 * 2 * 64
    merge = 25 * 128 + 2 * 128 + 128 * 64 + 2 * 64  # 5x5 depthwise of both maps, 1x1 to the width
    plain = 25 * 64 + 2 * 64 + 64 * 64 + 2 * 64
    assert neck == lateral + 4 * merge + (2 + 2 + 4) * plain
    assert heads == 4 * (2 * (9 * 64 + 2 * 64) + 64 * (81 + 4) + 81 + 4)
    assert counts.madds == 436_249_600
    assert len(net.anchors) == 40**2 + 20**2 + 10**2 + 5**2


@pytest.mark.slow
def test_detector__compiles_whole():
    """With learnt distributions of the sides of a box as well."""
    torch.manual_seed(0)
    small = MobileNetV3("small", width=0.25)
    net = SSDLite(small, 3, image_size=(75, 96), taps=OUTPUTS, neck=LCPAN(16), box_bins=8).eval()
    images = torch.randint(0, 256, (2, 3, 75, 96), dtype=torch.uint8)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(images)
        for one, other in zip(compiled, net(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_layers__are_all_trained():
    torch.manual_seed(0)
    net = SSDLite(MobileNetV3("small", width=0.25), 3, image_size=(96, 96), taps=OUTPUTS, neck=LCPAN(16))
    outputs = net(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8))
    sum(output.square().sum() for output in outputs[:2]).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert "last" not in net.backbone.stages()


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"kernel": 4}, {"convs": -1}])
def test_lcpan__wrong_numbers__refused(arguments):
    with pytest.raises(InputError, match="LCPAN: channels is"):
        LCPAN(**arguments)


def test_convs__stand_on_each_map_alone():
    neck = LCPAN(8, convs=2)
    neck.build([Tap(3, 8), Tap(5, 16)], ConvSettings())
    assert [len(tower) for tower in neck.towers if isinstance(tower, nn.Sequential)] == [2, 2, 2]

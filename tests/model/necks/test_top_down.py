"""TopDown: a fresh one changes nothing, a trained one brings the coarser maps in."""

import torch
from torch.nn import functional as F

from detect.model.anchors import AnchorConfig
from detect.model.backbones import MobileNetV3
from detect.model.backbones.base import Tap
from detect.model.blocks import ConvSettings
from detect.model.counts import count
from detect.model.necks import TopDown
from detect.model.ssdlite import SSDLite

OUTPUTS = ("out3", "out4", "out5")


def test_fresh__is_the_detector_without_it():
    images = torch.randint(0, 256, (2, 3, 96, 130), dtype=torch.uint8)
    nets = []
    for neck in (None, TopDown()):
        torch.manual_seed(0)
        nets.append(
            SSDLite(MobileNetV3("small", width=0.25), 3, image_size=(96, 130), taps=OUTPUTS, neck=neck)
        )
    plain, with_neck = nets
    missing = with_neck.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith("neck.") for name in missing.missing_keys)
    for one, other in zip(plain(images)[:2], with_neck(images)[:2], strict=True):
        assert torch.equal(one, other)
    assert plain.strides == with_neck.strides


def test_trained__adds_the_coarser_maps_and_learns():
    torch.manual_seed(0)
    neck = TopDown()
    assert neck.build([Tap(3, 8), Tap(5, 16), Tap(7, 32)], ConvSettings()) == [
        Tap(3, 8),
        Tap(5, 16),
        Tap(7, 32),
    ]
    neck.eval()
    maps = [torch.randn(1, 3, 9, 13), torch.randn(1, 5, 5, 7), torch.randn(1, 7, 3, 4)]
    neck(maps)[0].sum().backward()
    scales = [layer[1].weight for layer in neck.lateral]
    assert scales[0].grad.abs().min() > 0  # it leaves 0 with the first step
    with torch.no_grad():
        for scale in scales:
            scale.fill_(1.0)
        fine, middle, coarse = neck(maps)
        assert torch.equal(coarse, maps[2])
        expected = maps[1] + F.interpolate(neck.lateral[1](maps[2]), size=(5, 7), mode="nearest")
        torch.testing.assert_close(middle, expected)
        expected = maps[0] + F.interpolate(neck.lateral[0](middle), size=(9, 13), mode="nearest")
        torch.testing.assert_close(fine, expected)


def test_counts__by_hand():
    counts = []
    for neck in (None, TopDown()):
        with torch.device("meta"):
            net = SSDLite(
                MobileNetV3(reduced_tail=True),
                80,
                taps=OUTPUTS,
                neck=neck,
                anchors=AnchorConfig("torchvision"),
            )
            counts.append(count(net, (320, 320)))
    plain, with_neck = counts
    assert with_neck.params - plain.params == 112 * 40 + 80 * 112 + 2 * (40 + 112)
    assert with_neck.conv_madds - plain.conv_madds == 112 * 40 * 20**2 + 80 * 112 * 10**2

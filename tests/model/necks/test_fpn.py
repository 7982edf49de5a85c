"""A feature pyramid between taps and heads: shapes, counts, compiling, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from detect.deploy.export import ExportOptions, export
from detect.errors import InputError
from detect.model.backbones import MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.backbones.base import Tap
from detect.model.blocks import ConvSettings
from detect.model.counts import count
from detect.model.necks import FPN
from detect.model.ssdlite import SSDLite
from tests.detector_cases import lively_detector, save_checkpoint

TAPS = ("c3", "c4", "c5")
SECTION = {
    "taps": list(TAPS),
    "neck": {"class_path": "detect.model.necks.FPN", "init_args": {"channels": 24}},
}


@pytest.mark.parametrize(
    ("family", "image_size", "taps"),
    [
        (MobileNetV1, (300, 300), TAPS),
        (MobileNetV2, (96, 160), TAPS),
        (MnasNetA1, (97, 333), TAPS),
        (MobileNetV3, (300, 300), ("c4", "c5")),
        (MobileNetV3, (97, 333), ("c3", "c5")),
        (MobileNetV3, (96, 160), ("c5",)),
    ],
)
def test_maps__have_the_grids_of_the_anchors(
    family: type, image_size: tuple[int, int], taps: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        net = SSDLite(family(width=0.25), 3, image_size=image_size, taps=taps, neck=FPN(24)).eval()
        maps = net.feature_maps(torch.zeros(1, 3, *image_size))
        outputs = net(torch.zeros(2, 3, *image_size))
    assert [tuple(m.shape[2:]) for m in maps] == net.grid_sizes
    assert [m.shape[1] for m in maps[: len(taps)]] == [24] * len(taps)
    assert len(maps) == len(taps) + 4
    assert outputs.box_deltas.shape == (2, len(net.anchors), 4)


def test_forward__coarse_maps_are_added_to_finer_ones_and_not_the_other_way() -> None:
    torch.manual_seed(0)
    neck = FPN(8)
    assert neck.build([Tap(3, 16), Tap(5, 32)], ConvSettings()) == [Tap(8, 16), Tap(8, 32)]
    neck.eval()
    fine, coarse = torch.randn(1, 3, 5, 7), torch.randn(1, 5, 3, 4)
    with torch.inference_mode():
        first, second = neck([fine, coarse])
        lateral = neck.lateral[0](fine) + F.interpolate(neck.lateral[1](coarse), size=(5, 7), mode="nearest")
        torch.testing.assert_close(first, neck.smooth[0](lateral))
        moved = neck([fine, coarse + 1])
        assert not torch.equal(moved[0], first)
        assert torch.equal(neck([fine + 1, coarse])[1], second)


def test_counts__by_hand() -> None:
    with torch.device("meta"):
        net = SSDLite(MobileNetV3(reduced_tail=True), 90, taps=TAPS, neck=FPN(64))
        counts = count(net, (320, 320))
        net.neck = None  # as if the heads stood on the taps
        others = sum(p.numel() for p in net.parameters())
    # 1x1 from 240, 672 and 480 channels; 3x3 depthwise and 1x1 of 64; scale and shift of 9 BatchNorms of 64
    assert counts.params - others == 64 * (240 + 672 + 480) + 3 * (64 * 9 + 64 * 64) + 9 * 2 * 64


@pytest.mark.slow
def test_detector__compiles_whole() -> None:
    net = SSDLite(MobileNetV3("small", width=0.25), 3, image_size=(75, 96), taps=TAPS, neck=FPN(24)).eval()
    images = torch.randint(0, 256, (2, 3, 75, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = net(images)
        found = torch.compile(net, backend="aot_eager", fullgraph=True)(images)
    torch.testing.assert_close(found[:2], expected[:2])
    torch.compiler.reset()


@pytest.mark.slow
def test_exported_to_onnx__equals_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    detector = lively_detector(**SECTION, image_size=[75, 100])
    checkpoint = save_checkpoint(detector, tmp_path / "fpn.ckpt")
    # The file is compared with the checkpoint's network before it is kept.
    assert export(checkpoint, tmp_path / "fpn.onnx", ExportOptions(format="onnx", form="raw")) == 0


@pytest.mark.parametrize("channels", [0, -8])
def test_channels__below_1__refused(channels: int) -> None:
    with pytest.raises(InputError, match=rf"FPN: channels is {channels}; at least 1"):
        FPN(channels)

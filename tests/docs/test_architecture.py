"""The page that draws the architecture is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.model.anchors import AnchorConfig
from detect.model.backbones import MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.counts import count
from detect.model.ssdlite import SSDLite
from scripts.write_architecture import architecture_page, describe, measure_parts

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page == architecture_page(ROOT / "configs"), (
        "docs/architecture.md differs from the code; run: "
        "python scripts/write_architecture.py docs/architecture.md"
    )


@pytest.mark.parametrize("family", [MobileNetV1, MobileNetV2, MnasNetA1, MobileNetV3])
def test_parts_add_up_to_the_whole(family: type) -> None:
    with torch.device("meta"):
        net = SSDLite(family(), 5, anchors=AnchorConfig("paper"))
    parts, counts = measure_parts(net), count(net, net.image_size)
    assert sum(part.params for part in parts) == counts.params_without_bn
    assert sum(part.madds for part in parts) == counts.conv_madds
    assert [part.shape[1:] for part in parts if part.name.startswith("class head")] == net.grid_sizes


def test_blocks_in_words() -> None:
    backbone = MobileNetV3("large", reduced_tail=True)
    words = {name: describe(stage) for name, stage in backbone.stages().items()}
    assert words["stem"] == "3x3 16, stride 2, h-swish"
    assert words["block13"] == ("1x1 672, h-swish; 5x5 depthwise 672, stride 2, h-swish; squeeze 168; 1x1 80")
    assert backbone.taps["c4"].source == "expansion of block13"
    assert describe(MobileNetV1().blocks[0]) == "3x3 depthwise 32, ReLU6; 1x1 64, ReLU6"

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from detect.errors import InputError
from detect.model.anchors import AnchorConfig, AnchorGenerator, even_scales, grid_sizes

STRIDES = (16, 32, 64, 128, 256, 512)
GRIDS_320 = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def anchors_of(style: str, grids=GRIDS_320, image_size=(320, 320), **config) -> torch.Tensor:
    return AnchorGenerator(AnchorConfig(style=style, **config), STRIDES)(grids, image_size)


def test_paper__counts_and_first_anchors_by_hand():
    anchors = anchors_of("paper")
    # 20*20*3 + (10*10 + 5*5 + 3*3 + 2*2 + 1*1) * 6 = 1200 + 834
    assert anchors.shape == (2034, 4)
    # First cell: centre 8 px; scale 0.1 of 320 is 32 px: 8 -+ 16.
    assert anchors[0].tolist() == [-8, -8, 24, 24]
    # Scale 0.2, ratio 2: width 64 * sqrt(2) = 90.51, height 64 / sqrt(2) = 45.25.
    assert anchors[1].tolist() == pytest.approx(
        [8 - 45.2548, 8 - 22.6274, 8 + 45.2548, 8 + 22.6274], abs=1e-3
    )
    assert anchors[2].tolist() == pytest.approx(
        [8 - 22.6274, 8 - 45.2548, 8 + 22.6274, 8 + 45.2548], abs=1e-3
    )
    # Last anchor: square of sqrt(0.95 * 1.0) * 320 = 311.9 px around the centre 160.
    assert anchors[-1].tolist() == pytest.approx([160 - 155.949, 160 - 155.949, 315.949, 315.949], abs=1e-3)


def test_torchvision__first_anchor_by_hand():
    anchors = anchors_of("torchvision")
    assert anchors.shape == (3234, 4)
    assert anchors[0].tolist() == [-24, -24, 40, 40]  # scale 0.2 of 320 is 64 px around 8


@pytest.mark.parametrize("image_size", [(320, 320), (256, 448), (300, 200)])
def test_torchvision__equals_torchvision(image_size):
    grids = [(-(-image_size[0] // s), -(-image_size[1] // s)) for s in STRIDES]
    theirs = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)(
        ImageList(torch.zeros(1, 3, *image_size), [image_size]), [torch.zeros(1, 1, *grid) for grid in grids]
    )[0]
    assert torch.allclose(anchors_of("torchvision", grids, image_size), theirs, atol=1e-4)


def test_paper__keeps_its_shape_on_oblong_inputs():
    anchors = anchors_of("paper", [(10, 20), (5, 10), (3, 5), (2, 3), (1, 2), (1, 1)], (160, 320))
    assert anchors[0].tolist() == [0, 0, 16, 16]  # 0.1 of the shorter side 160, around 8
    squares = anchors[:600:3]
    assert torch.equal(squares[:, 2] - squares[:, 0], squares[:, 3] - squares[:, 1])


def test_order__map_then_row_then_cell():
    anchors = anchors_of("paper")
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[3].tolist() == [24, 8]  # next cell of the first row
    assert centres[60].tolist() == [8, 24]  # first cell of the second row
    assert centres[1200].tolist() == [16, 16]  # first cell of the 10x10 map


def test_config__scales_ratios_and_steps_by_hand():
    config = AnchorConfig(
        style="torchvision", scales=[0.1, 0.2, 0.4], aspect_ratios=[[], [2.0]], steps=[10.0, 20.0]
    )
    generator = AnchorGenerator(config, strides=(16, 32))
    assert generator.per_cell == [2, 3]
    anchors = generator([(2, 2), (1, 1)], (100, 100))
    assert anchors[0].tolist() == pytest.approx([0, 0, 10, 10])  # step 10: centre 5, 0.1 of 100 px
    assert anchors[8].tolist() == pytest.approx([0, 0, 20, 20])  # step 20: centre 10, 0.2 of 100 px


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AnchorConfig(scales=[0.2, 1.0]), "anchors.scales has 2 entries; 6 maps need 7"),
        (AnchorConfig(aspect_ratios=[[2.0]]), "anchors.aspect_ratios has 1 entries; 6 maps need 6"),
        (AnchorConfig(steps=[16.0] * 5), "anchors.steps has 5 entries"),
    ],
)
def test_config__lengths_are_checked(config, message):
    with pytest.raises(InputError, match=message):
        AnchorGenerator(config, STRIDES)


@pytest.mark.parametrize(
    ("name", "value"), [("scales", [0.1, 0.0]), ("aspect_ratios", [[2.0], [0.0]]), ("steps", [-16.0])]
)
def test_config__not_above_0__refused(name, value):
    with pytest.raises(InputError, match=rf"anchors.{name} has -?\d+.0; give numbers above 0"):
        AnchorConfig(**{name: value})


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        (STRIDES, [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]),
        # A map at stride 8 has half of what follows; the others keep theirs.
        ((8, *STRIDES), [0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]),
        # (0.95 - 0.2) / 2 = 0.375 apart: the last map takes the largest boxes, however few there are.
        ((8, 16, 32, 64), [0.1, 0.2, 0.575, 0.95, 1.0]),
        ((16, 32), [0.2, 0.95, 1.0]),
        ((4, 8), [0.1, 0.2, 1.0]),
        ((32,), [0.2, 1.0]),
    ],
)
def test_even_scales__by_hand(strides, expected):
    assert even_scales(strides) == expected


def test_paper__first_map_at_stride_8__by_hand():
    strides = (8, *STRIDES)
    generator = AnchorGenerator(AnchorConfig("paper"), strides)
    assert generator.per_cell == [3, 6, 6, 6, 6, 6, 6]
    anchors = generator(grid_sizes((320, 320), strides), (320, 320))
    assert len(anchors) == 40 * 40 * 3 + 20 * 20 * 6 + 834
    # Centre 4 px; scale 0.05 of 320 is 16 px: 4 -+ 8.
    assert anchors[0].tolist() == [-4, -4, 12, 12]
    # The map at stride 16 starts with the square of scale 0.2: 64 px around 8.
    assert anchors[4800].tolist() == [-24, -24, 40, 40]
    # All maps after it are those of a detector without a map at stride 8.
    assert torch.equal(anchors[4800 + 2400 :], anchors_of("paper")[1200:])

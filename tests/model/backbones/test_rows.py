"""Backbones from the rows of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detect.errors import InputError
from detect.inspection.models import paper_row
from detect.model.backbones import MnasNetA1, MobileNetV2, MobileNetV3
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.backbones.rows import read_rows
from detect.model.blocks import InvertedResidual, SqueezeSettings
from detect.model.checkpoint import build_detector

FAMILIES: list[tuple[type[InvertedResidualBackbone], dict[str, Any]]] = [
    (MobileNetV3, {"size": "small"}),
    (MobileNetV3, {"size": "large", "reduced_tail": True}),
    (MobileNetV2, {}),
    (MnasNetA1, {}),
]
ROWS: list[Any] = [
    [3, 24, 16, True, "RE", 2],
    [3, 72, 24, False, "RE", 2],
    [5, 96, 40, True, "HS", 2],
    [7, 120, 40, False, "HS", 1],
    [5, 144, 56, True, "RE6", 2],
]
OWN: dict[str, Any] = {"rows": ROWS, "stem": 8, "last": 200}


def as_written(backbone: InvertedResidualBackbone) -> dict[str, Any]:
    """The rows of a backbone as a configuration would give them."""
    assert backbone.last is not None
    last = backbone.last.out_channels
    return {
        "rows": [list(row) for row in backbone.rows],
        "stem": backbone.stem.out_channels,
        "last": last,
    }


@pytest.mark.parametrize(("family", "arguments"), FAMILIES)
def test_rows_of_the_paper_written_out_are_the_papers_network(
    family: type[InvertedResidualBackbone], arguments: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    paper = family(**arguments)
    torch.manual_seed(0)
    left = {key: value for key, value in arguments.items() if key != "reduced_tail"}
    written = family(**left, **as_written(paper))
    assert written.taps == paper.taps
    ours, theirs = written.state_dict(), paper.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (written.name == paper.name) == ("reduced_tail" not in arguments)


@pytest.mark.parametrize("family", [MobileNetV2, MnasNetA1])
def test_rows_at_another_width_are_the_papers_network(family: type[InvertedResidualBackbone]) -> None:
    with torch.device("meta"):
        paper = family(width=0.35)
        written = family(**as_written(paper))  # as they are, at width 1.0
    assert [tuple(p.shape) for p in written.parameters()] == [tuple(p.shape) for p in paper.parameters()]
    assert written.name == f"{paper.name}_own_rows"


@pytest.mark.parametrize("family", [MobileNetV3, MobileNetV2, MnasNetA1])
def test_taps_of_own_rows_follow_their_strides(family: type[InvertedResidualBackbone]) -> None:
    names = ("out3", "c3", "out4", "c4", "out5", "c5")
    with torch.device("meta"):
        backbone = family(**OWN)
        maps = backbone(torch.empty(1, 3, 64, 64), names)
    assert [tuple(found.shape[1:]) for found in maps] == [
        *((24, 8, 8), (96, 8, 8), (40, 4, 4), (144, 4, 4), (56, 2, 2), (200, 2, 2)),
    ]
    assert [backbone.taps[name].source for name in names] == [
        *("output of block2", "expansion of block3", "output of block4", "expansion of block5"),
        *("output of block5", "last"),
    ]
    block = backbone.blocks[0]
    assert isinstance(block, InvertedResidual)
    assert block.squeeze is not None
    # A quarter of the expansion, 24, in MobileNetV3; of the input, 8, in the others; to multiples of 8.
    assert block.squeeze.reduce.out_channels == 8
    assert backbone.name.endswith("_own_rows")


def test_widths_that_no_8_divides__are_kept() -> None:
    rows = [[*ROWS[0][:2], 20, *ROWS[0][3:]], *ROWS[1:]]
    with torch.device("meta"):
        assert MobileNetV3(rows=rows).rows[0].out == 20
        assert MobileNetV3(rows=rows, width=0.5).rows[0].out == 16  # of 10: nine tenths would be lost


@pytest.mark.parametrize(
    ("number", "row", "message"),
    [
        (2, [3, 72, 24, False, "RE"], r"row 2 is \[3, 72, 24, False, 'RE'\]; write \[kernel, expansion, out"),
        (1, {"kernel": 3}, r"row 1 is {'kernel': 3}; write \[kernel"),
        (3, [4, 96, 40, True, "HS", 2], "row 3 is .*: kernel is 4, expected an odd number"),
        (3, [5, 96.0, 40, True, "HS", 2], "row 3 is .*: expansion is 96.0, expected a number of channels"),
        (3, [5, 96, 0, True, "HS", 2], "row 3 is .*: out is 0, expected a number of channels"),
        (3, [5, 96, 40, 1, "HS", 2], "row 3 is .*: SE is 1, expected true or false"),
        (5, [5, 144, 56, True, "hs", 2], "row 5 is .*: NL is 'hs', expected RE, RE6, HS"),
        (5, [5, 144, 56, True, ["HS"], 2], r"row 5 is .*: NL is \['HS'\], expected RE, RE6, HS"),
        (5, [5, 144, 56, True, "HS", 4], "row 5 is .*: stride is 4, expected 1 or 2"),
        (5, [5, 144, 56, True, "HS", 1], "rows 1, 2, 3 have stride 2; give 4 rows stride 2"),
    ],
)
def test_wrong_row__error_names_it(number: int, row: Any, message: str) -> None:
    rows = [*ROWS[: number - 1], row, *ROWS[number:]]
    with pytest.raises(InputError, match=message):
        read_rows(rows)


def test_own_rows__reduced_tail_and_no_channels_refused() -> None:
    with pytest.raises(InputError, match="rows states the tail itself: leave reduced_tail out"):
        MobileNetV3(rows=ROWS, reduced_tail=True)
    with pytest.raises(InputError, match=r"backbone.last is 0; give a number of channels"):
        MobileNetV3(rows=ROWS, last=0)


def test_detector_of_own_rows_and_extra_levels__settings_build_it_again() -> None:
    settings = {
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": OWN},
        "num_classes": 2,
        "image_size": [64, 64],
        "extra_levels": [[24, 48], [16, 32], [16, 32], [8, 24]],
    }
    detector = build_detector(settings)
    assert [level.out_channels for level in detector.net.extra_levels] == [48, 32, 32, 24]
    assert [head[0].out_channels for head in detector.net.cls_heads] == [144, 200, 48, 32, 32, 24]
    described = detector.to_settings()
    again = build_detector(described)
    assert again.to_settings() == described
    assert [tuple(p.shape) for p in again.parameters()] == [tuple(p.shape) for p in detector.parameters()]
    with pytest.raises(InputError, match=r"level 2 is \[16, 0\]; give channels \[mid, out\], at least 1"):
        build_detector({**settings, "extra_levels": [[24, 48], [16, 0]]})


def test_own_widths_are_no_row_of_table_6() -> None:
    backbone = {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "settings": {"bn_eps": SqueezeSettings().bn_eps}},
    }
    with torch.device("meta"):
        paper = build_detector({"backbone": backbone, "num_classes": 90}).net
        own = build_detector({"backbone": backbone, "num_classes": 90, "extra_levels": [[256, 512]] * 4}).net
    row = paper_row(paper, 90)
    assert row is not None
    assert row.row == "V3-Small"
    assert paper_row(own, 90) is None

import pytest

from detect.errors import InputError
from detect.search.widths import build_shapes, explicit, smaller, widths_of, with_widths
from tests.search.cases import SETTINGS

V3_SMALL = {"backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": {"size": "small"}}}


def test_widths_of_the_paper__every_expansion_and_every_shared_bottleneck():
    assert widths_of(explicit(V3_SMALL)) == {
        **{"block1.out": 16, "block2.expansion": 72, "block3.expansion": 88, "blocks2-3.out": 24},
        **{"block4.expansion": 96, "block5.expansion": 240, "block6.expansion": 240, "blocks4-6.out": 40},
        **{"block7.expansion": 120, "block8.expansion": 144, "blocks7-8.out": 48},
        **{"block9.expansion": 288, "block10.expansion": 576, "block11.expansion": 576, "blocks9-11.out": 96},
        **{"last": 576, "extra.mid": 256, "extra.out": 512},
    }


@pytest.mark.parametrize(
    "backbone",
    [
        {"class_path": "detect.model.backbones.MobileNetV3", "init_args": {"size": "large", "width": 0.5}},
        {"class_path": "detect.model.backbones.MobileNetV2", "init_args": {"width": 0.35}},
        "detect.model.backbones.MnasNetA1",
    ],
)
def test_explicit_settings_build_the_same_network(backbone):
    settings = {"backbone": backbone, "neck": {"class_path": "detect.model.necks.FPN", "init_args": {}}}
    stated = explicit(settings)
    net, same = build_shapes(settings), build_shapes(stated)
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in same.state_dict().items()}
    assert "width" not in stated["backbone"]["init_args"]
    assert widths_of(stated)["neck"] == 128


def test_with_widths__changes_what_is_named_and_nothing_else():
    stated = explicit(SETTINGS)
    changed = with_widths(stated, {"block3.expansion": 40, "blocks2-3.out": 8, "extra.out": 16, "last": 80})
    assert changed["backbone"]["init_args"]["rows"][1:3] == [
        [3, 32, 8, False, "RE", 2],
        [5, 40, 8, False, "HS", 1],
    ]
    assert changed["extra_levels"] == [[16, 16], [8, 8]]
    assert widths_of(changed) == widths_of(stated) | {
        "block3.expansion": 40,
        "blocks2-3.out": 8,
        "extra.out": 16,
        "last": 80,
    }
    assert widths_of(stated) == widths_of(explicit(SETTINGS))
    assert build_shapes(changed).backbone.taps["c5"].channels == 80


def test_a_block_without_an_expansion_stays_one():
    v2 = {"class_path": "detect.model.backbones.MobileNetV3", "init_args": {"size": "large"}}
    rows = explicit({"backbone": v2})["backbone"]["init_args"]["rows"]
    rows[1][1] = rows[0][2]
    stated = explicit({"backbone": {**v2, "init_args": {"rows": rows}}})
    assert "block2.expansion" not in widths_of(stated)
    narrow = with_widths(stated, {"block1.out": 8})
    assert narrow["backbone"]["init_args"]["rows"][1][1] == 8


def test_unknown_names_and_networks_without_rows_are_refused():
    with pytest.raises(InputError, match=r"no width is named block9\.out; there are block1\.out, "):
        with_widths(explicit(SETTINGS), {"block9.out": 8})
    with pytest.raises(InputError, match="MobileNetV1, which is no table of rows"):
        explicit({"backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {}}})


@pytest.mark.parametrize(
    ("start", "found"), [(96, [24, 48, 72]), (16, [8]), (24, [8, 16]), (8, []), (12, [8])]
)
def test_smaller__even_steps_in_multiples_of_8(start, found):
    assert smaller(start, 3, least=0.25) == found

import numpy as np
import pytest

from detect.errors import InputError
from detect.search.space import Space
from detect.search.widths import build_shapes, explicit, widths_of
from tests.search.cases import ROWS, SETTINGS

STATED = explicit(SETTINGS)


def test_the_start_is_in_the_space_and_builds_itself():
    space = Space(STATED)
    network = space.network(space.start)
    assert network == STATED
    assert [len(stage) for stage in space.stages] == [1, 2, 1, 1]
    assert space.choices["stage2.repeats"] == (1, 2, 3)
    assert space.start["stage3.kernel"] == 5
    assert space.start["stage2.kernel"] == "start"  # its blocks have both
    assert space.choices["image_size"] == ("32x32", "64x64")


def test_a_choice_changes_every_block_of_its_stage():
    space = Space(STATED)
    of_stage = {"kernel": 3, "expansion": 4, "squeeze": True, "nonlinearity": "RE", "repeats": 3}
    chosen = space.start | {f"stage2.{name}": value for name, value in of_stage.items()}
    network = space.network(chosen | {"image_size": "32x32"})
    assert network["backbone"]["init_args"]["rows"] == [
        ROWS[0],
        [3, 4 * 16, 24, True, "RE", 2],
        [3, 4 * 24, 24, True, "RE", 1],
        [3, 4 * 24, 24, True, "RE", 1],
        *ROWS[3:],
    ]
    assert network["image_size"] == [32, 32]
    assert STATED["backbone"]["init_args"]["rows"] == ROWS


def test_the_width_scales_every_channel():
    space = Space(STATED)
    network = space.network(space.start | {"width": 0.5})
    assert network["backbone"]["init_args"]["stem"] == 8
    assert [row[2] for row in network["backbone"]["init_args"]["rows"]] == [8, 16, 16, 16, 24]
    assert network["extra_levels"] == [[8, 16], [8, 8]]
    half = widths_of(network)
    assert all(half.get(name, 0) <= channels for name, channels in widths_of(STATED).items())
    build_shapes(network)


def test_every_draw_builds():
    rng = np.random.default_rng(0)
    space = Space(STATED)
    for _ in range(4):
        params = space.draw(lambda name, choices: choices[int(rng.integers(len(choices)))])
        assert build_shapes(space.network(params)).backbone.taps["c5"].stride == 32


@pytest.mark.parametrize("change", [{"width": 3.0}, {"stage1.kernel": 9}])
def test_choices_outside_of_the_space_are_refused(change):
    space = Space(STATED)
    with pytest.raises(InputError, match=f"{next(iter(change))} is .*; the search space has"):
        space.network(space.start | change)

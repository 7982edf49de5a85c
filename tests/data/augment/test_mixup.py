from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from detect.data.augment import MixUp
from detect.data.augment.plan import Plan, single_image
from detect.errors import InputError

IMAGES = SimpleNamespace(sizes=np.array([[120, 160], [50, 200], [300, 100]], dtype=np.int32))


def draw(step: MixUp, seed: int) -> Plan:
    return step.tiles(1, IMAGES, (96, 128), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_tiles__two_whole_images__the_second_with_the_rest_of_the_weight() -> None:
    plans = [draw(MixUp(1.0, (0.3, 0.4)), seed) for seed in range(60)]
    assert {plan[1].row for plan in plans} == {0, 1, 2}
    for below, above in plans:
        assert (below,) == single_image(1, (50, 200), (96, 128))
        size = tuple(IMAGES.sizes[above.row].tolist())
        assert (above._replace(opacity=1.0),) == single_image(above.row, size, (96, 128))
        assert 0.6 <= above.opacity <= 0.7
    assert len(set(plans)) == 60
    assert [draw(MixUp(1.0, (0.3, 0.4)), seed) for seed in reversed(range(60))][::-1] == plans


def test_tiles__probability__otherwise_the_image_alone() -> None:
    alone = single_image(1, (50, 200), (96, 128))
    assert all(draw(MixUp(0.0), seed) == alone for seed in range(20))
    assert sum(draw(MixUp(0.3), seed) != alone for seed in range(400)) == pytest.approx(120, abs=37)


@pytest.mark.parametrize("weight", [(0.0, 0.5), (0.5, 1.0), (0.6, 0.4)])
def test_mixup__what_cannot_be__refused(weight: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=f"weight of a MixUp .*; got {weight[0]}, {weight[1]}"):
        MixUp(weight=weight)
    with pytest.raises(InputError, match="probability of MixUp is 2"):
        MixUp(2)

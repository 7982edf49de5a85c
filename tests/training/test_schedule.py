import math

import pytest

from detect.errors import InputError
from detect.training.schedule import ScheduleConfig, warmup_cosine


def test_cosine__by_hand():
    config = ScheduleConfig()
    assert warmup_cosine(0, total_steps=100, config=config) == 1
    assert warmup_cosine(50, total_steps=100, config=config) == pytest.approx(0.5)
    assert warmup_cosine(25, total_steps=100, config=config) == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 4))
    )
    assert warmup_cosine(100, total_steps=100, config=config) == pytest.approx(0)


def test_min_factor__is_where_the_cosine_ends():
    config = ScheduleConfig(min_factor=0.1)
    assert warmup_cosine(100, total_steps=100, config=config) == pytest.approx(0.1)
    assert warmup_cosine(150, total_steps=100, config=config) == pytest.approx(0.1)


def test_warmup__grows_to_the_cosine():
    config = ScheduleConfig(warmup_steps=10, warmup_factor=0.0)
    factors = [warmup_cosine(step, total_steps=10_000, config=config) for step in range(12)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)], rel=1e-4)
    assert factors[10] == warmup_cosine(10, total_steps=10_000, config=ScheduleConfig())


@pytest.mark.parametrize(
    ("name", "value"), [("warmup_steps", -1), ("warmup_factor", 2.0), ("min_factor", -0.1)]
)
def test_schedule__out_of_range__refused(name: str, value: float):
    with pytest.raises(InputError, match=f"schedule.{name} is {value}"):
        ScheduleConfig(**{name: value})

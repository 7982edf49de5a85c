import math

import pytest

from detect.errors import InputError
from detect.training.build import build_module, model_parser
from detect.training.schedules import FlatCosine, Schedule, StepDecay, WarmupCosine

MODEL = {
    "backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}},
    "num_classes": 2,
    "image_size": [64, 64],
}

FLAT = {"class_path": "detect.training.schedules.FlatCosine", "init_args": {"decay_share": 0.3}}


def test_cosine__by_hand():
    schedule = WarmupCosine()
    assert schedule.factor(0, total_steps=100) == 1
    assert schedule.factor(50, total_steps=100) == pytest.approx(0.5)
    assert schedule.factor(25, total_steps=100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule.factor(100, total_steps=100) == pytest.approx(0)


def test_cosine__ends_at_the_minimum():
    schedule = WarmupCosine(min_factor=0.1)
    assert schedule.factor(100, total_steps=100) == pytest.approx(0.1)
    assert schedule.factor(150, total_steps=100) == pytest.approx(0.1)


def test_warmup__grows_to_the_cosine():
    schedule = WarmupCosine(warmup_steps=10, warmup_factor=0.0)
    factors = [schedule.factor(step, total_steps=10_000) for step in range(12)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)], rel=1e-4)
    assert factors[10] == WarmupCosine().factor(10, total_steps=10_000)


def test_flat_cosine__by_hand():
    schedule = FlatCosine(decay_share=0.4, min_factor=0.2, warmup_steps=2, warmup_factor=0.0)
    steps = (0, 1, 30, 60, 80, 100)  # of 100: warm-up to 2, flat to 60, half of the cosine at 80
    factors = [schedule.factor(step, total_steps=100) for step in steps]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.6, 0.2])


def test_flat_cosine__over_the_whole_run__is_warmup_cosine():
    flat, cosine = FlatCosine(decay_share=1.0, min_factor=0.1), WarmupCosine(min_factor=0.1)
    for step in range(0, 120, 7):
        assert flat.factor(step, total_steps=100) == pytest.approx(cosine.factor(step, total_steps=100))


@pytest.mark.parametrize("schedule", [WarmupCosine, FlatCosine])
@pytest.mark.parametrize(
    ("name", "value"), [("warmup_steps", -1), ("warmup_factor", 2.0), ("min_factor", -0.1)]
)
def test_settings__out_of_range__refused(schedule: type[Schedule], name: str, value: float):
    with pytest.raises(InputError, match=f"schedule.{name} is {value}"):
        schedule(**{name: value})


def test_decay_share__out_of_range__refused():
    with pytest.raises(InputError, match=r"schedule.decay_share is 0; give a share above 0"):
        FlatCosine(decay_share=0)


@pytest.mark.parametrize(
    ("settings", "cls", "arguments"),
    [
        ({}, WarmupCosine, {"warmup_steps": 0}),
        ({"schedule": {"warmup_steps": 50}}, WarmupCosine, {"warmup_steps": 50}),
        (
            {
                "schedule": {
                    "class_path": "detect.training.schedules.FlatCosine",
                    "init_args": {"decay_share": 0.3},
                }
            },
            FlatCosine,
            {"decay_share": 0.3},
        ),
    ],
)
def test_a_configuration_names_it_or_gives_the_default_its_arguments(settings, cls, arguments):
    schedule = build_module({**MODEL, **settings}).schedule
    assert type(schedule) is cls
    assert arguments.items() <= schedule.init_args.items()


@pytest.mark.parametrize("flag", ["--model.schedule.warmup_steps", "--model.schedule.init_args.warmup_steps"])
def test_a_flag_reaches_the_default(flag):
    words = ["--model.backbone", "MobileNetV1", "--model.num_classes", "2", flag, "7"]
    parser = model_parser()
    assert parser.instantiate(parser.parse_args(words)).model.schedule.warmup_steps == 7


def test_step_decay__by_hand():
    schedule = StepDecay(every_steps=10, decay=0.5, warmup_steps=2, warmup_factor=0.0)
    assert [schedule.factor(step, total_steps=100) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert [schedule.factor(step, total_steps=100) for step in (10, 19, 20, 30)] == [0.5, 0.5, 0.25, 0.125]
    assert StepDecay().factor(1_000, total_steps=2_000) == 1
    with pytest.raises(InputError, match="every_steps is -1"):
        StepDecay(every_steps=-1)
    with pytest.raises(InputError, match=r"decay is 1\.5"):
        StepDecay(decay=1.5)

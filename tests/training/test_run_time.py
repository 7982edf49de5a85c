from __future__ import annotations

import pytest

from detect.training.run_time import VALIDATION_SHARE, RunTime, about


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "about 1 seconds"),
        (40.4, "about 40 seconds"),
        (720, "about 12 minutes"),
        (2040, "about 34 minutes"),
        (2.5 * 3600, "about 2.5 hours"),
        (30 * 3600, "about 30 hours"),
    ],
)
def test_about(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_run_time__steps_and_validations() -> None:
    time = RunTime(epochs=30, steps=1080, step_s=1.6, validations=30, val_steps=9)
    assert time.seconds == pytest.approx(1.6 * (1080 + VALIDATION_SHARE * 270))
    assert str(time) == "about 31 minutes: 30 epochs of 36 steps, 1.6 s per step, and 30 validations"
    one = RunTime(epochs=1, steps=4, step_s=0.012, validations=1, val_steps=1)
    assert str(one) == "about 1 seconds: 1 epoch of 4 steps, 0.012 s per step, and 1 validation"

"""The learning rate over a run: pure functions of the optimizer step, named by class path."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from detect.errors import InputError
from detect.model.configurable import Configurable


class Schedule(Configurable, ABC):
    """A factor on the base learning rate for each optimizer step.

    Steps are optimizer steps, so they belong to the total batch size and not to the number of devices.
    """

    @abstractmethod
    def factor(self, step: int, *, total_steps: int) -> float:
        """Factor at optimizer step `step` (from 0) of a run of `total_steps`; a function of these alone."""


def warm_up(step: int, steps: int, at_start: float) -> float:
    """From `at_start` to 1 in `steps`."""
    if step >= steps:
        return 1.0
    return min(at_start + (1 - at_start) * (step + 1) / steps, 1.0)


def cosine(progress: float, at_end: float) -> float:
    """From 1 at progress 0 to `at_end` at 1 and later."""
    return at_end + (1 - at_end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def refuse_out_of_range(warmup_steps: int, **factors: float) -> None:
    """Check settings of a schedule by their names.

    Raises:
        InputError: a number of steps is negative, or a factor not in 0..1.
    """
    if warmup_steps < 0:
        raise InputError(f"schedule.warmup_steps is {warmup_steps}; give 0 or more")
    for name, factor in factors.items():
        if not 0 <= factor <= 1:
            raise InputError(f"schedule.{name} is {factor}; give a factor between 0 and 1")

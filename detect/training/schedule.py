"""The learning rate over a run: warm-up and cosine, a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detect.errors import InputError


@dataclass(frozen=True)
class ScheduleConfig:
    """Steps are optimizer steps, so they belong to the total batch size and not to the number of devices."""

    warmup_steps: int = 0
    """Optimizer steps of linear growth at the start: 50 for a run of a thousand, 1000 or more for COCO."""
    warmup_factor: float = 0.001
    """Factor on the learning rate at step 0."""
    min_factor: float = 0.0
    """Factor on the learning rate at the last step."""

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise InputError(f"schedule.warmup_steps is {self.warmup_steps}; give 0 or more")
        for name, factor in (("warmup_factor", self.warmup_factor), ("min_factor", self.min_factor)):
            if not 0 <= factor <= 1:
                raise InputError(f"schedule.{name} is {factor}; give a factor between 0 and 1")


def warmup_cosine(step: int, *, total_steps: int, config: ScheduleConfig) -> float:
    """Factor on the base learning rate at optimizer step `step` (0-based) of `total_steps`.

    The warm-up is a bound on the cosine, not a part before it: both run from step 0.
    """
    progress = min(step / max(total_steps, 1), 1.0)
    cosine = config.min_factor + (1 - config.min_factor) * 0.5 * (1 + math.cos(math.pi * progress))
    if step < config.warmup_steps:
        ramp = config.warmup_factor + (1 - config.warmup_factor) * (step + 1) / config.warmup_steps
        return min(ramp, 1.0) * cosine
    return cosine

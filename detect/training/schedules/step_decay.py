"""The schedule of TensorFlow's classifiers."""

from __future__ import annotations

from detect.errors import InputError
from detect.training.schedules.base import Schedule, refuse_out_of_range, warm_up


class StepDecay(Schedule):
    """The learning rate times `decay` after every `every_steps` steps, below a linear warm-up.

    Args:
        every_steps: optimizer steps between two changes; 0: none, the rate stays.
        decay: factor of each change.
        warmup_steps: optimizer steps of linear growth at the start.
        warmup_factor: factor on the learning rate at step 0.

    Source: TensorFlow's exponential_decay with staircase; V3 paper section 6.1.
    """

    def __init__(
        self,
        *,
        every_steps: int = 0,
        decay: float = 0.99,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
    ) -> None:
        refuse_out_of_range(warmup_steps, warmup_factor=warmup_factor, decay=decay)
        if every_steps < 0:
            raise InputError(f"schedule.every_steps is {every_steps}; give 0 or more")
        self.every_steps, self.decay = every_steps, decay
        self.warmup_steps, self.warmup_factor = warmup_steps, warmup_factor

    def factor(self, step: int, *, total_steps: int) -> float:
        changes = step // self.every_steps if self.every_steps else 0
        return warm_up(step, self.warmup_steps, self.warmup_factor) * self.decay**changes

"""The default schedule."""

from __future__ import annotations

from detect.training.schedules.base import Schedule, cosine, refuse_out_of_range, warm_up


class WarmupCosine(Schedule):
    """Half a cosine over the whole run, below a linear warm-up.

    The warm-up is a bound on the cosine, not a part before it: both run from step 0.

    Args:
        warmup_steps: optimizer steps of linear growth at the start: 50 for a run of a thousand, 1000 or more
            for COCO.
        warmup_factor: factor on the learning rate at step 0.
        min_factor: factor on the learning rate at the last step.

    Source: SGDR (arXiv 1608.03983) eq. 5 without restarts.
    """

    def __init__(
        self, *, warmup_steps: int = 0, warmup_factor: float = 0.001, min_factor: float = 0.0
    ) -> None:
        refuse_out_of_range(warmup_steps, warmup_factor=warmup_factor, min_factor=min_factor)
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor
        self.min_factor = min_factor

    def factor(self, step: int, *, total_steps: int) -> float:
        fall = cosine(step / max(total_steps, 1), self.min_factor)
        return warm_up(step, self.warmup_steps, self.warmup_factor) * fall

"""The full learning rate for most of a run."""

from __future__ import annotations

from detect.errors import InputError
from detect.training.schedules.base import Schedule, cosine, refuse_out_of_range, warm_up


class FlatCosine(Schedule):
    """The full learning rate for most of the run, then half a cosine; for long runs and fine-tuning.

    Args:
        decay_share: share of the run's steps, at its end, that the cosine takes; 1: as WarmupCosine.
        warmup_steps: optimizer steps of linear growth at the start.
        warmup_factor: factor on the learning rate at step 0.
        min_factor: factor on the learning rate at the last step.

    Source: RTMDet (arXiv 2212.07784) section 4.1, where the share is a half.
    """

    def __init__(
        self,
        *,
        decay_share: float = 0.5,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        min_factor: float = 0.05,
    ) -> None:
        refuse_out_of_range(warmup_steps, warmup_factor=warmup_factor, min_factor=min_factor)
        if not 0 < decay_share <= 1:
            raise InputError(f"schedule.decay_share is {decay_share}; give a share above 0, at most 1")
        self.decay_share = decay_share
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor
        self.min_factor = min_factor

    def factor(self, step: int, *, total_steps: int) -> float:
        decay_steps = self.decay_share * max(total_steps, 1)
        progress = max((step - (total_steps - decay_steps)) / decay_steps, 0.0)
        return warm_up(step, self.warmup_steps, self.warmup_factor) * cosine(progress, self.min_factor)

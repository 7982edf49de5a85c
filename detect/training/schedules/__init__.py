"""The learning rate over a run: classes that a configuration names by `model.schedule`."""

from detect.training.schedules.base import Schedule
from detect.training.schedules.flat_cosine import FlatCosine
from detect.training.schedules.step_decay import StepDecay
from detect.training.schedules.warmup_cosine import WarmupCosine

__all__ = ["FlatCosine", "Schedule", "StepDecay", "WarmupCosine"]

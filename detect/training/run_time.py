"""How long a run takes, from the time of a step."""

from __future__ import annotations

from typing import NamedTuple

VALIDATION_SHARE = 0.35
"""Time of an image in validation by that in training: forward and NMS, without the backward pass."""


class RunTime(NamedTuple):
    """What a run, or the rest of one, consists of, and the seconds that a step was measured to take."""

    epochs: int
    steps: int
    """Optimizer steps of all epochs."""
    step_s: float
    validations: int
    val_steps: float
    """Total batches in the validation split."""

    @property
    def seconds(self) -> float:
        """Of all steps and validations."""
        return self.step_s * (self.steps + VALIDATION_SHARE * self.validations * self.val_steps)

    def __str__(self) -> str:
        epochs = f"{self.epochs:,} epoch{'s' if self.epochs != 1 else ''}"
        validations = f"{self.validations:,} validation{'s' if self.validations != 1 else ''}"
        return (
            f"{about(self.seconds)}: {epochs} of {round(self.steps / self.epochs):,} steps, "
            f"{self.step_s:.2g} s per step, and {validations}"
        )


def about(seconds: float) -> str:
    """A time for a person: "about 12 minutes"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    hours = seconds / 3600
    return f"about {hours:.1f} hours" if hours < 10 else f"about {round(hours)} hours"

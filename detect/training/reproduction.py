"""Whether two results of one run agree: bit for bit, or as two seeds of it would."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

STUDENT_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""97.5 % quantile of Student's t with 1, 2, ... 9 degrees of freedom; the last stands for more."""
ASSUMED_MARGIN = 0.01
"""Of mAP or top-1, where no other seed is given: four standard deviations of mAP in docs/results.md."""


@dataclass(frozen=True)
class Agreement:
    """How far a reproduction lies from its original."""

    identical: bool
    """Every bit of the weights is the same."""
    promised: bool
    """It should be: on a CPU, and nothing that decides differs."""
    agrees: bool
    metrics: dict[str, tuple[float, float]]
    """Original and now, fractions of one."""
    reason: str

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.agrees else 1

    def __str__(self) -> str:
        rows = [
            f"  {name:<5}{old:10.4f}{new:8.4f}{new - old:+8.4f}"
            for name, (old, new) in self.metrics.items()
            if old >= 0 and new >= 0
        ]
        verdict = "REPRODUCED" if self.agrees else "NOT REPRODUCED"
        table = ["         original     now  difference", *rows] if not self.identical else []
        return "\n".join([*table, f"{verdict}: {self.reason}"])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["metrics"] = {name: {"original": old, "now": new} for name, (old, new) in self.metrics.items()}
        return values


def judge(
    original: dict[str, Any],
    now: dict[str, Any],
    *,
    seed_values: Sequence[float],
    decisive: Sequence[str],
    on_cpu: bool,
    shown: Sequence[str],
) -> Agreement:
    """Hold two results together.

    Args:
        original: `manifest.describe_result` of the original run.
        now: of the new one.
        seed_values: the score of the original and of other seeds; the original's alone where there are none.
        decisive: names of what differs and may change a result.
        on_cpu: the new run was trained on one.
        shown: names of the metrics to show; the first is the score.
    """
    score, old, new = shown[0], original["metrics"], now["metrics"]
    metrics = {name: (old[name], new[name]) for name in shown if name in old and name in new}
    promised = on_cpu and not decisive
    if original["weights"] == now["weights"]:
        names = " and ".join(f"{name}.ckpt" for name in now["weights"])
        return Agreement(True, promised, True, metrics, f"the weights of {names} are bit-identical")
    if promised:
        reason = (
            "on a CPU, nothing that was recorded differs and yet the weights do, which should not be: "
            "something outside the manifest has changed, or training has a defect"
        )
        return Agreement(False, True, False, metrics, reason)
    why = f"{', '.join(decisive[:4])} differ" if decisive else "a GPU adds in an order of its own"
    margin, centre, told = seed_margin(seed_values)
    distance = abs(new[score] - centre)
    inside = distance <= margin
    where = "within" if inside else "outside"
    reason = f"the weights are not bit-identical ({why}); {score} lies {distance:.4f} from {told}: {where} it"
    return Agreement(False, False, inside, metrics, reason)


def seed_margin(values: Sequence[float]) -> tuple[float, float, str]:
    """How far from a centre another seed may lie; margin, centre, and both in words.

    With two or more values the 95 % prediction interval of one more, as Student's t gives it.
    """
    count = len(values)
    if count == 1:
        margin = ASSUMED_MARGIN
        told = f"the original's, {margin:.3f} is allowed (give other seeds with --runs to measure it)"
        return margin, values[0], told
    quantile = STUDENT_975[min(count - 2, len(STUDENT_975) - 1)]
    margin = quantile * statistics.stdev(values) * math.sqrt(1 + 1 / count)
    centre = statistics.fmean(values)
    told = f"the mean of {count} seeds, another would be within {margin:.4f} in 95 of 100 cases"
    return margin, centre, told

"""One score threshold for each class, from its curve of precision and recall at IoU 0.5."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from detect.data.annotations import Annotations
from detect.errors import InputError
from detect.evaluation.backends import DetectionRows, ground_truth_rows, select
from detect.evaluation.confusion import ScoreCurve, score_curve
from detect.evaluation.error_types import classify_detections

Aim = Literal["best-f1", "precision", "recall"]


class Goal(NamedTuple):
    """What a threshold is to reach."""

    aim: Aim = "best-f1"
    """The best F1; the highest recall at a precision; or the highest precision at a recall."""
    value: float = 0.0
    """The precision or recall that is to be reached, a fraction of one."""

    def check(self) -> None:
        """Stop at a number that is no precision or recall.

        Raises:
            InputError: names the option.
        """
        if self.aim != "best-f1" and not 0 < self.value <= 1:
            raise InputError(f"--{self.aim} is {self.value}; give a fraction above 0, at most 1")


class ClassThreshold(NamedTuple):
    """What was found for one class."""

    name: str
    threshold: float
    """Detections score more."""
    boxes: int
    """In the split, without ignored ones."""
    precision: float | None
    """Of the detections above the threshold; None where the class keeps the default."""
    recall: float | None
    notice: str = ""
    """Why the class keeps the default; empty where it does not."""


def find_class_thresholds(
    annotations: Annotations, detections: DetectionRows, goal: Goal, *, default: float
) -> list[ClassThreshold]:
    """The threshold of each class that reaches a goal on a split.

    Args:
        annotations: of the split.
        detections: of its images, down to a low score, in any order.
        goal: what to reach.
        default: threshold of a class that has no objects here or cannot reach the goal.
    """
    truth = ground_truth_rows(annotations)
    outcomes = classify_detections(annotations, truth, detections)
    found = []
    for label, name in enumerate(annotations.classes.names, 1):
        of_class = outcomes.detections.labels == label
        its_truth = select(truth, truth.labels == label)
        its_outcomes = outcomes._replace(
            detections=select(outcomes.detections, of_class), kinds=outcomes.kinds[of_class]
        )
        boxes = int((~its_truth.ignore).sum())
        found.append(_threshold_of(name, boxes, score_curve(its_truth, its_outcomes), goal, default=default))
    return found


def _threshold_of(name: str, boxes: int, curve: ScoreCurve, goal: Goal, *, default: float) -> ClassThreshold:
    """The threshold of one class, or the default with the reason."""
    if not boxes:
        return ClassThreshold(name, default, 0, None, None, "no objects in this split")
    if not curve.recall.any():
        return ClassThreshold(name, default, boxes, None, None, "no detection matches an object at IoU 0.5")
    place = _place(curve, goal)
    if place is None:
        best = (curve.precision if goal.aim == "precision" else curve.recall).max()
        notice = f"{goal.aim} {goal.value:g} is not reached, at best {best:.3f}"
        return ClassThreshold(name, default, boxes, None, None, notice)
    return ClassThreshold(
        name, below(curve, place), boxes, float(curve.precision[place]), float(curve.recall[place])
    )


def _place(curve: ScoreCurve, goal: Goal) -> int | None:
    """Where on a curve, of falling scores, the goal is reached; None: nowhere."""
    if goal.aim == "best-f1":
        return int(curve.f1.argmax())
    values = curve.precision if goal.aim == "precision" else curve.recall
    reached = np.flatnonzero(values >= goal.value)
    if not reached.size:
        return None
    # Recall grows with every lower score; precision falls, with steps up between.
    return int(reached[-1 if goal.aim == "precision" else 0])


def below(curve: ScoreCurve, place: int) -> float:
    """A threshold that the score at `place` exceeds and the next lower one does not, in float32.

    Halfway between the two; half of the lowest score where there is no lower one.
    """
    score = curve.thresholds[place]
    lower = curve.thresholds[place + 1] if place + 1 < len(curve.thresholds) else 0.0
    between = float(np.float32((score + lower) / 2))
    return between if lower <= between < score else float(lower)

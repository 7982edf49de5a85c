"""A run's detections judged twice: all of them, and those above the score at which it is best used."""

from __future__ import annotations

from typing import NamedTuple

from detect.evaluation.backends import PrecisionRecall, image_ranks, precision_recall, select
from detect.evaluation.confusion import ScoreCurve, score_curve
from detect.evaluation.error_types import ErrorCosts, Outcomes, error_costs, judge
from detect.evaluation.evaluator import Metrics, compute_metrics
from detect.report.scored_files import Scored


class Judged(NamedTuple):
    """Everything that the page says about detections."""

    scored: Scored
    metrics: Metrics
    curves: PrecisionRecall
    costs: ErrorCosts
    scores: ScoreCurve
    threshold: float
    """Where F1 is best."""
    above: Outcomes
    """Of the detections at or above `threshold`."""


def judge_scored(scored: Scored) -> Judged:
    """Compute it all from the two files of a run."""
    annotations, ground_truth, detections = scored
    outcomes = judge(annotations, ground_truth, detections)
    scores = score_curve(ground_truth, outcomes)
    threshold = scores.best_threshold
    return Judged(
        scored=scored,
        metrics=compute_metrics(annotations, detections),
        curves=precision_recall(
            ground_truth,
            detections,
            ranks=image_ranks(annotations),
            num_classes=annotations.classes.num_classes,
            backend="faster",
        ),
        costs=error_costs(ground_truth, outcomes),
        scores=scores,
        threshold=threshold,
        above=judge(annotations, ground_truth, select(detections, detections.scores >= threshold)),
    )

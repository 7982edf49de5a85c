"""A run's detections analysed: all of them, and those above the score threshold with the best F1."""

from __future__ import annotations

from typing import NamedTuple

from detect.evaluation.backends import PrecisionRecall, image_ranks, precision_recall, select
from detect.evaluation.confusion import ScoreCurve, score_curve
from detect.evaluation.error_types import ErrorCosts, Outcomes, classify_detections, error_costs
from detect.evaluation.evaluator import Metrics, compute_metrics
from detect.report.scored_files import Scored


class Analysis(NamedTuple):
    """Everything that the page says about detections."""

    scored: Scored
    metrics: Metrics
    curves: PrecisionRecall
    costs: ErrorCosts
    scores: ScoreCurve
    threshold: float
    """The score with the best F1."""
    above: Outcomes
    """Outcomes of the detections at or above `threshold`."""


def analyse(scored: Scored) -> Analysis:
    """Compute it all from the two files of a run."""
    annotations, ground_truth, detections = scored
    outcomes = classify_detections(annotations, ground_truth, detections)
    scores = score_curve(ground_truth, outcomes)
    threshold = scores.best_threshold
    above = select(detections, detections.scores >= threshold)
    return Analysis(
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
        above=classify_detections(annotations, ground_truth, above),
    )

"""At which score a detector is best used, and which class it takes for which there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.evaluation.backends import GroundTruthRows
from detect.evaluation.error_types import Kind, Outcomes
from detect.evaluation.matching import UNMATCHED


class ScoreCurve(NamedTuple):
    """Precision and recall of all classes together at every score that could be the threshold."""

    thresholds: NDArray[np.float64]
    """(n,) falling."""
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)

    @property
    def best_threshold(self) -> float:
        """Where F1 is highest; 0 where nothing was found."""
        return float(self.thresholds[self.f1.argmax()]) if self.f1.any() else 0.0


def score_curve(ground_truth: GroundTruthRows, outcomes: Outcomes) -> ScoreCurve:
    """From the outcomes of all detections at IoU 0.5; ignored ones do not count."""
    counts = outcomes.kinds != Kind.IGNORED
    scores = outcomes.detections.scores[counts]
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(outcomes.kinds[counts][order] == Kind.FOUND)
    boxes = max(int((~ground_truth.ignore).sum()), 1)
    last_of_score = np.append(np.diff(scores[order]) != 0, True)[: len(order)]
    return ScoreCurve(
        scores[order][last_of_score],
        (found / np.arange(1, len(found) + 1))[last_of_score],
        (found / boxes)[last_of_score],
    )


def confusion_matrix(
    ground_truth: GroundTruthRows, outcomes: Outcomes, num_classes: int
) -> NDArray[np.int64]:
    """Which class is taken for which, for detections above a threshold.

    Args:
        ground_truth: boxes.
        outcomes: of the detections that are above the threshold alone.
        num_classes: K.

    Returns:
        (K + 1, K + 1): row annotated, column detected, by label; row 0 is false positives on no box, column 0
        boxes that nothing found. A box that none of its class found goes to the best detection of another
        class that covers it.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    labels = outcomes.detections.labels
    found = outcomes.kinds == Kind.FOUND
    np.add.at(matrix, (ground_truth.labels[outcomes.box_rows[found]], labels[found]), 1)

    confused = np.flatnonzero(outcomes.confused_rows != UNMATCHED)
    best_first = confused[np.argsort(-outcomes.detections.scores[confused], kind="stable")]
    boxes, first = np.unique(outcomes.confused_rows[best_first], return_index=True)
    taken = best_first[first]
    np.add.at(matrix, (ground_truth.labels[boxes], labels[taken]), 1)

    unfound = ~outcomes.found_boxes & ~ground_truth.ignore
    unfound[boxes] = False
    matrix[:, 0] = np.bincount(ground_truth.labels[unfound], minlength=num_classes + 1)
    alone = ~found & (outcomes.kinds != Kind.IGNORED)
    alone[taken] = False
    matrix[0] = np.bincount(labels[alone], minlength=num_classes + 1)
    return matrix

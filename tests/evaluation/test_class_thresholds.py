from __future__ import annotations

import numpy as np
import pytest

from detect.errors import InputError
from detect.evaluation.class_thresholds import Goal, find_class_thresholds
from detect.evaluation.confusion import ScoreCurve
from tests.coco_cases import annotations_of, coco_dict, result
from tests.evaluation.test_matching import rows_of

PLACES = [[60.0 * i, 10.0, 40.0, 40.0] for i in range(4)]
NOWHERE = [10.0, 200.0, 40.0, 40.0]


def found(goal: Goal):
    """Class 1 has four boxes, class 2 one, class 3 none; class 4 one that nothing finds."""
    boxes = [*((1, 1, place) for place in PLACES), (2, 2, PLACES[0]), (2, 4, PLACES[2])]
    annotations = annotations_of(coco_dict(boxes, image_ids=[1, 2], category_ids=(1, 2, 3, 4)))
    results = [
        result(1, 1, PLACES[0], 0.875),  # precision 1, recall 1/4
        result(1, 1, PLACES[1], 0.75),  # 1, 1/2
        result(1, 1, NOWHERE, 0.625),  # 2/3, 1/2
        result(1, 1, PLACES[2], 0.5),  # 3/4, 3/4: F1 0.75, the best
        result(2, 1, NOWHERE, 0.25),  # 3/5, 3/4
        result(2, 1, NOWHERE, 0.125),
        result(2, 2, NOWHERE, 0.5),
        result(2, 2, PLACES[0], 0.25),  # 1/2, 1
        result(2, 3, PLACES[1], 0.5),
        result(2, 4, NOWHERE, 0.5),
    ]
    return find_class_thresholds(annotations, rows_of(annotations, results), goal, default=0.3)


def test_best_f1__halfway_to_the_next_lower_score() -> None:
    first, second, third, fourth = found(Goal())
    assert (first.threshold, first.precision, first.recall, first.boxes) == (0.375, 0.75, 0.75, 4)
    assert (second.threshold, second.precision, second.recall) == (0.125, 0.5, 1.0)  # half of the lowest
    assert (third.threshold, third.notice) == (0.3, "no objects in this split")
    assert (fourth.threshold, fourth.notice) == (0.3, "no detection matches an object at IoU 0.5")
    assert not first.notice + second.notice


def test_precision__the_lowest_threshold_that_has_it() -> None:
    first, second, *_ = found(Goal("precision", 0.7))
    assert (first.threshold, first.recall) == (0.375, 0.75)  # above it again after 2/3
    assert (second.threshold, second.notice) == (0.3, "precision 0.7 is not reached, at best 0.500")


def test_recall__the_highest_threshold_that_has_it() -> None:
    first, second, *_ = found(Goal("recall", 0.5))
    assert (first.threshold, first.precision) == (0.6875, 1.0)
    assert second.threshold == 0.125
    first, *_ = found(Goal("recall", 0.9))
    assert (first.threshold, first.notice) == (0.3, "recall 0.9 is not reached, at best 0.750")


@pytest.mark.parametrize("goal", [Goal("precision", 0.0), Goal("recall", 95)])
def test_a_goal_out_of_range_is_refused(goal: Goal) -> None:
    with pytest.raises(InputError, match=f"--{goal.aim} is {goal.value}; give a fraction"):
        goal.check()


def test_below__scores_next_to_each_other_in_float32() -> None:
    from detect.evaluation.class_thresholds import below

    high = np.float32(0.7)
    low = np.nextafter(high, np.float32(0))
    curve = ScoreCurve(np.array([high, low], np.float64), np.ones(2), np.ones(2))
    threshold = np.float32(below(curve, 0))
    assert low <= threshold < high

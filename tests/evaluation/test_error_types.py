from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.error_types import (
    EXPLAINED,
    ErrorCosts,
    Kind,
    Outcomes,
    classify_detections,
    error_costs,
)
from detect.evaluation.evaluator import compute_metrics
from tests.coco_cases import annotations_of, coco_dict, random_case, result
from tests.evaluation.test_matching import rows_of

BOX = [100.0, 100.0, 40.0, 40.0]

TIDECV = {
    0: (34.926386, [5.005504, 2.090891, 0.007609, 4.172315, 1.140427, 12.638207], [11.278235, 15.318198]),
    1: (32.855901, [3.445071, 1.167372, 0.035859, 7.371027, 1.156295, 11.393275], [13.348719, 14.290567]),
    2: (31.467311, [3.700610, 1.114869, 0.0, 6.145868, 2.232331, 12.338123], [13.747210, 14.973696]),
}
"""What tidecv 1.0.1 gives for `case(seed)`, in percent: AP50, the six main errors, the two special ones."""
TIDECV_COUNTS = {
    0: [33, 8, 3, 93, 14, 126],
    1: [47, 7, 2, 102, 13, 149],
    2: [30, 10, 2, 95, 12, 143],
}
# tidecv reads precision at i / 100, COCO at linspace(0, 1, 101): an ulp apart, where recall meets a point
# exactly, is one detection apart.
PERCENT = 0.005


def case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every class annotated, no crowd, no equal scores: what tidecv and COCO's tools see alike."""
    dataset, results = random_case(seed, images=50, classes=4)
    rng = np.random.default_rng(seed)
    for entry in dataset["annotations"]:
        entry["iscrowd"] = 0
    unannotated = {c["id"] for c in dataset["categories"]} - {
        a["category_id"] for a in dataset["annotations"]
    }
    dataset["categories"] = [c for c in dataset["categories"] if c["id"] not in unannotated]
    ids = [c["id"] for c in dataset["categories"]]
    crowded = dataset["annotations"][0]["image_id"]  # more detections of a class than COCO counts
    results = [r for r in results if r["category_id"] in ids and r["image_id"] != crowded]
    for number, entry in enumerate(rng.permutation(len(results))):
        results[entry]["score"] = (number + 1) / 1024
        if rng.random() < 0.2:
            results[entry]["category_id"] = int(rng.choice(ids))
    return dataset, results


def costs_of(dataset: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Outcomes, ErrorCosts]:
    annotations = annotations_of(dataset)
    truth = ground_truth_rows(annotations)
    outcomes = classify_detections(annotations, truth, rows_of(annotations, results))
    return outcomes, error_costs(truth, outcomes)


@pytest.mark.parametrize("seed", TIDECV)
def test_error_costs__equal_tidecv(seed: int) -> None:
    _, costs = costs_of(*case(seed))
    ap50, main, special = TIDECV[seed]
    assert 100 * costs.ap50 == pytest.approx(ap50, abs=PERCENT)
    assert [100 * costs.lost[kind] for kind in EXPLAINED] == pytest.approx(main, abs=PERCENT)
    assert [costs.counts[kind] for kind in EXPLAINED] == TIDECV_COUNTS[seed]
    both = (costs.lost_to_false_positives, costs.lost_to_misses)
    assert [100 * lost for lost in both] == pytest.approx(special, abs=PERCENT)


def test_error_costs__with_crowds__ap50_is_cocos() -> None:
    dataset, results = random_case(4, images=50, classes=4)
    annotations = annotations_of(dataset)
    metrics = compute_metrics(annotations, rows_of(annotations, results))
    assert costs_of(dataset, results)[1].ap50 == pytest.approx(metrics.AP50, abs=1e-12)


@pytest.mark.parametrize(
    ("category_id", "box_xywh", "kind"),
    [
        (1, BOX, Kind.FOUND),
        (1, [110.0, 100.0, 40.0, 40.0], Kind.FOUND),  # IoU 30 / 50
        (2, BOX, Kind.CLASSIFICATION),
        (1, [120.0, 100.0, 40.0, 40.0], Kind.LOCALISATION),  # IoU 20 / 60
        (2, [120.0, 100.0, 40.0, 40.0], Kind.BOTH),
        (1, [139.0, 100.0, 40.0, 40.0], Kind.BACKGROUND),  # IoU 1 / 79
        (2, [300.0, 100.0, 40.0, 40.0], Kind.BACKGROUND),
        (1, [200.0, 200.0, 40.0, 40.0], Kind.IGNORED),  # a crowd
    ],
)
def test_classify_detections__one_detection(category_id: int, box_xywh: list[float], kind: Kind) -> None:
    crowd_box = [180.0, 180.0, 90.0, 90.0]
    dataset = coco_dict([(1, 1, BOX), (1, 1, crowd_box)], image_ids=[1], category_ids=(1, 2), crowd=(1,))
    outcomes, _ = costs_of(dataset, [result(1, category_id, box_xywh, 0.5)])
    assert outcomes.kinds.tolist() == [kind]
    assert outcomes.found_boxes.tolist() == [kind == Kind.FOUND, False]
    assert outcomes.confused_rows.tolist() == [0 if kind == Kind.CLASSIFICATION else -1]


def test_classify_detections__second_detection_of_a_box__duplicate() -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    outcomes, costs = costs_of(dataset, [result(1, 1, BOX, 0.5), result(1, 1, BOX, 0.75)])
    assert outcomes.detections.scores.tolist() == [0.75, 0.5]
    assert outcomes.kinds.tolist() == [Kind.FOUND, Kind.DUPLICATE]
    assert outcomes.iou.tolist() == [1, 1]
    assert (costs.ap50, costs.counts[Kind.DUPLICATE], costs.counts[Kind.MISSED]) == (1, 1, 0)


def test_error_costs__wrong_class_explains_the_box__not_missed() -> None:
    dataset = coco_dict([(1, 1, BOX), (2, 2, BOX)], image_ids=[1, 2], category_ids=(1, 2))
    results = [result(1, 2, BOX, 0.5), result(2, 2, BOX, 0.75)]
    _, costs = costs_of(dataset, results)
    assert costs.counts[Kind.MISSED] == 0
    assert costs.ap50 == 0.5  # class 2: found before its false positive
    assert costs.lost[Kind.CLASSIFICATION] == 0.5
    assert costs.lost_to_misses == 0  # a class without boxes is worth nothing


def test_error_costs__image_without_boxes__background() -> None:
    outcomes, costs = costs_of(coco_dict([(2, 1, BOX)], image_ids=[1, 2]), [result(1, 1, BOX, 0.5)])
    assert outcomes.kinds.tolist() == [Kind.BACKGROUND]
    assert costs.counts[Kind.BACKGROUND] == costs.counts[Kind.MISSED] == 1


def test_error_costs__nothing_detected_or_annotated__zeros() -> None:
    assert costs_of(coco_dict([(1, 1, BOX)], image_ids=[1]), [])[1].ap50 == 0
    _, costs = costs_of(coco_dict([], image_ids=[1]), [result(1, 1, BOX, 0.5)])
    assert (costs.ap50, costs.counts[Kind.BACKGROUND]) == (0, 1)

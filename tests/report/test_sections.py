"""What the sections of a run's page show."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.report.analysis import analyse
from detect.report.scored_files import read_scored, write_scored
from detect.report.sections import (
    SHOWN_CLASSES,
    class_rows,
    errors,
    over_epochs,
    precision_and_recall,
    shown_scores,
)
from tests.coco_cases import annotations_of, random_case
from tests.run_cases import noisy_evaluator


def metrics_of(boxes: dict[str, int]) -> dict[str, Any]:
    """Metrics whose classes have AP 0.01, 0.02, 0.03, ..., -1 without boxes."""
    per_class = {
        name: {"AP": i / 100 if count else -1.0, "AP50": 0.0, "images": count, "boxes": count}
        for i, (name, count) in enumerate(boxes.items(), 1)
    }
    return {"per_class": per_class}


def test_class_rows__many_classes__the_worst_are_shown_and_the_others_folded() -> None:
    rows = class_rows(metrics_of({f"class {i}": 3 for i in range(80)}), None, {})
    assert [row[0] for row in rows.shown] == [f"class {i}" for i in range(SHOWN_CLASSES)]
    assert [row[0] for row in rows.better] == [f"class {i}" for i in range(SHOWN_CLASSES, 80)]
    assert rows.empty == []


def test_class_rows__classes_without_boxes__apart() -> None:
    rows = class_rows(metrics_of({"cat": 2, "unicorn": 0}), None, {})
    assert [row[0] for row in rows.shown] == ["cat"]
    assert [row[0] for row in rows.empty] == ["unicorn"]
    assert (rows.shown[0][1], rows.empty[0][1]) == ("0.010", "-")
    assert rows.better == []


def test_over_epochs__validated_every_second_one__one_line_without_gaps() -> None:
    epochs = np.arange(1.0, 6)
    mean_precision = over_epochs("mAP", epochs, np.array([np.nan, 0.2, np.nan, 0.4, np.nan]))
    assert (mean_precision.x.tolist(), mean_precision.y.tolist()) == ([2, 4], [0.2, 0.4])
    assert not len(over_epochs("APs", epochs, np.array([np.nan, -1, np.nan, -1, np.nan])).x)


@pytest.mark.parametrize(("noise_px", "advised"), [(1, True), (10_000, False)])
def test_precision_and_recall__a_threshold_is_advised_where_a_detection_is_right(
    tmp_path: Path, noise_px: float, advised: bool
) -> None:
    dataset, _ = random_case(1, images=6, classes=2)
    write_scored(tmp_path, noisy_evaluator(annotations_of(dataset), noise_px=noise_px))
    scored = read_scored(tmp_path)
    assert scored is not None
    analysis = analyse(scored)
    over_recall, over_score = precision_and_recall(analysis)
    caption = over_score.caption
    assert ("--score_threshold" in caption) == advised
    assert ("no threshold to advise" in caption) != advised
    assert bool(re.search(r"F1 is best, [01]\.\d{3}, ", caption)) == advised
    for chart in (over_recall, over_score):  # fractions of one: no tick above 1
        assert not re.search(r">\d\d+<", chart.svg)
    assert all(re.fullmatch(r"-?[01]\.\d{3}", str(row[-1])) for row in errors(analysis)["rows"])


@pytest.mark.parametrize("apart", [True, False])
def test_precision_and_recall__thresholds_per_class_are_advised_where_classes_differ(
    tmp_path: Path, apart: bool
) -> None:
    dataset, _ = random_case(1, images=60, classes=4)
    evaluator = noisy_evaluator(annotations_of(dataset), noise_px=1)
    write_scored(tmp_path, evaluator)
    scored = read_scored(tmp_path)
    assert scored is not None
    rows = scored.detections
    most = np.bincount(rows.labels).argmax()
    scores = np.where((rows.labels == most) & apart, 0.2, 0.8).astype(rows.scores.dtype)
    scored = scored._replace(detections=rows._replace(scores=scores))
    caption = precision_and_recall(analyse(scored))[1].caption
    assert ("detect thresholds --ckpt_path" in caption) == apart
    lowest = scored.annotations.classes.names[most - 1]
    assert (f"The classes differ, from 0.10 ({lowest}) to 0.40 (" in caption) == apart


def test_thresholds_of_the_classes__choose_what_is_shown(tmp_path: Path) -> None:
    dataset, _ = random_case(1, images=6, classes=2)
    write_scored(tmp_path, noisy_evaluator(annotations_of(dataset), noise_px=1))
    scored = read_scored(tmp_path)
    assert scored is not None
    names = scored.annotations.classes.names
    plain, chosen = analyse(scored), analyse(scored, (0.5, 0.9))
    assert shown_scores(plain) == f"score at least {plain.threshold:.2f}"
    assert shown_scores(chosen).endswith(f"their class ({names[0]} 0.50, {names[1]} 0.90)")
    rows, shown = scored.detections, chosen.above.detections
    passing = np.where(rows.labels == 1, rows.scores > 0.5, rows.scores > 0.9)
    assert 0 < len(shown.scores) < len(rows.scores)
    assert np.array_equal(np.sort(shown.scores), np.sort(rows.scores[passing]))
    assert "use the detector's thresholds of the classes" in precision_and_recall(chosen)[1].caption

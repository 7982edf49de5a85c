from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detect.evaluation.evaluator import compute_metrics
from detect.report.scored_files import read_scored, write_scored
from tests.coco_cases import annotations_of, random_case
from tests.evaluation.test_results_file import evaluate_file
from tests.run_cases import noisy_evaluator


@pytest.mark.parametrize("string_ids", [False, True])
def test_write_and_read_scored__same_metrics_and_names(tmp_path: Path, string_ids: bool) -> None:
    dataset, _ = random_case(1, images=20, classes=4, string_ids=string_ids)
    annotations = replace(annotations_of(dataset), root=tmp_path / "pictures")
    evaluator = noisy_evaluator(annotations, noise_px=3)
    write_scored(tmp_path, evaluator)
    scored = read_scored(tmp_path)
    assert scored is not None
    assert scored.annotations.root == tmp_path / "pictures"
    assert scored.annotations.file_names.tolist() == annotations.file_names.tolist()
    again = compute_metrics(scored.annotations, scored.detections)
    expected = evaluator.compute()
    assert again.mAP == pytest.approx(expected.mAP, abs=1e-9)
    assert set(again.per_class) == set(expected.per_class)
    by_command = evaluate_file(tmp_path / "ground_truth.json", tmp_path / "detections.json")
    assert by_command == again


def test_read_scored__one_of_two_files__none(tmp_path: Path) -> None:
    dataset, _ = random_case(1, images=4, classes=2)
    write_scored(tmp_path, noisy_evaluator(annotations_of(dataset), noise_px=1))
    (tmp_path / "ground_truth.json").unlink()
    assert read_scored(tmp_path) is None

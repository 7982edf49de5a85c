from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detect.errors import InputError
from detect.evaluation.backends import Backend
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.types import Detections
from tests.coco_cases import (
    NUMBERS,
    annotations_of,
    batch_of,
    coco_dict,
    pycocotools_numbers,
    random_case,
    result,
)

both_backends = pytest.mark.parametrize("backend", get_args(Backend))
BOX = [10.0, 20.0, 50.0, 40.0]
FAR_BOX = [300.0, 300.0, 50.0, 40.0]


def evaluate(
    dataset: dict[str, Any], results: list[dict[str, Any]], backend: Backend = "faster", batch: int = 7
) -> Metrics:
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations, backend=backend)
    for start in range(0, len(annotations), batch):
        rows = list(range(start, min(start + batch, len(annotations))))
        evaluator.update(*batch_of(annotations, results, rows))
    evaluator.gather()
    return evaluator.compute()


def assert_same(metrics: Metrics, expected: tuple[dict[str, float], dict[str, tuple[float, float]]]) -> None:
    numbers, per_class = expected
    assert {name: getattr(metrics, name) for name in NUMBERS} == pytest.approx(numbers, abs=1e-6)
    assert metrics.per_class.keys() == per_class.keys()
    for name, (ap, ap50) in per_class.items():
        assert (metrics.per_class[name].AP, metrics.per_class[name].AP50) == pytest.approx(
            (ap, ap50), abs=1e-6
        )


# ---- against pycocotools itself


@both_backends
@pytest.mark.parametrize(("seed", "string_ids"), [(0, False), (1, False), (2, True)])
def test_random_data__equals_pycocotools(backend: Backend, seed: int, string_ids: bool) -> None:
    dataset, results = random_case(seed, string_ids=string_ids)
    expected = pycocotools_numbers(dataset, results)
    assert 0.05 < expected[0]["mAP"] < 0.95
    assert_same(evaluate(dataset, results, backend), expected)


@both_backends
def test_annotation_and_image_id_0__counted(backend: Backend) -> None:
    dataset, results = random_case(3, images=30)
    expected = pycocotools_numbers(dataset, results)
    first = min(image["id"] for image in dataset["images"])
    for entry in [*dataset["annotations"], *results]:
        entry["image_id"] -= first
    for entry in dataset["images"]:
        entry["id"] -= first
    for entry in dataset["annotations"]:
        entry["id"] -= 1
    assert_same(evaluate(dataset, results, backend), expected)


@both_backends
def test_equal_scores__order_of_results_decides(backend: Backend) -> None:
    """The same two detections, once the good one first and once the bad one."""
    dataset = coco_dict([(4, 1, BOX), (2, 1, BOX)], image_ids=[4, 2])
    good, bad = result(4, 1, BOX, 0.5), result(4, 1, FAR_BOX, 0.5)
    elsewhere = result(2, 1, FAR_BOX, 0.5)
    values = []
    for results in ([good, bad, elsewhere], [bad, good, elsewhere]):
        metrics = evaluate(dataset, results, backend)
        assert_same(metrics, pycocotools_numbers(dataset, results))
        values.append(metrics.mAP)
    assert values[0] > values[1] > 0


# ---- by law and by hand


@both_backends
def test_perfect_boxes__1(backend: Backend) -> None:
    dataset, _ = random_case(4, images=40)
    real = [entry for entry in dataset["annotations"] if not entry["iscrowd"]]
    results = [result(e["image_id"], e["category_id"], e["bbox"], 1.0) for e in real]
    metrics = evaluate(dataset, results, backend)
    assert (metrics.mAP, metrics.AP50, metrics.APs, metrics.AR100) == pytest.approx((1, 1, 1, 1), abs=1e-12)


@both_backends
def test_disjoint_boxes__0(backend: Backend) -> None:
    dataset = coco_dict([(1, 1, BOX), (2, 1, BOX)], image_ids=[1, 2])
    metrics = evaluate(dataset, [result(1, 1, FAR_BOX, 0.9), result(2, 1, FAR_BOX, 0.8)], backend)
    assert (metrics.mAP, metrics.AP50, metrics.AR100) == (0, 0, 0)


@both_backends
def test_numbers_by_hand(backend: Backend) -> None:
    """Three boxes of 50 x 40 = 2000 px^2 (medium), found at ranks 1 and 3.

    Box 1: the box itself, IoU 1. Rank 2: a false alarm. Box 2: 50 x 31 of 50 x 40, IoU 0.775, so found at the
    6 thresholds 0.5 ... 0.75 of 10. Box 3: never found.
    Precision is 1 up to recall 1/3 (34 of 101 recalls: 0 ... 0.33), then 2/3 up to 2/3 (33: 0.34 ... 0.66).
    """
    dataset = coco_dict([(1, 5, BOX), (2, 5, BOX), (3, 5, BOX)], image_ids=[1, 2, 3], category_ids=(5, 6))
    results = [
        result(1, 5, BOX, 0.9),
        result(3, 5, FAR_BOX, 0.8),
        result(2, 5, [10.0, 20.0, 50.0, 31.0], 0.7),
    ]
    metrics = evaluate(dataset, results, backend)
    both, one = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert metrics.AP50 == metrics.AP75 == pytest.approx(both, abs=1e-9)
    assert metrics.mAP == metrics.APm == pytest.approx((6 * both + 4 * one) / 10, abs=1e-9)
    assert metrics.AR100 == metrics.AR1 == pytest.approx((6 * 2 / 3 + 4 * 1 / 3) / 10, abs=1e-9)
    assert (metrics.APs, metrics.APl, metrics.ARs, metrics.ARl) == (-1, -1, -1, -1)
    assert metrics.per_class["class 5"].AP == metrics.mAP
    assert (metrics.per_class["class 5"].images, metrics.per_class["class 5"].boxes) == (3, 3)
    assert (metrics.per_class["class 6"].AP, metrics.per_class["class 6"].boxes) == (-1, 0)


@both_backends
def test_crowd__neither_found_nor_false_alarm(backend: Backend) -> None:
    dataset = coco_dict([(1, 1, BOX), (1, 1, [200.0, 0.0, 300.0, 300.0])], image_ids=[1], crowd=(1,))
    inside_crowd = [result(1, 1, [210.0 + 20 * i, 50.0, 20.0, 20.0], 0.9) for i in range(5)]
    metrics = evaluate(dataset, [*inside_crowd, result(1, 1, BOX, 0.3)], backend)
    assert metrics.mAP == pytest.approx(1)
    assert metrics.per_class["class 1"].boxes == 1


@both_backends
def test_annotated_area__decides_size(backend: Backend) -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    dataset["annotations"][0]["area"] = 100.0
    metrics = evaluate(dataset, [result(1, 1, BOX, 0.9)], backend)
    assert (metrics.APs, metrics.APm) == pytest.approx((1, -1))


@both_backends
def test_no_detections__0(backend: Backend) -> None:
    metrics = evaluate(coco_dict([(1, 1, BOX)], image_ids=[1, 2]), [], backend)
    assert (metrics.mAP, metrics.AP50, metrics.APm, metrics.AR1, metrics.ARm) == (0, 0, 0, 0, 0)
    assert (metrics.APs, metrics.ARl, metrics.images) == (-1, -1, 2)


@both_backends
@pytest.mark.parametrize("results", [[], [result(1, 1, BOX, 0.5)]])
def test_no_ground_truth__minus_1(backend: Backend, results: list[dict[str, Any]]) -> None:
    metrics = evaluate(coco_dict([], image_ids=[1, 2]), results, backend)
    assert {getattr(metrics, name) for name in NUMBERS} == {-1.0}
    assert metrics.per_class["class 1"].AP == -1


@both_backends
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_not_finite__left_out_and_counted(backend: Backend, value: float) -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations, backend=backend)
    good, bad_score, bad_box = result(1, 1, BOX, 0.5), result(1, 1, BOX, value), result(1, 1, FAR_BOX, 0.9)
    bad_box["bbox"] = [value, 0.0, 10.0, 10.0]
    evaluator.update(*batch_of(annotations, [bad_score, bad_box, good], [0]))
    evaluator.gather()
    assert evaluator.not_finite == 2
    assert evaluator.compute().mAP == pytest.approx(1)


# ---- the evaluator


def test_to_json__keys_of_the_metrics_file() -> None:
    metrics = evaluate(coco_dict([(1, 1, BOX)], image_ids=[1]), [result(1, 1, BOX, 0.5)])
    written = json.loads(json.dumps(metrics.to_json()))
    assert list(written) == [*NUMBERS, "per_class", "images", "backend"]
    assert written["per_class"] == {"class 1": {"AP": 1.0, "AP50": 1.0, "images": 1, "boxes": 1}}
    assert (written["mAP"], written["APs"], written["images"], written["backend"]) == (1.0, -1.0, 1, "faster")


def test_results__ids_and_names_of_the_data_set() -> None:
    dataset = coco_dict([("b", 7, BOX)], image_ids=["b", "a"], category_ids=(9, 7))
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, [result("a", 9, FAR_BOX, 0.25)], [1]))
    evaluator.update(*batch_of(annotations, [result("b", 7, BOX, 0.5)], [0]))
    assert evaluator.results() == [
        {**result("b", 7, BOX, 0.5), "file_name": "b.jpg", "category_name": "class 7"},
        {**result("a", 9, FAR_BOX, 0.25), "file_name": "a.jpg", "category_name": "class 9"},
    ]


def test_results__score_the_same_when_read_back() -> None:
    dataset, results = random_case(5, images=20)
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, results, list(range(20))))
    evaluator.gather()
    assert_same(evaluator.compute(), pycocotools_numbers(dataset, evaluator.results()))


def test_image_left_out__error_names_it() -> None:
    annotations = annotations_of(coco_dict([], image_ids=[11, 12, 13]))
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, [], [0]))
    with pytest.raises(RuntimeError, match=r"3 images of ground_truth.json .* never evaluated: 12, 13\."):
        evaluator.gather()


def test_image_evaluated_twice__error_names_it() -> None:
    annotations = annotations_of(coco_dict([], image_ids=[11, 12]))
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, [], [0, 1, 0]))
    with pytest.raises(RuntimeError, match=r"more than once: 11\."):
        evaluator.gather(partial=True)


def test_many_images_left_out__first_ten_and_the_count() -> None:
    annotations = annotations_of(coco_dict([], image_ids=list(range(1, 31))))
    with pytest.raises(RuntimeError, match=r"never evaluated: 1, .*, 10 and 20 more"):
        CocoEvaluator(annotations).gather()


def test_partial__only_evaluated_images_count() -> None:
    dataset = coco_dict([(1, 1, BOX), (2, 1, BOX)], image_ids=[1, 2])
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, [result(1, 1, BOX, 0.5)], [0]))
    evaluator.gather(partial=True)
    metrics = evaluator.compute()
    assert (metrics.mAP, metrics.images, metrics.per_class["class 1"].boxes) == pytest.approx((1, 1, 1))


def test_compute_before_gather__error() -> None:
    evaluator = CocoEvaluator(annotations_of(coco_dict([], image_ids=[1])))
    with pytest.raises(RuntimeError, match=r"call gather\(\) first"):
        evaluator.compute()


def test_reset__starts_anew() -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations)
    for results, expected in (([result(1, 1, BOX, 0.5)], 1), ([], 0)):
        evaluator.reset()
        evaluator.update(*batch_of(annotations, results, [0]))
        evaluator.gather()
        assert evaluator.compute().mAP == pytest.approx(expected)


def test_padding__not_counted() -> None:
    """A perfect box with label 0 and one with score 0."""
    annotations = annotations_of(coco_dict([(1, 1, BOX)], image_ids=[1]))
    evaluator = CocoEvaluator(annotations)
    idx, detections = batch_of(annotations, [result(1, 1, BOX, 0.5), result(1, 1, BOX, 0.0)], [0])
    detections.labels[0, 0] = 0
    evaluator.update(idx, detections)
    assert evaluator.results() == []


def test_unknown_row_or_label__error() -> None:
    evaluator = CocoEvaluator(annotations_of(coco_dict([], image_ids=[1, 2])))
    nothing = Detections(torch.zeros(1, 1, 4), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"sample_idx 2 is not in 0\.\.1"):
        evaluator.update(torch.tensor([2]), nothing)
    with pytest.raises(ValueError, match=r"label 5 is not in 0\.\.1"):
        evaluator.update(torch.tensor([0]), nothing._replace(labels=torch.tensor([[5]])))


def test_unknown_backend__error() -> None:
    with pytest.raises(InputError, match="backend 'slow' is not known; there are faster, pycocotools"):
        CocoEvaluator(annotations_of(coco_dict([], image_ids=[1])), backend="slow")  # type: ignore[arg-type]


# ---- several processes


def _evaluate_on_rank(rank: int, world_size: int, folder: str) -> None:
    """One process: images dealt out like cards; the last rank of three gets none; then one image twice."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    dataset, results = random_case(6, images=25)
    annotations = annotations_of(dataset)
    evaluator = CocoEvaluator(annotations)
    working = min(world_size, 2)
    own = list(range(rank, len(annotations), working)) if rank < working else []
    for row in own:
        evaluator.update(*batch_of(annotations, results, [row]))
    evaluator.gather()
    evaluator.gather()  # nothing is counted twice
    assert bool(evaluator.results()) == (rank == 0)
    figures = evaluator.compute().to_json()
    evaluator.reset()
    for row in own if rank else [*own, 1]:  # rank 1 has row 1 as well
        evaluator.update(*batch_of(annotations, results, [row]))
    try:
        evaluator.gather()
    except RuntimeError as error:
        figures["error"] = str(error)
    Path(folder, f"rank{rank}.json").write_text(json.dumps(figures))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes__all_ranks_have_the_numbers_of_one(world_size: int, tmp_path: Path) -> None:
    arguments = (world_size, str(tmp_path))
    mp.start_processes(_evaluate_on_rank, arguments, nprocs=world_size, start_method="forkserver")
    dataset, results = random_case(6, images=25)
    expected = json.loads(json.dumps(evaluate(dataset, results).to_json()))
    twice = dataset["images"][1]["id"]
    for rank in range(world_size):
        figures = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert f"evaluated more than once: {twice}." in figures.pop("error")
        assert figures == expected

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from detect.errors import InputError
from detect.evaluation.backends import Backend
from detect.evaluation.evaluator import Metrics, compute_metrics
from detect.evaluation.results_file import evaluate, read_detections, read_ground_truth
from tests.coco_cases import NUMBERS, coco_dict, pycocotools_numbers, random_case, result

BOX = [10.0, 20.0, 50.0, 40.0]


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def evaluate_file(annotations: Path, detections: Path, *, backend: Backend = "faster") -> Metrics:
    ground_truth = read_ground_truth(annotations)
    return compute_metrics(ground_truth, read_detections(detections, ground_truth), backend=backend)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path, "truth.json", coco_dict([(1, 3, BOX)], image_ids=[1, 2], category_ids=(3, 8)))


@pytest.mark.parametrize("string_ids", [False, True])
def test_evaluate_file__equals_pycocotools(tmp_path: Path, string_ids: bool) -> None:
    dataset, results = random_case(10, images=40, string_ids=string_ids)
    metrics = evaluate_file(write(tmp_path, "a.json", dataset), write(tmp_path, "d.json", results))
    numbers, _ = pycocotools_numbers(dataset, results)
    assert {name: getattr(metrics, name) for name in NUMBERS} == pytest.approx(numbers, abs=1e-6)


def test_evaluate_file__area_and_iscrowd_missing__filled_in(tmp_path: Path) -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    for entry in dataset["annotations"]:
        del entry["area"], entry["iscrowd"]
    detections = write(tmp_path, "d.json", [result(1, 1, BOX, 0.5)])
    metrics = evaluate_file(write(tmp_path, "a.json", dataset), detections, backend="pycocotools")
    assert (metrics.mAP, metrics.APm) == pytest.approx((1, 1))


def test_read_ground_truth__box_outside_or_without_area__kept_as_pycocotools_does(tmp_path: Path) -> None:
    boxes = [(1, 1, [600.0, 400.0, 100.0, 200.0]), (1, 1, [5.0, 5.0, 0.0, 9.0])]
    dataset = coco_dict(boxes, image_ids=[1])
    results = [result(1, 1, boxes[0][2], 0.5)]
    metrics = evaluate_file(write(tmp_path, "a.json", dataset), write(tmp_path, "d.json", results))
    assert metrics.mAP == pytest.approx(pycocotools_numbers(dataset, results)[0]["mAP"], abs=1e-6)
    assert metrics.per_class["class 1"].boxes == 2


def test_read_ground_truth__box_of_unlisted_image__left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = coco_dict([(1, 1, BOX), (7, 1, BOX)], image_ids=[1])
    with caplog.at_level(logging.WARNING):
        annotations = read_ground_truth(write(tmp_path, "a.json", dataset))
    assert len(annotations.boxes) == 1
    assert "1 of 2 boxes name an image or category that the file does not list" in caplog.text


@pytest.mark.parametrize("box", [[1.0, 2.0, 3.0], [1.0, 2.0, float("nan"), 4.0], "10 20 30 40"])
def test_read_ground_truth__bad_box__error_names_it(tmp_path: Path, box: Any) -> None:
    dataset = coco_dict([(1, 1, BOX)], image_ids=[1])
    dataset["annotations"].append({"id": 77, "image_id": 1, "category_id": 1, "bbox": box})
    with pytest.raises(InputError, match=r"a\.json: the bbox of annotation 77 is not four finite"):
        read_ground_truth(write(tmp_path, "a.json", dataset))


def test_read_ground_truth__no_images__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json lists no images"):
        read_ground_truth(write(tmp_path, "a.json", coco_dict([], image_ids=[])))


def test_read_detections__empty_list(tmp_path: Path, truth: Path) -> None:
    metrics = evaluate_file(truth, write(tmp_path, "d.json", []))
    assert (metrics.mAP, metrics.AR100, metrics.images) == (0, 0, 2)


def test_read_detections__file_name_as_image_id(tmp_path: Path) -> None:
    dataset = coco_dict([(1, 3, BOX)], image_ids=[1, 2], category_ids=(3,))
    dataset["images"][0]["file_name"] = "photos/cat.jpg"
    path = write(tmp_path, "d.json", [result("cat.jpg", 3, BOX, 0.5), result("2.jpg", 3, BOX, 0.4)])
    annotations = read_ground_truth(write(tmp_path, "a.json", dataset))
    assert read_detections(path, annotations).image_rows.tolist() == [0, 1]


def test_read_detections__nan__left_out_with_a_warning(
    tmp_path: Path, truth: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [result(1, 3, BOX, float("nan")), result(1, 3, [0.0, 0.0, float("inf"), 1.0], 0.9)]
    path = write(tmp_path, "d.json", [*rows, result(1, 3, BOX, 0.2)])
    with caplog.at_level(logging.WARNING):
        kept = read_detections(path, read_ground_truth(truth))
    assert kept.scores.tolist() == [0.2]
    assert "2 of 3 detections have a NaN or infinity" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, r"d\.json holds a dict, expected a list of results"),
        ([result(1, 3, BOX, 0.5), [1, 2]], r"result 1 \(counted from 0\) is \[1, 2\]; expected an object"),
        ([{"image_id": 1, "category_id": 3, "bbox": BOX}], r"result 0 .* with image_id, .*, score"),
        ([result(1, 3, BOX, 0.5), result(1, 3, BOX[:3], 0.5)], r"bbox of result 1 .* 50\.0\]; expected four"),
        ([result(1, 3, BOX * 2, 0.5)], r"bbox of result 0 .*; expected four numbers: left, top, width"),
        ([result(1, 3, BOX, "0.9")], r"score of result 0 .* is '0\.9'; expected one number"),  # type: ignore[arg-type]
        ([result(1, 3, BOX, None)], r"score of result 0 .* is None; expected one number"),  # type: ignore[arg-type]
        ([result(9, 3, BOX, 0.5)] * 2, r"2 of 2 results have an unknown image_id: 9; .* ids like 1, 2\. Do"),
        ([result(1, 1, BOX, 0.5)], r"1 of 1 results have an unknown category_id: 1; .* has 3, 8\. Results"),
    ],
)
def test_read_detections__wrong_content__error_names_the_entry(
    tmp_path: Path, truth: Path, content: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_file(truth, write(tmp_path, "d.json", content))


def test_read_detections__not_json_or_missing__error(tmp_path: Path, truth: Path) -> None:
    (tmp_path / "d.json").write_text("[{")
    for name in ("d.json", "absent.json"):
        with pytest.raises(InputError, match=f"cannot read .*{name} as JSON"):
            evaluate_file(truth, tmp_path / name)


def test_evaluate__prints_and_writes(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detections = write(tmp_path, "d.json", [result(1, 3, BOX, 0.5)])
    assert evaluate(truth, detections, json_file=tmp_path / "m.json") == 0
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert "class 3" in printed
    assert "FAIL" not in printed
    written = json.loads((tmp_path / "m.json").read_text())
    assert written["mAP"] == pytest.approx(1)
    assert list(written["per_class"]) == ["class 3", "class 8"]


def test_evaluate__zero_map__prints_the_cause(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fractions = [10 / 640, 20 / 480, 50 / 640, 40 / 480]
    assert evaluate(truth, write(tmp_path, "d.json", [result(1, 3, fractions, 0.5)])) == 0
    assert "FAIL box scale" in capsys.readouterr().out


def test_evaluate__no_folder_for_json__error_before_work(tmp_path: Path, truth: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*m\.json: there is no folder .*nowhere"):
        evaluate(truth, tmp_path / "unread.json", json_file=tmp_path / "nowhere" / "m.json")

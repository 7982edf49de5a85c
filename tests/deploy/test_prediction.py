import sys

import numpy as np
import pytest

from detect.deploy.prediction import Prediction
from detect.errors import InputError
from tests.detector_cases import CLASSES

FOUND = Prediction(
    np.array([[1.25, 2, 11.25, 22], [3, 4, 5, 6]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([3, 1]),
    ["bar", "square"],
)
NOTHING = Prediction(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [])


def test_to_coco__rows_with_category_ids_and_widths() -> None:
    assert FOUND.to_coco(7, CLASSES) == [
        {"image_id": 7, "category_id": 11, "bbox": [1.25, 2.0, 10.0, 20.0], "score": 0.75},
        {"image_id": 7, "category_id": 3, "bbox": [3.0, 4.0, 2.0, 2.0], "score": 0.5},
    ]
    assert NOTHING.to_coco(7, CLASSES) == []


def test_to_pandas__a_row_per_detection() -> None:
    pytest.importorskip("pandas")
    frame = FOUND.to_pandas()
    assert list(frame.columns) == ["xmin", "ymin", "xmax", "ymax", "score", "label", "name"]
    assert frame.iloc[0].tolist() == [1.25, 2.0, 11.25, 22.0, 0.75, 3, "bar"]
    assert len(frame) == 2
    assert list(NOTHING.to_pandas().columns) == list(frame.columns)
    assert len(NOTHING.to_pandas()) == 0


def test_to_supervision__classes_count_from_zero() -> None:
    pytest.importorskip("supervision")
    detections = FOUND.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, FOUND.boxes)
    np.testing.assert_array_equal(detections.confidence, FOUND.scores)
    assert [CLASSES.names[i] for i in detections.class_id] == FOUND.names
    assert detections["class_name"].tolist() == FOUND.names
    assert detections[detections.confidence > 0.6]["class_name"].tolist() == ["bar"]
    assert len(NOTHING.to_supervision()) == 0


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_without_its_package__the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"to_{package} needs the package {package}, .*'\.\[{package}\]'"):
        getattr(FOUND, f"to_{package}")()

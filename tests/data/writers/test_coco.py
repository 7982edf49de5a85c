import io
import json
from typing import Any

import pytest

from detect.data.writers.coco import JsonRows, annotation_entry


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": 1}, {"b": "é"}]])
def test_json_rows__are_a_list_whatever_their_number(rows: list[dict[str, Any]]) -> None:
    file = io.BytesIO()
    JsonRows(file).write_all(rows)
    assert json.loads(file.getvalue()) == rows
    assert file.getvalue().count(b"\n") == len(rows)  # one per line


def test_annotation_entry__by_hand() -> None:
    entry = annotation_entry(7, 3, 5, (10.5, 20.0, 60.0, 80.25))
    assert entry == {
        "id": 7,
        "image_id": 3,
        "category_id": 5,
        "bbox": [10.5, 20, 49.5, 60.25],
        "area": 2982.375,  # 49.5 * 60.25
        "iscrowd": 0,
    }
    assert annotation_entry(7, 3, 5, (0, 0, 2, 2), area=3.0, crowd=True)["area"] == 3
    assert annotation_entry(7, 3, 5, (0, 0, 2, 2), area=3.0, crowd=True)["iscrowd"] == 1

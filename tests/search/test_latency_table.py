import json
from dataclasses import replace
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.search.latency_table import Check, LatencyTable, Point, read_table
from tests.search.cases import SETTING

TABLE = LatencyTable(
    SETTING,
    {"backbone": {}},
    {"block1.out": 16, "last": 100},
    rounds=3,
    whole_ms={"block1.out": 9.0, "last": 10.0, "neck": 30.0},
    points={
        "block1.out": (Point(8, 0.9, 0.85, 0.95),),
        "last": (Point(20, 0.6, 0.5, 0.7), Point(60, 0.7, 0.7, 0.7)),
    },
    checks=(Check({"last": 60}, 7.0, 10.0), Check({"last": 20}, 6.0, 6.0), Check({"last": 40}, 9.0, 10.0)),
)


def test_prediction_is_the_whole_and_the_sum_of_interpolated_differences():
    assert TABLE.start_ms == 10.0
    assert TABLE.predict({}) == 10.0
    assert TABLE.predict({"last": 60}) == pytest.approx(7.0)
    assert TABLE.predict({"last": 40}) == pytest.approx(6.5)  # between 20 and 60
    assert TABLE.predict({"last": 80}) == pytest.approx(8.5)  # between 60 and the start
    assert TABLE.predict({"last": 80, "block1.out": 8}) == pytest.approx(7.5)
    assert TABLE.predict_from({"last": 80, "block1.out": 8}, {"last": 80}, 9.0) == pytest.approx(8.0)
    assert TABLE.median_error == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"last": 16}, "last: 16 channels; the latency table has 20 to 100"),
        ({"last": 101}, "last: 101 channels"),
        ({"neck": 8}, r"no width neck; it has block1\.out, last"),
    ],
)
def test_what_was_not_measured_is_not_predicted(widths, message):
    with pytest.raises(InputError, match=message):
        TABLE.predict(widths)


def test_a_table_survives_its_file(tmp_path: Path):
    TABLE.write(tmp_path / "t.json")
    assert read_table(tmp_path / "t.json") == TABLE
    assert json.loads((tmp_path / "t.json").read_text())["key"] == SETTING.key


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no latency table"), ("[]", "no latency table"), ('{"format_version": 9}', "of version 9")],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.json")
    with pytest.raises(InputError, match="No such file"):
        read_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [{"cpu": "b"}, {"version": "2"}, {"precision": "int8"}, {"threads": 2}, {"image_size": (96, 64)}],
)
def test_a_table_of_another_machine_is_refused_unless_told(change):
    other = replace(SETTING, **change)
    path = Path("t.json")
    with pytest.raises(
        InputError, match=f"another machine or setting .*{next(iter(change))}.*--other_machine"
    ):
        TABLE.require(other, path)
    TABLE.require(other, path, other_machine=True)
    TABLE.require(SETTING, path)

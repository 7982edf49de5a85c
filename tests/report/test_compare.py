from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from detect.errors import InputError
from detect.report.compare import compare
from tests.conftest import make_coco
from tests.report.test_latency_files import row, write
from tests.report.test_run_page import MOST_BYTES, check
from tests.run_cases import give_checkpoint, make_run


@pytest.mark.slow
def test_compare__runs_seeds_and_benchmarks__page_table_picture_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_coco(tmp_path / "coco", val=12)
    for name, seed, lr, noise_px in (("v3-seed0", 0, 0.1, 1), ("v3-seed1", 1, 0.1, 1), ("v2|b", 0, 0.2, 7)):
        make_run(tmp_path / name, root, seed=seed, lr=lr, noise_px=noise_px)
    measured = give_checkpoint(tmp_path / "v3-seed0", "weights")
    benchmark = write(
        tmp_path / "b.json", row("m.onnx", 12.5, checkpoint_sha256=measured), row("else.onnx", 7.25)
    )
    paths = [tmp_path / "v3-seed0", tmp_path / "v2|b", tmp_path / "v3-seed1", benchmark]
    json_file = tmp_path / "c.json"
    assert compare(paths, tmp_path / "out", resamples=200, json_file=json_file) == 0

    page = tmp_path / "out" / "index.html"
    checker = check(page)
    assert page.stat().st_size < MOST_BYTES
    assert all(source.startswith(("data:", "#")) for source in checker.sources)
    assert len(set(checker.ids)) == len(checker.ids)
    for words in (
        "v3 is better",
        "optimizer.init_args.lr",
        "V3-Small†",
        "else.onnx",
        "12.50",
        "±",
        "200 times",
        "b.json: 1 rows do not note which weights were measured",
    ):
        assert words in checker.text

    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    rows = [line for line in table if line.startswith(("| v3 ", "| v2"))]
    assert rows[0].startswith("| v3 | 2 |")  # the better one first
    assert rows[1].startswith("| v2\\|b | 1 |")
    assert len({line.replace("\\|", "").count("|") for line in table[2:6]}) == 1
    assert re.search(r"^\| v3 \| 2 \| 0\.\d{3} ± 0\.\d{3} \|", rows[0])  # fractions of one
    assert rows[0].split(" | ")[-4] == "0.161"  # the paper's 16.1 percent
    assert "The paper prints mAP in percent; here it is divided by 100." in "\n".join(table)
    assert re.search(r"[+-]0\.\d{3} \| [+-]0\.\d{3} to [+-]0\.\d{3} \| v3 is better", table[-1])
    assert "percent" not in checker.text.replace("The paper prints mAP in percent", "")
    with Image.open(tmp_path / "out" / "pareto.png") as picture:
        assert min(picture.size) > 500

    figures = json.loads(json_file.read_text())
    assert [group["seeds"] for group in figures["groups"]] == [[0, 1], [0]]
    assert figures["groups"][0]["latency"]["onnxruntime"]["total_ms"] == 12.5
    assert figures["pairs"][0]["distinguishable"] is True
    said = capsys.readouterr().out
    assert "v3 is better" in said
    assert re.search(r"  [+-]0\.\d{3}  [+-]0\.\d{3} to [+-]0\.\d{3}  ", said)  # fractions of one


@pytest.mark.slow
def test_compare__broken_run__in_the_table_with_a_notice(tmp_path: Path, coco_root: Path) -> None:
    make_run(tmp_path / "a", coco_root, lr=0.1)
    make_run(tmp_path / "b", coco_root, lr=0.2)
    for name in ("metrics.json", "detections.json"):
        (tmp_path / "b" / name).unlink()
    assert compare([tmp_path / "a", tmp_path / "b"], tmp_path / "out", resamples=10) == 0
    text = check(tmp_path / "out" / "index.html").text
    assert "b: The run has no checkpoint" in text
    assert "not comparable: b has no detections.json" in text


def test_compare__benchmark_alone(tmp_path: Path) -> None:
    assert compare([write(tmp_path / "b.json", row("m.onnx", 3.25))], tmp_path / "out") == 0
    assert "3.25" in (tmp_path / "out" / "table.md").read_text()


def test_compare__output_is_a_file__error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out is a file; give a folder"):
        compare([], tmp_path / "out")


def test_compare__no_resamples__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resamples is 0; give 1 or more"):
        compare([], tmp_path / "out", resamples=0)


def test_compare__neither_run_nor_benchmark__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such run or benchmark file"):
        compare([tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()

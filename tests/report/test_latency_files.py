from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.errors import InputError
from detect.report.latency_files import assign, read_benchmark, untied_notices
from detect.report.run_files import read_run
from detect.report.run_groups import group_runs
from tests.run_cases import give_checkpoint, make_run


def row(model: object, total_ms: float = 10.0, **changed: Any) -> dict[str, Any]:
    stages = {f"{stage}_ms": {"p50": total_ms / 4} for stage in ("pre", "network", "post")}
    defaults = {"runtime": "onnxruntime", "version": "1", "precision": "fp32", "threads": 1, "batch": 1}
    total = {"total_ms": {"p50": total_ms}, "peak_rss_mb": 90.0, "ratio_to_first": None}
    return {"model": str(model), **defaults, **stages, **total, **changed}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"protocol": {"cpu": "a cpu"}, "rows": rows}))
    return path


def test_read_benchmark__rows(tmp_path: Path) -> None:
    path = write(tmp_path / "b.json", row("m.onnx"), row("m.onnx", precision="int8", threads=4, batch=8))
    first, second = read_benchmark(path)
    assert (first.setting, first.total_ms, first.network_ms, first.peak_rss_mb) == (
        "onnxruntime",
        10,
        2.5,
        90,
    )
    assert (first.machine, first.source) == ("a cpu", path)
    assert second.setting == "onnxruntime, int8, 4 threads, batch 8"


def test_read_benchmark__not_one__error(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    with pytest.raises(InputError, match=r"cannot read .*b\.json as JSON"):
        read_benchmark(path)
    path.write_text("[" * 50_000)
    with pytest.raises(InputError, match=r"cannot read .*b\.json as JSON"):
        read_benchmark(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="is neither a run folder nor a benchmark"):
        read_benchmark(path)
    broken = row("m.onnx")
    del broken["network_ms"]
    write(path, row("m.onnx"), broken)
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\) lacks or misstates 'network_ms'"):
        read_benchmark(path)


def test_assign__by_the_hash_of_the_weights_and_the_first_of_several(tmp_path: Path, coco_root: Path) -> None:
    hashes = {}
    for name, seed, lr in (("v3-seed0", 0, 0.1), ("v3-seed1", 1, 0.1), ("v2", 0, 0.2)):
        make_run(tmp_path / name, coco_root, seed=seed, lr=lr)
        hashes[name] = give_checkpoint(tmp_path / name, name)
    folders = [tmp_path / name for name in ("v3-seed0", "v3-seed1", "v2")]
    groups = group_runs([(read_run(folder), None) for folder in folders])
    rows = read_benchmark(
        write(
            tmp_path / "b.json",
            row("moved.onnx", 10, checkpoint_sha256=hashes["v3-seed1"]),
            row("model.onnx", 11, checkpoint_sha256=hashes["v3-seed0"]),
            row(tmp_path / "v3-seed0" / "m.onnx", 12, checkpoint_sha256=hashes["v2"]),
            row("v2.onnx", 13, checkpoint_sha256="0" * 64, runtime="openvino"),
            row(tmp_path / "v2" / "model.onnx", 14),
            row("v2.yaml", 15, checkpoint_sha256=None),
        )
    )
    owned, others = assign(rows, groups)
    assert owned["v3"]["onnxruntime"].total_ms == 10
    assert {setting: latency.total_ms for setting, latency in owned["v2"].items()} == {"onnxruntime": 12}
    assert [latency.total_ms for latency in others] == [13, 14, 15]  # never by their names


def test_untied_notices__files_without_hashes__one_sentence(tmp_path: Path) -> None:
    old = read_benchmark(write(tmp_path / "old.json", row("a.onnx"), row("b.onnx")))
    new = read_benchmark(write(tmp_path / "new.json", row("a.onnx", checkpoint_sha256=None)))
    assert untied_notices(new) == []
    (notice,) = untied_notices([*old, *new])
    assert notice.startswith("old.json: 2 rows do not note which weights were measured")

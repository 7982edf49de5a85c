import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from detect.api import Detector
from detect.commands.main import main
from detect.deploy import benchmark as benchmark_module
from detect.deploy.benchmark import (
    BenchmarkOptions,
    PhotographToBoxes,
    Row,
    benchmark,
    checkpoint_sha256,
    fits,
    memory_of,
    plan_rows,
)
from detect.deploy.exported_file import file_sha256
from detect.deploy.latency import Protocol, row_setting
from detect.deploy.latency_text import latency_table
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import RuntimeOptions
from detect.errors import InputError
from tests.detector_cases import checkpoint, exported, photo

QUICK = Protocol(rounds=4, warmup=1)
QUIET = Console(quiet=True)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    photo().save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


@pytest.mark.slow
def test_benchmark__writes_json_and_plot_in_the_agreed_form(tmp_path, picture, capsys):
    arguments = ["--model", str(exported()), str(checkpoint()), "--runtime", "onnxruntime", "eager"]
    arguments += ["--rounds", "4", "--warmup", "1", "--memory", "false", "--pictures", str(picture)]
    monkey = ["--json", str(tmp_path / "b.json")]
    with pytest.MonkeyPatch.context() as patch:  # exporting the checkpoint is tested elsewhere
        patch.setattr(
            benchmark_module,
            "prepare",
            lambda model, runtime, form, folder: exported() if runtime == "onnxruntime" else model,
        )
        assert main(["benchmark", *arguments, *monkey]) == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert set(result) == {"protocol", "rows"}
    assert [(Path(row["model"]).name, row["runtime"]) for row in result["rows"]] == [
        ("nms.onnx", "onnxruntime"),
        ("small.ckpt", "onnxruntime"),
        ("small.ckpt", "eager"),
    ]
    assert {row["checkpoint_sha256"] for row in result["rows"]} == {file_sha256([checkpoint()])}
    row = result["rows"][0]
    keys = [
        "model",
        "runtime",
        "version",
        "precision",
        "threads",
        "batch",
        "peak_rss_mb",
        "net_mb",
        "ratio_to_first",
    ]
    assert set(keys) <= set(row)
    assert row["ratio_to_first"] == 1
    for stage in ("pre_ms", "network_ms", "post_ms", "total_ms"):
        assert set(row[stage]) == {"p50", "p95", "p99", "mean", "n"}
        assert row[stage]["n"] == 4
    protocol = result["protocol"]
    assert {"cpu", "governor", "pinned_to", "versions", "rounds", "load_average_before"} <= set(protocol)
    assert protocol["pictures"] == ["150x200"]
    assert Image.open(tmp_path / "b.png").width > 500
    output = capsys.readouterr().out
    assert "left out" in output
    assert "4 rounds of 3 rows, after " in output
    assert "  2 of 4 rounds" in output
    assert "interleaved" in output


def test_plan_rows__every_combination_that_fits(tmp_path):
    options = BenchmarkOptions(runtimes=["onnxruntime", "openvino"], threads=[1, 2], batches=[1, 4])
    rows = plan_rows([exported()], options, tmp_path, QUIET)
    assert len(rows) == 8
    ends = [(row.model.name, row.runtime, row.options.threads, row.batch) for row in (rows[0], rows[-1])]
    assert ends == [("nms.onnx", "onnxruntime", 1, 1), ("nms.onnx", "openvino", 2, 4)]
    with pytest.raises(InputError, match=r"nms\.onnx: none of litert runs it"):
        plan_rows([exported()], BenchmarkOptions(runtimes=["litert"]), tmp_path, QUIET)


def test_plan_rows__says_that_a_config_has_random_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_module, "prepare", lambda model, runtime, form, folder: exported())
    console = Console(width=200, file=io.StringIO())
    plan_rows([tmp_path / "a.yaml"], BenchmarkOptions(), tmp_path, console)
    assert "a.yaml: a config, so its weights are random" in console.file.getvalue()
    plan_rows([checkpoint()], BenchmarkOptions(), tmp_path, console)
    assert console.file.getvalue().count("random") == 1


def test_checkpoint_sha256__of_a_config__none(tmp_path):
    row = Row(tmp_path / "a.yaml", exported(), "onnxruntime", RuntimeOptions(), 1)
    with open_exported(exported()) as runtime:
        assert checkpoint_sha256(row, runtime) is None


def test_fits__checkpoints_run_everywhere_and_files_where_they_are_read():
    assert all(fits(Path("a.ckpt"), runtime) for runtime in ("onnxruntime", "litert", "eager"))
    assert fits(Path("a.onnx"), "openvino")
    assert fits(Path("a.xml"), "openvino")
    assert not fits(Path("a.xml"), "onnxruntime")
    assert not fits(Path("a.onnx"), "eager")


def test_photograph_to_boxes__takes_the_pictures_by_turns(picture, tmp_path, monkeypatch):
    photo(seed=5).save(tmp_path / "b.jpg")
    read: list[str] = []
    real = benchmark_module.load_pixels
    monkeypatch.setattr(benchmark_module, "load_pixels", lambda path: read.append(path.name) or real(path))
    detector = Detector.load(checkpoint(), device="cpu")
    run = PhotographToBoxes(detector, [picture, tmp_path / "b.jpg"], 3, QUICK)
    assert list(run()) == ["pre", "network", "post"]
    run()
    assert read == ["a.jpg", "b.jpg", "a.jpg", "b.jpg", "a.jpg", "b.jpg"]


def test_latency_table__refuses_a_difference_that_the_spread_covers():
    ms = {"p50": 1.0, "p95": 1.0, "p99": 1.0, "mean": 1.0, "n": 4}
    row = {"model": "a", "runtime": "r", "version": "1", "precision": "fp32", "threads": 1, "batch": 1}
    row |= {f"{stage}_ms": ms for stage in ("pre", "network", "post", "total")} | {
        "peak_rss_mb": None,
        "net_mb": None,
    }
    rows = [
        row | {"ratio_to_first": 1, "ratio_spread": [1, 1]},
        row | {"ratio_to_first": 0.9, "ratio_spread": [0.8, 1.1]},
        row | {"ratio_to_first": 0.7, "ratio_spread": [0.6, 0.8]},
    ]
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(latency_table({"rows": rows, "protocol": {"clock": "wall", "rounds": 4}}))
    lines = [line for line in console.export_text().splitlines() if "fp32" in line]
    assert "no difference shown" in lines[1]
    assert "0.70 (0.60 to 0.80)" in lines[2]
    assert "no difference shown" not in lines[2]


def test_benchmark__refuses_too_few_rounds():
    with pytest.raises(InputError, match="--rounds is 1"):
        benchmark([exported()], BenchmarkOptions(protocol=Protocol(rounds=1)))
    with pytest.raises(InputError, match="--threads is 0"):
        benchmark([exported()], BenchmarkOptions(threads=(1, 0)))
    with pytest.raises(InputError, match="--batch is 0"):
        benchmark([exported()], BenchmarkOptions(batches=(0,)))


def test_benchmark__a_provider_that_is_not_there_is_refused(picture, tmp_path):
    (tmp_path / "a.onnx").touch()
    options = BenchmarkOptions(providers=["cuda"], protocol=QUICK, memory=False, pictures=[picture])
    with pytest.raises(InputError, match="cuda: ONNX Runtime has no CUDAExecutionProvider here"):
        benchmark([tmp_path / "a.onnx"], options)
    with pytest.raises(InputError, match="--provider cuda is for ONNX Runtime: give --runtime onnxruntime"):
        benchmark([tmp_path / "a.onnx"], BenchmarkOptions(providers=["cuda"], runtimes=["eager"]))


def test_rows__each_provider_in_onnx_runtime_alone(tmp_path):
    options = BenchmarkOptions(runtimes=["onnxruntime", "openvino"], providers=["cpu", "tensorrt"])
    rows = plan_rows([tmp_path / "a.onnx"], options, tmp_path, Console(quiet=True))
    assert [(row.runtime, row.options.provider) for row in rows] == [
        ("onnxruntime", "cpu"),
        ("onnxruntime", "tensorrt"),
        ("openvino", "cpu"),
    ]
    row = {"runtime": "onnxruntime", "provider": "cuda", "precision": "fp32", "threads": 1, "batch": 1}
    assert row_setting(row) == "onnxruntime cuda"
    assert row_setting(row | {"provider": "cpu"}) == "onnxruntime"


@pytest.mark.slow
def test_peak_memory__is_that_of_a_process_with_the_network(picture):
    row = Row(exported(), exported(), "onnxruntime", RuntimeOptions(threads=1), 1)
    peak, net = memory_of(row, [picture])
    assert 100 < peak < 3000
    assert 0 < net < peak - 100  # without Python and torch


@pytest.mark.slow
def test_benchmark__exports_a_checkpoint_for_each_runtime(tmp_path, picture):
    options = BenchmarkOptions(
        runtimes=["onnxruntime", "openvino", "eager"], protocol=QUICK, memory=False, pictures=[picture]
    )
    assert benchmark([checkpoint()], options, json_file=tmp_path / "b.json") == 0
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [row["form"] for row in rows] == ["raw"] * 3

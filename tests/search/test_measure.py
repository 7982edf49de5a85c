from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from detect.commands.main import main
from detect.deploy.exported_file import read_description
from detect.deploy.graphs import build_graph
from detect.deploy.load import open_exported
from detect.deploy.random_weights import random_detector
from detect.errors import InputError
from detect.search import measure
from detect.search.latency_table import LatencyTable, read_table
from detect.search.measure import (
    MeasureOptions,
    TableOptions,
    check_predictions,
    measure_missing,
    random_networks,
)
from detect.search.networks import NetworkFiles, images_of
from detect.search.widths import explicit, widths_of, with_widths
from tests.search.cases import SETTING, SETTINGS, SteadyBench, latency_ms

STATED = explicit(SETTINGS)
EMPTY = LatencyTable(SETTING, STATED, widths_of(STATED), 3)


def test_a_table_resumes_where_it_was_stopped():
    saved: list[LatencyTable] = []

    def stop_after_three(table: LatencyTable) -> None:
        saved.append(table)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_missing(EMPTY, SteadyBench(), TableOptions(), after_width=stop_after_three)
    bench = SteadyBench()
    resumed = measure_missing(saved[-1], bench, TableOptions())
    straight = measure_missing(EMPTY, SteadyBench(), TableOptions())
    assert resumed == straight
    assert len(saved[-1].points) == 3
    assert sum(stated == STATED for stated in bench.measured) == len(EMPTY.start) - 3


def test_in_8_bits_channels_go_in_sixteens():
    table = replace(EMPTY, setting=replace(SETTING, precision="int8"))
    table = measure_missing(table, SteadyBench(), TableOptions(points=3))
    assert [point.channels for point in table.points["block5.expansion"]] == [16, 32, 48]
    assert not table.points["block1.out"]  # 16: nothing is below
    assert {point.channels % 16 for points in table.points.values() for point in points} == {0}


def test_differences_leave_out_what_slows_the_machine():
    table = measure_missing(EMPTY, SteadyBench(), TableOptions(points=2))
    slow = latency_ms(STATED) * 1.5  # the median round
    assert table.start_ms == pytest.approx(slow)
    for name, points in table.points.items():
        assert points
        for point in points:
            changed = latency_ms(with_widths(STATED, {name: point.channels}))
            assert point.ratio == pytest.approx(changed / latency_ms(STATED))
            assert point.low == pytest.approx(point.high)


def test_predictions_are_compared_with_networks_of_several_other_widths():
    table = measure_missing(EMPTY, SteadyBench(), TableOptions())
    networks = random_networks(table.start, 4, least=0.25)
    assert networks == random_networks(table.start, 4, least=0.25)
    assert all(len(widths) > 1 for widths in networks)
    checked = check_predictions(table, SteadyBench(), networks)
    assert len(checked.checks) == 4
    assert checked.median_error < 1e-9  # here widths cost each for itself


def test_which_network_is_loaded_first_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every runtime is as much faster as runtimes were loaded before it."""
    loaded: list[Path] = []

    def interleave(subjects, protocol):
        slowness = [2.0 if path.stem == "0001" else 1.0 for path in loaded]
        factors = [1.1 - 0.1 * place / (len(loaded) - 1) for place in range(len(loaded))]
        return [{"network": np.full(3, s * f)} for s, f in zip(slowness, factors, strict=True)]

    monkeypatch.setattr(measure, "open_exported", lambda path, *_, **__: nullcontext(loaded.append(path)))
    monkeypatch.setattr(measure, "one_run", lambda runtime, protocol: runtime)
    monkeypatch.setattr(measure, "interleave", interleave)
    bench = measure.Bench(tmp_path, MeasureOptions())
    monkeypatch.setattr(bench.files, "write", lambda stated: tmp_path / f"{stated['number']:04d}.onnx")
    start, *others = bench.measure([{"number": number} for number in (1, 2, 3)])
    assert len(loaded) == 6
    assert start == pytest.approx(np.full(3, 2.1))
    assert np.concatenate(others) == pytest.approx(np.full(6, 1.05))


@pytest.mark.slow
def test_one_graph_is_cut_to_every_width_and_runs(tmp_path: Path):
    files = NetworkFiles(tmp_path, "onnxruntime")
    changed = with_widths(STATED, {"block3.expansion": 40, "blocks2-3.out": 32, "last": 104, "extra.mid": 8})
    first, cut = files.write(STATED), files.write(changed)
    files.remove(first)
    assert first.is_file()  # the others are made of it
    files.remove(cut)
    assert not cut.is_file()
    cut = files.write(changed)
    detector = random_detector(changed, statistics=False)
    weights = build_graph(detector, "raw").state_dict()
    wanted = {name: list(tensor.shape) for name, tensor in weights.items()}
    found = {tensor.name: list(tensor.dims) for tensor in onnx.load(cut).graph.initializer}
    assert wanted.keys() & found.keys() == {name for name in found if name.endswith((".weight", ".bias"))}
    assert {name: shape for name, shape in found.items() if name in wanted} == {
        name: shape for name, shape in wanted.items() if name in found
    }
    assert read_description(cut, None)["model"]["backbone"]["init_args"]["rows"][2][1] == 40
    with open_exported(cut) as runtime:  # it would refuse groups of other channels
        logits = runtime.run(images_of(detector))[0]
    assert logits.shape == (3, len(detector.net.anchors), 3)
    assert logits.isfinite().all()


def test_the_command__writes_reads_and_refuses(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "Bench", lambda folder, options: SteadyBench())
    config, output = tmp_path / "c.yaml", tmp_path / "t.json"
    config.write_text(yaml.safe_dump({"model": SETTINGS}))
    words = ["latency-table", "--config", str(config), "--out", str(output), "--check", "2"]
    assert main(words) == 0
    table = read_table(output)
    assert table.missing == []
    assert len(table.checks) == 2
    assert table.start_ms == pytest.approx(1.5 * latency_ms(STATED))
    shown = capsys.readouterr().out
    assert "block2.expansion" in shown
    assert "median error 0.0%" in shown

    assert main([*words, "--threads", "2"]) == 2
    assert "threads 1, here 2" in capsys.readouterr().err
    assert main([*words, "--threads", "2", "--other_machine"]) == 0
    config.write_text(yaml.safe_dump({"model": {**SETTINGS, "num_classes": 3}}))
    assert main(words) == 2
    assert "holds for another network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TableOptions(points=0), "--points is 0"),
        (TableOptions(least=1.0), r"--least is 1\.0"),
    ],
)
def test_wrong_numbers(options: TableOptions, message: str):
    with pytest.raises(InputError, match=message):
        options.require_sense()
    with pytest.raises(InputError, match="--threads is 0"):
        replace(MeasureOptions(), threads=0).check()


def test_runtimes_without_files_or_without_8_bits_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="reads no exported files"):
        NetworkFiles(tmp_path, "eager")
    with pytest.raises(InputError, match="--int8: LiteRT"):
        NetworkFiles(tmp_path, "litert", int8=True)

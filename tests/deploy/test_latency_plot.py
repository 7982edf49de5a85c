import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from detect.deploy import latency_plot
from detect.deploy.latency_plot import plot_latency, row_title


def row(**changes):
    ms = {"p50": 2.0, "p95": 3.0, "p99": 4.0, "mean": 2.0, "n": 4}
    stages = {f"{stage}_ms": ms for stage in ("pre", "network", "post")}
    row = {
        "model": "runs/a/model.onnx",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "threads": 1,
        "batch": 1,
    }
    return row | stages | {"total_ms": ms | {"p50": 6.0, "p95": 7.5}} | changes


def test_row_title__names_what_is_not_usual():
    assert row_title(row()) == "model.onnx, onnxruntime"
    other = row(precision="int8", threads=2, batch=4, runtime="openvino")
    assert row_title(other) == "model.onnx, openvino, int8, 2 threads, batch 4"


def test_plot_latency__stacks_the_stages_and_marks_the_tail(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(latency_plot.plt, "close", drawn.append)
    rows = [row(), row(runtime="openvino"), row(batch=2)]
    result = {"rows": rows, "protocol": {"clock": "cpu", "cpu": "a processor"}}
    plot_latency(result, tmp_path / "a.png")
    (figure,) = drawn
    (axes,) = figure.axes
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
    assert len(ends) == 9
    assert max(ends) == 6
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 7.5)
    assert [text.get_text() for text in axes.get_yticklabels()] == [row_title(r) for r in rows]
    assert "cpu time" in axes.get_xlabel()
    assert Image.open(tmp_path / "a.png").width == 1200

"""What every exported format has to do, for the runtimes that need an environment of their own."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detect.commands.main import main
from detect.deploy.export import verification_images
from detect.deploy.exported_file import json_path, read_json, write_json
from detect.deploy.graphs import build_graph
from detect.deploy.latency import Protocol
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import RuntimeOptions
from detect.deploy.spec import Form, ModelSpec
from detect.errors import InputError
from detect.model.blocks import make_divisible
from detect.search.measure import Bench, MeasureOptions
from detect.search.widths import explicit, widths_of, with_widths
from tests.detector_cases import checkpoint, lively_detector, photo
from tests.search.cases import SETTINGS

METRICS = ("mAP", "AP50", "AR100")


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    """Skip where a package is not installed; importing it, to find out, would take seconds."""
    missing = find_spec(package) is None
    reason = f"{package} is not installed: bash scripts/test-runtimes, or pip install --editable '.[{extra}]'"
    return pytest.mark.skipif(missing, reason=reason)


def assert_a_search_measures(runtime: str, folder: Path) -> None:
    """Two networks of a latency table, exported and timed side by side in this runtime."""
    start = explicit(SETTINGS)
    narrow = with_widths(start, {name: make_divisible(width / 2) for name, width in widths_of(start).items()})
    bench = Bench(folder, MeasureOptions(runtime, threads=1, protocol=Protocol(3, 1, "cpu")))
    times = bench.measure([narrow, start])
    assert [len(rounds) for rounds in times] == [3, 3]
    assert all(ms > 0 for rounds in times for ms in rounds)


def assert_runs_as_torch(path: Path, form: Form, *, batches: tuple[int, ...], atol: float) -> None:
    """The same numbers as the graph in torch at every batch."""
    images = verification_images(ModelSpec.of_detector(lively_detector()), None)
    images = images.repeat(-(-max(batches) // len(images)), 1, 1, 1)
    graph = build_graph(lively_detector(), form)
    with open_exported(path, options=RuntimeOptions(threads=1)) as runtime:
        for batch in batches:
            outputs = runtime.run(images[:batch])
            with torch.no_grad():
                wanted = graph(images[:batch])
            assert len(outputs) == len(wanted)
            for output, want in zip(outputs, wanted, strict=True):
                assert output.shape == want.shape
                assert output.dtype == want.dtype
                np.testing.assert_allclose(output.numpy(), want.numpy(), atol=atol)


def assert_commands_read(path: Path, root: Path, folder: Path, runtime: str) -> None:
    """`validate`, `predict` and `benchmark` take the file, and the first two agree with the checkpoint."""
    found = {}
    photo().save(folder / "photo.jpg")
    for name, model in (("file", path), ("checkpoint", checkpoint())):
        metrics, output = folder / f"{name}.json", folder / name
        arguments = ["--model", str(model), "--data.root", str(root), "--data.workers", "0"]
        assert main(["validate", *arguments, "--json", str(metrics)]) == 0
        source = ["--source", str(folder / "photo.jpg"), "--output", str(output)]
        assert main(["predict", "--model", str(model), *source]) == 0
        boxes = [row["bbox"] for row in json.loads((output / "detections.json").read_text())]
        found[name] = (json.loads(metrics.read_text()), np.array(sorted(boxes)))
    for key in METRICS:
        assert found["file"][0][key] == pytest.approx(found["checkpoint"][0][key], abs=2e-3)
    assert found["file"][0]["AR100"] > 0
    assert len(found["file"][1]) > 5
    np.testing.assert_allclose(found["file"][1], found["checkpoint"][1], atol=0.1)

    arguments = ["--runtime", runtime, "--rounds", "3", "--warmup", "1", "--memory", "false"]
    pictures = ["--pictures", str(folder / "photo.jpg"), "--json", str(folder / "b.json")]
    assert main(["benchmark", "--model", str(path), *arguments, *pictures]) == 0
    (row,) = json.loads((folder / "b.json").read_text())["rows"]
    assert row["runtime"] == runtime
    assert row["network_ms"]["p50"] > 0
    assert Image.open(folder / "b.png").width > 500


def assert_refuses_what_is_not_its_own(path: Path, folder: Path) -> None:
    """A file without its JSON, with another's, one that is no model, or in a precision that it has not."""
    with pytest.raises(InputError, match="runs this file in fp32; int8 was asked for: export it as int8"):
        open_exported(path, options=RuntimeOptions(precision="int8"))
    alone = folder / path.name
    shutil.copy(path, alone)
    with pytest.raises(InputError, match="not exported by detect: no description in the file"):
        open_exported(alone)
    shutil.copy(json_path(path), json_path(alone))
    alone.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="belongs to another file: it says sha256"):
        open_exported(alone)
    description = read_json(path)
    assert description is not None
    alone.write_bytes(b"not a model")
    write_json(alone, description, None)
    with pytest.raises(InputError, match="cannot load it"):
        open_exported(alone)

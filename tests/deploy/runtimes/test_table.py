"""A runtime is one file and one line of the table: everything else follows, as for the one added here."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

from detect.commands import options
from detect.commands.main import main
from detect.deploy.exported_file import read_description
from detect.deploy.model_card import card_path
from detect.deploy.runtimes.base import FileFormat, Runtime, RuntimeOptions, RuntimeRecord
from detect.deploy.runtimes.table import FORMATS, RUNTIMES
from tests.detector_cases import checkpoint, photo

ROOT = Path(__file__).resolve().parents[3]


def write_pickled(graph, images, path, *, description):
    torch.save(graph, path)


class PickledRuntime(Runtime):
    name = "pickle"

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        self.describe(read_description(path, None), options, version="4")
        self.graph = torch.load(path, weights_only=False)

    @torch.inference_mode()
    def run_batch(self, images):
        return self.graph(images)

    def close(self):
        del self.graph


RECORD = RuntimeRecord(
    name="pickle",
    title="Pickle's own",
    package="pillow",
    extra="",
    load=PickledRuntime,
    reads=("pickled",),
    writes=FileFormat("pickled", ".pkl", ("raw",), write_pickled, why_no_int8="a pickle has 8 bits anyway"),
)


@pytest.fixture(autouse=True)
def one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, RECORD.name, RECORD)
    monkeypatch.setitem(FORMATS, "pickled", RECORD.writes)
    # As scripts/write_options.py writes it for one more record.
    content = json.loads(options.TABLE.read_text())
    for command in content["commands"].values():
        for option in command["options"]:
            if "onnxruntime" in (option.get("choices") or ()):
                option["choices"].append(RECORD.name)
            elif "onnx" in (option.get("choices") or ()):
                option["choices"].append("pickled")
    monkeypatch.setattr(options, "_table", lambda: content)


def test_a_new_format_is_exported_verified_described_and_used(tmp_path, capsys):
    file = tmp_path / "a.pkl"
    arguments = ["export", "--ckpt_path", str(checkpoint()), "--format", "pickled", "--output", str(file)]
    assert main(arguments) == 0
    assert "detections agree" in capsys.readouterr().out
    assert "in fp32 for Pickle's own." in card_path(file).read_text()
    photo().save(tmp_path / "a.jpg")
    source = ["--source", str(tmp_path / "a.jpg"), "--output", str(tmp_path / "out")]
    assert main(["predict", "--model", str(file), *source]) == 0
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) > 5
    assert main([*arguments, "--form", "nms"]) == 2
    assert "--form nms: pickled holds raw" in capsys.readouterr().err
    assert main([*arguments, "--int8", "--calibration", str(tmp_path)]) == 2
    assert "--int8: a pickle has 8 bits anyway" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "a.onnx")]) == 2
    assert "a file of pickled ends in .pkl" in capsys.readouterr().err


def test_a_new_runtime_is_measured(tmp_path, capsys):
    short = ["--rounds", "3", "--warmup", "1", "--memory", "false", "--json", str(tmp_path / "b.json")]
    assert main(["benchmark", "--model", str(checkpoint()), "--runtime", "pickle", *short]) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert [(row["runtime"], row["form"]) for row in content["rows"]] == [("pickle", "raw")]
    assert "pillow" in content["protocol"]["versions"]


def test_an_unknown_name_is_refused_with_those_of_the_table(tmp_path, capsys):
    assert main(["benchmark", "--model", "a.onnx", "--runtime", "abacus"]) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in RUNTIMES)
    output = ["--format", "abacus", "--output", str(tmp_path / "a")]
    assert main(["export", "--ckpt_path", str(checkpoint()), *output]) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in FORMATS)


@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_a_runtime_is_named_in_its_file_and_in_the_table_alone(name):
    found = {
        path.name for path in (ROOT / "detect").rglob("*.py") if re.search(rf"\b{name}\b", path.read_text())
    }
    assert found == {f"{name}.py", "table.py"}


def test_every_extra_is_installed_by_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for record in RUNTIMES.values():
        assert record.extra == "" or any(record.package in entry for entry in extras[record.extra])

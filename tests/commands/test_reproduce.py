from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detect.commands.fit import fit
from detect.commands.fit_cli import FitCLI
from detect.commands.reproduce import ReproduceOptions, differences, read_original, reproduce, values_of_seeds
from detect.errors import InputError
from tests.conftest import make_coco
from tests.fit_cases import TINY, EndAt, Killed, fit_args, read_raw, write_config

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.usefixtures("no_report"),
]


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # `reproduce` sets it, and it is put back after the test
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch; its data lies beside it."""
    folder = tmp_path_factory.mktemp("original")
    config = deepcopy(TINY)
    config["checkpoint_minutes"] = 0  # one after each step
    config["trainer"] |= {"max_epochs": 1, "callbacks": []}
    run = folder / "run"
    data = make_coco(folder / "coco", train=8, val=3)
    assert fit(fit_args(write_config(folder, config), data, run)) == 0
    return run


def changed_manifest(original: Path, path: Path, **values: Any) -> Path:
    """A copy of the manifest alone with other values, keys with dots."""
    manifest = json.loads((original / "manifest.json").read_text())
    for name, value in values.items():
        *parents, last = name.split("__")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(manifest))
    return path


def test_reproduce__same_machine__bit_identical(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    assert reproduce(original, again, ReproduceOptions()) == 0
    out = capsys.readouterr().out
    assert "nothing differs" in out
    assert "REPRODUCED: the weights of best.ckpt and last.ckpt are bit-identical" in out
    one, other = read_raw(original), read_raw(again)
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["command"] == ["detect", "reproduce", str(original), "--out", str(again)]
    # A reproduction is a run like any other.
    assert read_original(again).manifest["result"]["weights"] == manifest["result"]["weights"]


def test_reproduce__a_manifest_alone_other_version_and_data__named_and_judged(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = changed_manifest(original, tmp_path / "m.json", versions__torch="1.0", commit=None)
    data = make_coco(tmp_path / "other", train=8, val=3, seed=1)
    verdict = tmp_path / "verdict.json"
    options = ReproduceOptions(("--data.root", str(data)), json_file=verdict)
    reproduce(alone, tmp_path / "again", options)
    out = capsys.readouterr().out
    for name in (
        "versions.torch",
        "data.train.sha256",
        "data.val.files_sha256",
        "config.data.root (no effect)",
    ):
        assert name in out
    content = json.loads(verdict.read_text())
    assert content["differs"]["versions.torch"] == {"original": "1.0", "now": torch.__version__}
    assert not content["identical"]
    assert not content["promised"]


@pytest.mark.slow
def test_reproduce__stopped__the_same_command_goes_on(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FitCLI._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(FitCLI, "_callbacks", lambda self: [EndAt("batch_start", 1), *own(self)])
        with pytest.raises(Killed):
            reproduce(original, tmp_path / "again", ReproduceOptions())
    assert reproduce(original, tmp_path / "again", ReproduceOptions()) == 0


@pytest.mark.slow
def test_reproduce__a_run_of_two_ranks__bit_identical(original: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}

    def detect(*words: str) -> str:
        command = [sys.executable, "-m", "detect", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    own = fit_args(original / "config.yaml", original.parent / "coco", tmp_path / "two")
    detect("fit", *own, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--model.anchors", "auto")
    scales = read_raw(tmp_path / "two")["detect"]["anchors"]["scales"]
    assert len(scales) == 7
    assert all(isinstance(scale, float) for scale in scales)
    said = detect("reproduce", str(tmp_path / "two"), "--out", str(tmp_path / "again"))
    assert "2 per device x 2 device(s)" in said
    assert said.count("REPRODUCED: the weights of best.ckpt and last.ckpt are bit-identical") == 1


def test_reproduce__a_manifest_from_before_a_setting__its_default_is_no_difference(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = json.loads((original / "manifest.json").read_text())
    del older["config"]["model"]["taps"]
    del older["config"]["data"]["repeat_threshold"]
    alone = changed_manifest(original, tmp_path / "m.json", config=older["config"])
    assert reproduce(alone, tmp_path / "again", ReproduceOptions()) == 0
    assert "nothing differs" in capsys.readouterr().out
    assert values_of_seeds(read_original(alone), []) == values_of_seeds(read_original(original), [])


def test_values_of_seeds__a_run_from_before_a_setting__compared_with_its_default(
    original: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((original / "config.yaml").read_text())
    del config["model"]["taps"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 1}))
    (tmp_path / "metrics.json").write_text('{"mAP": 0.25}')
    assert values_of_seeds(read_original(original), [tmp_path])[1:] == [0.25]


def test_differences__each_part_is_compared(original: Path) -> None:
    manifest = json.loads((original / "manifest.json").read_text())
    assert differences(manifest, manifest) == {}
    for part, value in (
        *(("commit", {"hash": "0" * 40, "modified": True}), ("changes", {"diff": "x"}), ("code", "y")),
        *(("versions", {}), ("machine", {"processor": "another"}), ("runs_on", {"threads": 9}), ("seed", 9)),
        *(("data", {}), ("initial_weights", "z"), ("config", {"trainer": {"max_epochs": 2}})),
    ):
        found = differences(manifest, {**manifest, part: value})
        assert found
        assert all(name.startswith(part) for name in found)


def test_values_of_seeds__other_seeds_of_the_run(original: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = (original / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("seed_everything: 0", "seed_everything: 1"))
    (other / "metrics.json").write_text('{"mAP": 0.25}')
    run = read_original(original)
    assert values_of_seeds(run, [other])[1:] == [0.25]
    with pytest.raises(InputError, match="has the seed 1, as the original or another"):
        values_of_seeds(run, [other, other])
    (other / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"has no metrics\.json"):
        values_of_seeds(run, [other])
    (other / "config.yaml").write_text(config.replace("lr: 0.05", "lr: 0.07"))
    with pytest.raises(InputError, match=r"is no other seed of this run: it differs in model\.optimizer"):
        values_of_seeds(run, [other])


def test_reproduce__out_holds_something_else__error(original: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds something else: choose another --out"):
        reproduce(original, original, ReproduceOptions())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; give a folder"):
        reproduce(original, tmp_path / "file", ReproduceOptions())


def test_read_original__not_enough__error(original: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nope: no such run or manifest"):
        read_original(tmp_path / "nope")
    with pytest.raises(InputError, match=r"manifest\.json cannot be read as a manifest"):
        read_original(tmp_path)
    path = tmp_path / "m.json"
    path.write_text("[" * 50_000)
    with pytest.raises(InputError, match=r"m\.json cannot be read as a manifest"):
        read_original(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="holds a list, which is no manifest"):
        read_original(path)
    manifest = json.loads((original / "manifest.json").read_text())

    def read(**changed: Any) -> None:
        kept = {key: value for key, value in {**manifest, **changed}.items() if value is not None}
        path.write_text(json.dumps(kept))
        read_original(path)

    with pytest.raises(InputError, match=r"does not say config: .*detect fit --config RUN/config\.yaml"):
        read(config=None)
    with pytest.raises(InputError, match="has no result to compare with, for the run was not finished"):
        read(result=None)
    with pytest.raises(InputError, match=r"asks for the class 'os\.system'"):
        read(config={"trainer": {"callbacks": [{"class_path": "os.system"}]}})
    longer = deepcopy(manifest["config"])
    longer["trainer"]["max_epochs"] = 9
    with pytest.raises(InputError, match=r"(?s)continued with other settings.*max_epochs.*1.*9"):
        read(continued=[{"config": longer}])
    read(continued=[{"config": {**manifest["config"], "checkpoint_minutes": 5.0}}])


def test_a_copied_run_folder_is_an_original_too(original: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(original, tmp_path / "copy")
    assert read_original(copy).identity == read_original(original).identity

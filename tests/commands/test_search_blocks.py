"""Trials of the block search: a stand-in for `detect fit` writes metrics.csv."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("optuna")

from detect.commands import search_blocks, search_training
from detect.commands.fit_cli import settings_reader
from detect.commands.main import main
from detect.commands.search_blocks import BlockRun, TrialRuns, hold_out, run_trials, write_results
from detect.errors import InputError, RunStopped
from detect.search.blocks import BlockOptions, BlockSearch, TrialFailed
from detect.search.study import open_storage
from detect.search.widths import build_shapes, explicit
from tests.conftest import make_coco
from tests.search.cases import ROWS, SETTING, SETTINGS, SteadyBench

FAKE_FIT = """
import pathlib, sys, time
words = sys.argv[1:]
assert words[0] == "fit", words
run = pathlib.Path(words[words.index("--out") + 1])
(run / "checkpoints").mkdir(parents=True)
maps = {maps}
for epoch in range(1, len(maps) + 1):
    rows = [f"{{e}},{{maps[e - 1]}}" for e in range(1, epoch + 1)]
    (run / "new.csv").write_text("epoch,val/mAP\\n" + "\\n".join(rows) + "\\n")
    (run / "new.csv").rename(run / "metrics.csv")
    time.sleep({pause})
print("the last words")
sys.exit({code})
"""
RUN = BlockRun(BlockOptions(target=1.0), epochs=2)
SECTIONS: dict[str, Any] = {"model": SETTINGS, "data": {"root": "D"}, "trainer": {"max_epochs": 100}}


@pytest.fixture
def trials(tmp_path: Path) -> TrialRuns:
    return TrialRuns(SECTIONS, tmp_path / "trials", RUN)


def stand_in(
    monkeypatch: pytest.MonkeyPatch, folder: Path, maps: list[float], *, pause: float = 0.0, code: int = 0
) -> None:
    script = folder / "fit.py"
    script.write_text(FAKE_FIT.format(maps=maps, pause=pause, code=code))
    monkeypatch.setattr(search_blocks, "DETECT", (sys.executable, str(script)))
    monkeypatch.setattr(search_blocks, "POLL_SECONDS", 0.02)


def test_every_epoch_is_told_and_the_settings_are_those_of_a_short_run(trials, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, [0.1, -1.0, 0.3])
    told: list[float] = []
    assert trials.train({"backbone": "b"}, 7, lambda accuracy: bool(told.append(accuracy))) is False
    assert told == [0.1, 0.0, 0.3]  # -1 is COCO's word for no ground truth
    run = tmp_path / "trials" / "0007"
    settings = json.loads(run.with_suffix(".yaml").read_text())
    assert settings["model"] == {"backbone": "b"}
    assert settings["trainer"]["max_epochs"] == 2
    assert "the last words" in run.with_suffix(".log").read_text()
    assert not (run / "checkpoints").exists()


def test_a_bad_trial_is_stopped_after_its_epoch(trials, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, [0.1] * 100, pause=0.2)
    told: list[float] = []

    def after_epoch(accuracy: float) -> bool:
        told.append(accuracy)
        return len(told) == 2

    assert trials.train({}, 1, after_epoch) is True
    assert len(told) == 2


def test_a_training_that_fails_says_why(trials, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, [], code=3)
    with pytest.raises(TrialFailed, match=r"trial 1 ended with 3: the last words \(log: .*0001\.log\)"):
        trials.train({}, 1, lambda accuracy: False)


def test_an_interrupt_ends_the_training_and_the_search(trials, monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, [0.1] * 100, pause=0.2)

    def interrupt() -> None:
        while not (tmp_path / "trials" / "0001" / "metrics.csv").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(RunStopped, match="trial 1 is lost, the same command resumes") as stopped:
        trials.train({}, 1, lambda accuracy: False)
    assert stopped.value.exit_code == 130


def test_an_interrupt_between_trainings_says_that_the_command_resumes(trials: TrialRuns, tmp_path: Path):
    class Interrupted(SteadyBench):
        def measure(self, networks):
            if len(networks) > 1:  # a trial's beside the start
                raise KeyboardInterrupt
            return super().measure(networks)

    storage = open_storage(str(tmp_path / "study.journal"))
    search = BlockSearch(
        explicit(SETTINGS), RUN.blocks, storage=storage, setting=SETTING, bench=Interrupted()
    )
    with pytest.raises(RunStopped, match="what is done is kept, the same command resumes") as stopped:
        run_trials(search, trials)
    assert stopped.value.exit_code == 130
    assert [result.state for result in search.results()] == ["failed"]


def test_trials_are_scored_on_training_images_alone(tmp_path: Path):
    coco = make_coco(tmp_path / "coco", train=10, val=4)
    settings = {"model": {"image_size": [64, 64]}, "data": {"root": str(coco), "val_split": "val"}}
    divided, classes = hold_out(settings, tmp_path / "data", 0.3)
    assert classes == 3
    assert divided["data"]["root"] == str(tmp_path / "data")
    assert divided["data"]["val_split"] == "val"
    counts = {}
    for split in ("train", "val"):
        content = json.loads((tmp_path / "data" / "annotations" / f"instances_{split}.json").read_text())
        files = [tmp_path / "data" / split / image["file_name"] for image in content["images"]]
        counts[split] = {file.read_bytes() for file in files}
    training = {file.read_bytes() for file in (coco / "train").iterdir()}
    assert (len(counts["train"]), len(counts["val"])) == (7, 3)
    assert counts["train"] | counts["val"] == training
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    hold_out(settings, tmp_path / "data", 0.3)  # a resumed search has the same
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_what_was_found_is_a_configuration(tmp_path: Path):
    search = BlockSearch(
        explicit(SETTINGS),
        BlockOptions(target=1.0, trials=2),
        storage=open_storage(str(tmp_path / "s.journal")),
        setting=SETTING,
        bench=SteadyBench(),
    )
    config = {"model": {**SETTINGS, "num_classes": None}, "data": {"total_batch_size": 4}}
    config["model"]["backbone"] = {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "rows": ROWS, "weights": "imagenet"},
    }
    write_results(tmp_path, config, search)
    assert not (tmp_path / "found.yaml").exists()
    search.run(lambda network, number, after_epoch: after_epoch(0.5 - 0.1 * number))
    write_results(tmp_path, config, search)
    text = (tmp_path / "found.yaml").read_text()
    found = yaml.safe_load(text)
    assert "in trial 0 of 2" in text
    assert "      - [3, 16, 16, true, RE, 2]\n" in text
    assert found["data"] == config["data"]
    assert found["model"]["num_classes"] is None
    assert "weights" not in found["model"]["backbone"]["init_args"]
    assert found["model"]["image_size"] == [64, 64]
    build_shapes(found["model"])
    assert len(json.loads((tmp_path / "trials.json").read_text())["trials"]) == 2


@pytest.mark.slow
def test_the_command__searches_resumes_and_gives_fit_what_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search_blocks, "Bench", lambda folder, options: SteadyBench())
    stand_in(monkeypatch, tmp_path, [0.1, 0.2])
    coco = make_coco(tmp_path / "coco", train=10, val=4)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": {**SETTINGS, "num_classes": None}}))
    words = ["search", "--strategy", "blocks", "--config", str(tmp_path / "c.yaml"), "--target", "0.9"]
    words += ["--data.root", str(coco), "--data.total_batch_size", "4", "--epochs", "2"]
    out = tmp_path / "out"
    words += ["--out", str(out)]
    swept: list[Any] = []
    monkeypatch.setattr(search_training, "sweep", lambda jobs, *_: swept.extend(jobs) or 0)
    assert main([*words, "--trials", "1"]) == 0
    assert "no trial is better than the start: there is nothing to train" in capsys.readouterr().out
    assert main([*words, "--trials", "2", "--search_only"]) == 0
    assert not swept
    assert "trial 1: complete, mAP 0.200" in capsys.readouterr().out
    assert [trial["number"] for trial in json.loads((out / "trials.json").read_text())["trials"]] == [0, 1]
    settings = settings_reader().read_words(["--config", str(out / "trials" / "0001.yaml")])
    assert settings["data"]["root"] == str(out / "data")
    assert settings["trainer"]["max_epochs"] == 2
    assert settings["model"]["num_classes"] == 3
    found = settings_reader().read_words(["--config", str(out / "found.yaml")])
    assert found["data"]["total_batch_size"] == 4
    assert found["data"]["root"] != str(out / "data")
    assert "Search of out" in (out / "search.html").read_text()

    # Trained from scratch as after the other strategy, under the name of the trial and without --model flags.
    monkeypatch.setattr(BlockSearch, "found", lambda search: search.results()[-1])
    assert main([*words, "--trials", "2", "--seeds", "0", "1", "--model.statistics_images", "7"]) == 0
    assert [job.name for job in swept] == ["c-seed0", "c-seed1", "trial1-seed0", "trial1-seed1"]
    assert "--model.statistics_images" in swept[0].fit_flags
    assert swept[2].fit_flags == ("--data.root", str(coco), "--data.total_batch_size", "4")
    trained = model_of(swept[2].config)
    assert trained == model_of(out / "found.yaml")
    assert trained["statistics_images"] == 7


def model_of(config: Path) -> dict[str, Any]:
    return settings_reader().read_words(["--config", str(config)])["model"]


def test_options_of_the_other_strategy_are_refused(capsys: pytest.CaptureFixture[str]):
    words = ["search", "--config", "c.yaml", "--out", "o", "--target", "0.8"]
    assert main([*words, "--trials", "3"]) == 2
    assert "--trials is of no use to --strategy netadapt" in capsys.readouterr().err
    assert main([*words, "--strategy", "blocks", "--train_steps", "3"]) == 2
    assert "--train_steps is of no use to --strategy blocks" in capsys.readouterr().err


def test_wrong_options():
    with pytest.raises(InputError, match="--epochs is 0"):
        BlockRun(BlockOptions(target=1.0), epochs=0).check()
    with pytest.raises(InputError, match="share of the images"):
        BlockRun(BlockOptions(target=1.0), held_out=1.0).check()

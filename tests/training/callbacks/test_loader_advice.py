from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detect.data.datamodule import DetectionData
from detect.data.profile import LoaderProfile
from detect.training.callbacks import loader_advice
from detect.training.callbacks.loader_advice import FIRST_BATCHES, LOOK_AFTER, LoaderAdvice
from tests.conftest import make_coco


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    data = DetectionData(
        make_coco(tmp_path / "coco"), total_batch_size=4, workers=0, image_size=(32, 40), check_images=False
    )
    data.open()
    return SimpleNamespace(datamodule=data, train_dataloader=data.train_dataloader(), is_global_zero=True)


def go_through(trainer: Any, monkeypatch: pytest.MonkeyPatch, *, wait_s: float, first_wait_s: float) -> None:
    """Steps of 1 s by a clock of our own."""
    now = [0.0]
    monkeypatch.setattr(loader_advice, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    callback, batch = LoaderAdvice(), SimpleNamespace(images=torch.zeros(4))
    callback.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    for step in range(LOOK_AFTER + 5):
        now[0] += first_wait_s if step < FIRST_BATCHES else wait_s
        callback.on_train_batch_start(trainer, None, batch, step)  # type: ignore[arg-type]
        now[0] += 1
        callback.on_train_batch_end(trainer, None, None, batch, step)  # type: ignore[arg-type]


def test_a_waiting_run_is_told_once_what_helps(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go_through(trainer, monkeypatch, wait_s=1.0, first_wait_s=0.0)
    said = capsys.readouterr().out
    assert said.count("training waits 50% of the time for the loader (2 images/s a device)") == 1
    assert "what helps most: " in said


def test_a_slow_start_is_no_bottleneck(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go_through(trainer, monkeypatch, wait_s=0.05, first_wait_s=60.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("images_per_s", "lines"), [(3.9, 1), (4.1, 0)])  # a worker; 2 are trained
def test_workers_that_are_not_busy_hold_nothing_up(
    trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images_per_s: float,
    lines: int,
) -> None:
    trainer.datamodule.workers = 1
    each_ms = 500 / images_per_s
    profile = LoaderProfile(decode_ms=each_ms, augment_ms=each_ms, collate_ms=0.0, images=4, cores=1)
    monkeypatch.setattr(loader_advice, "profile_dataset", lambda *_, **__: profile)
    go_through(trainer, monkeypatch, wait_s=1.0, first_wait_s=0.0)
    assert len(capsys.readouterr().out.splitlines()) == lines

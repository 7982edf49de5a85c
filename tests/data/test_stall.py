import time
from pathlib import Path

import pytest

from detect.data import stall
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset
from detect.data.stall import InHand, describe_stall, stall_reported
from tests.conftest import make_coco


def test_what_is_in_hand_is_known_until_it_is_done() -> None:
    in_hand = InHand(0)
    with in_hand.take(7):
        ((worker, row, seconds),) = in_hand.held()
        assert (worker, row) == (0, 7)
        assert 0 <= seconds < 60
        assert "this process has been at file7 for 0 s" in describe_stall(
            in_hand, lambda row: f"file{row}", waited_s=1
        )
    assert in_hand.held() == []


def test_workers_without_a_file_are_said_too() -> None:
    said = describe_stall(InHand(3), str, waited_s=61.2)
    assert said.startswith("no batch for 61 s:")
    assert "no worker has a file in hand" in said


def test_a_short_wait_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with stall_reported(InHand(1), str):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_loader_that_stalls_names_the_file(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stall, "STALL_S", 0.2)
    own = DetectionDataset.pixels

    def slow(self: DetectionDataset, row: int) -> object:
        if row == 2:
            time.sleep(1)
        return own(self, row)

    monkeypatch.setattr(DetectionDataset, "pixels", slow)
    data = DetectionData(
        make_coco(tmp_path / "coco"),
        total_batch_size=4,
        workers=workers,
        image_size=(32, 40),
        check_images=False,
    )
    data.open()
    assert len(list(data.train_dataloader())) == 1
    said = capsys.readouterr().err
    who = "worker 0" if workers else "this process"
    assert f"{who} has been at {data.train.path(2)} for" in said

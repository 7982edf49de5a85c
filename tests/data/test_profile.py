from __future__ import annotations

import time
from pathlib import Path

import pytest

from detect.data.datamodule import DetectionData
from detect.data.images import decode as image
from detect.data.profile import LoaderProfile, profile
from tests.conftest import make_coco


def data_of(root: Path, **settings: object) -> DetectionData:
    return DetectionData(root, total_batch_size=4, workers=0, image_size=(32, 40), **settings)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", train=6)


def test_profile__every_step_costs_something(root: Path) -> None:
    measured = profile(data_of(root), images=10)
    assert measured.images == 10  # six images, four of them twice
    assert measured.decode_ms > 0
    assert measured.augment_ms > 0
    assert measured.collate_ms > 0


def test_profile__finds_the_slow_step(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: object, **settings: object) -> object:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        return image.load_pixels(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("detect.data.dataset.load_pixels", slow)
    measured = profile(data_of(root), images=6)
    assert measured.decode_ms >= 20
    assert measured.augment_ms < 20
    cached = profile(data_of(root, cache="disk"), images=6)
    assert cached.decode_ms < 5  # the slow decoder ran before the clock


def test_profile__reads_as_a_table() -> None:
    text = str(LoaderProfile(2.5, 1.0, 0.5, images=100, cores=2))
    assert text.splitlines() == [
        "decode       2.50 ms per image",
        "augment      1.00 ms per image",
        "collate      0.50 ms per image",
        "250 images/s per core, 2 core(s), 100 images",  # 1000 / 4
    ]

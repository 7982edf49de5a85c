import re
from pathlib import Path

import pytest

from detect.data import advice
from detect.data.advice import best_change, decoded_gb
from detect.data.dataset import DetectionDataset
from detect.data.profile import LoaderProfile
from detect.data.splits import open_split
from detect.data.workers import LoaderSettings
from tests.conftest import make_coco


def profile_of(*, decode_ms: float, cores: int) -> LoaderProfile:
    return LoaderProfile(decode_ms, augment_ms=1.0, collate_ms=1.0, images=64, cores=cores)


CASES = [
    # workers 2 of 7 gain 3.5 times, a cache (6 + 2) / 2 = 4
    (6.0, LoaderSettings(2, 1, cached=False), 8, r"--data.cache ram --data.cache_gb 1.1 .*up to 4.0 times"),
    # a cache (3 + 2) / 2 = 2.5
    (3.0, LoaderSettings(2, 1, cached=False), 8, r"--data.workers 7 \(now 2; 8 cores, .*up to 3.5 times"),
    (6.0, LoaderSettings(2, 1, cached=True), 8, r"--data.workers 7 .*up to 3.5 times"),
    (0.1, LoaderSettings(0, 1, cached=False), 2, r"--data.workers 1 .*up to 2.0 times"),
    (0.1, LoaderSettings(1, 1, cached=False), 2, r"476 images/s per core .* 2 core\(s\): give it more cores"),
    (0.1, LoaderSettings(3, 2, cached=False), 8, r"give it more cores"),  # the ranks share eight
]


@pytest.mark.parametrize(("decode_ms", "settings", "cores", "message"), CASES)
def test_the_greatest_gain_is_named(
    decode_ms: float,
    settings: LoaderSettings,
    cores: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advice, "free_bytes", lambda place: 2e9)
    said = best_change(profile_of(decode_ms=decode_ms, cores=cores), settings, decoded_gb=1.0)
    assert re.search(message, said), said


@pytest.mark.parametrize(("waiting", "gain"), [(0.2, "1.2"), (0.5, "2.0"), (0.9, "4.0")])
def test_training_gains_no_more_than_it_waits(
    waiting: float, gain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "free_bytes", lambda place: 2e9)
    profile, settings = profile_of(decode_ms=6.0, cores=8), LoaderSettings(7, 1, cached=False)
    said = best_change(profile, settings, decoded_gb=1.0, waiting=waiting)
    assert said.endswith(f": training up to {gain} times as fast")


def test_a_cache_goes_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room = {"ram": 0.5e9, "disk": 2e9}
    monkeypatch.setattr(advice, "free_bytes", room.__getitem__)
    settings = LoaderSettings(7, 1, cached=False)
    profile = profile_of(decode_ms=6.0, cores=8)
    assert "--data.cache disk" in best_change(profile, settings, decoded_gb=1.0)
    assert "more cores" in best_change(profile, settings, decoded_gb=3.0)


def test_decoded_images_take_three_bytes_a_pixel(tmp_path: Path) -> None:
    annotations = open_split(make_coco(tmp_path / "coco", train=5), role="train").annotations
    dataset = DetectionDataset(annotations, (64, 64))
    assert decoded_gb(dataset) == pytest.approx(5 * 160 * 120 * 3 / 1e9)

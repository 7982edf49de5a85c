from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.checks import scan
from detect.data.checks.scan import perceptual_hash, scan_images
from tests.data_sets import save_picture
from tests.mutations import png_of


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [save_picture(tmp_path / "images" / f"{i}.jpg", (160, 120), seed=i) for i in range(5)]


def test_scan__cut_off__found_though_the_header_is_good(pictures: list[Path]) -> None:
    pictures[1].write_bytes(pictures[1].read_bytes()[:-800])
    png = save_picture(pictures[0].with_name("6.png"), (160, 120))
    png.write_bytes(png.read_bytes()[:-800])
    pictures[3].write_bytes(b"no picture")
    failures = scan_images([*pictures, png]).failures
    assert set(failures) == {1, 3, 5}
    assert "truncated" in failures[1]
    assert "cannot identify" in failures[3]


def test_scan__second_time__decodes_only_what_changed(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan_images(pictures)
    save_picture(pictures[2], (90, 60), seed=99)
    looked_at: list[Path] = []
    original = scan.look_at
    monkeypatch.setattr(scan, "look_at", lambda path: (looked_at.append(path), original(path))[1])
    second = scan_images(pictures)
    assert looked_at == [pictures[2]]
    same = np.arange(5) != 2
    for name in ("digests", "hashes", "thumbnails"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one[same] == other[same]).all()
        assert np.any(one[2] != other[2])


def test_scan__splits_that_share_a_folder__share_what_was_seen(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_images(pictures[:3])
    scan_images(pictures[3:])
    monkeypatch.setattr(scan, "look_at", lambda path: pytest.fail(f"decoded {path}"))
    assert len(scan_images(pictures).hashes) == 5


def test_scan__failure__is_kept_too(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pictures[1].write_bytes(b"\xff" * 30)
    first = scan_images(pictures)
    monkeypatch.setattr(scan, "look_at", lambda path: pytest.fail(f"decoded {path}"))
    assert scan_images(pictures).failures == first.failures


def test_scan__no_place_for_the_cache__works_all_the_same(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DETECT_CACHE", str(tmp_path / "file"))
    assert len(scan_images(pictures).hashes) == 5


def test_scan__nothing__nothing(tmp_path: Path) -> None:
    assert len(scan_images([]).hashes) == 0


def test_hash__brighter_and_smaller__the_same_within_6_bits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grey = Image.fromarray(rng.integers(20, 200, (9, 9), dtype=np.uint8)).resize(
            (32, 32), Image.Resampling.BICUBIC
        )
        brighter = grey.point(lambda value: value * 1.25)
        softer = grey.resize((16, 16)).resize((32, 32))
        for other in (brighter, softer):
            bits = perceptual_hash(np.asarray(grey)) ^ perceptual_hash(np.asarray(other))
            assert bits.bit_count() <= 6


def test_hash__flat_picture__is_zero_or_even() -> None:
    assert perceptual_hash(np.full((32, 32), 128, np.uint8)).bit_count() % 64 < 64
    one = perceptual_hash(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    assert one < 2**63  # the bit of the mean brightness is never set


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_look_at__a_large_picture__looks_as_it_does_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    coarse = np.random.default_rng(5).integers(0, 256, (6, 8), dtype=np.uint8)
    grey = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
    else:
        grey.convert(mode).save(path)
    whole = scan.look_at(path)
    monkeypatch.setattr(scan, "LARGE_PIXELS", 300_000)
    thinned = scan.look_at(path)
    assert thinned.reason == whole.reason == ""
    assert thinned.digest == whole.digest
    assert (thinned.hash ^ whole.hash).bit_count() <= 4
    assert np.abs(thinned.thumbnail.astype(int) - whole.thumbnail).mean() < 6


ADDED_MB = """
import resource, sys
from pathlib import Path
from detect.data.checks.scan import look_at
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert look_at(Path(sys.argv[1])).reason == ""
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "colour", "row_bytes"), [(1, 0, 1673), (8, 6, 53_508)])
def test_look_at__the_largest_picture_that_is_not_refused__less_than_a_gigabyte(
    tmp_path: Path, depth: int, colour: int, row_bytes: int
) -> None:
    rows = bytes(row_bytes + 1) * 13_377
    (tmp_path / "a.png").write_bytes(png_of(13_377, 13_377, depth=depth, colour=colour, data=rows))
    command = [sys.executable, "-W", "ignore", "-c", ADDED_MB, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 900

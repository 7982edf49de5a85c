from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from detect.deploy.video_output import VideoOutput, encoder
from tests.video_cases import moving_square, times_and_frames

av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("available", "size", "wanted"),
    [
        ({"libx264", "libopenh264", "mpeg4"}, (96, 128), "libx264"),
        ({"libopenh264", "mpeg4"}, (96, 128), "libopenh264"),
        ({"mpeg4"}, (96, 128), "mpeg4"),
        ({"libx264", "mpeg4"}, (97, 128), "mpeg4"),
        ({"libx264", "mpeg4"}, (96, 127), "mpeg4"),
    ],
)
def test_encoder__is_h264_where_it_can_be(available: set[str], size: tuple[int, int], wanted: str) -> None:
    assert encoder(size, available) == wanted


def written(path: Path, times: list[float], size: tuple[int, int], rate: Fraction) -> Path:
    with path.open("wb") as file:
        writer = VideoOutput(file, size, rate=rate, pixel_aspect=Fraction(4, 3))
        for index, time in enumerate(times):
            writer.write(moving_square(index, size), time)
        writer.close()
    return path


@pytest.mark.parametrize("size", [(96, 128), (97, 127)])
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(24), Fraction(12_345, 678)])
def test_video_output__keeps_rate_size_times_and_colours(
    tmp_path: Path, size: tuple[int, int], rate: Fraction
) -> None:
    wanted = [float(index / rate) for index in range(10)]
    path = written(tmp_path / "a.mp4", wanted, size, rate)
    times, frames = times_and_frames(path)
    np.testing.assert_allclose(times, wanted, atol=2e-5)
    for index, pixels in enumerate(frames):
        assert pixels.shape == (*size, 3)
        assert np.abs(pixels.astype(int) - moving_square(index, size)).mean() < 4
        np.testing.assert_allclose(pixels[30, 4 * index + 10], (220, 60, 40), atol=6)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == pytest.approx(rate, rel=1e-3)
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        assert float(stream.duration * stream.time_base) == pytest.approx(10 / rate, abs=0.01)


def test_video_output__of_a_varying_rate_lasts_as_long(tmp_path: Path) -> None:
    wanted = [0.0, 0.04, 0.08, 2.5, 2.54, 9.0]
    path = written(tmp_path / "a.mp4", wanted, (96, 128), Fraction(25))
    times, _ = times_and_frames(path)
    np.testing.assert_allclose(times, wanted, atol=2e-5)
    with av.open(str(path)) as container:
        assert container.duration / av.time_base >= 9.0


def test_video_output__times_that_do_not_grow_are_moved(tmp_path: Path) -> None:
    times, frames = times_and_frames(written(tmp_path / "a.mp4", [0.0, 0.0, 0.1], (96, 128), Fraction(25)))
    assert len(frames) == 3
    assert times == sorted(set(times))

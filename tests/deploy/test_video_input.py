from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detect.deploy import video_input as module
from detect.deploy.video_input import Frame, FramesAhead, VideoInput, camera_address
from detect.deploy.video_sources import VideoSource, find_videos
from detect.errors import InputError
from tests.video_cases import RATE, SIZE, cut_off, moving_square, turned, write_video

pytest.importorskip("av")


def opened(path: Path) -> VideoInput:
    return VideoInput(find_videos([str(path)])[0])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_frames__are_rgb_with_their_number_and_seconds(tmp_path: Path, name: str) -> None:
    video = opened(write_video(tmp_path / name))
    assert video.rate == RATE
    assert video.frame_bytes == 3 * SIZE[0] * SIZE[1]
    assert video.total in (12, 11, None if name.endswith("ts") else 12)
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / RATE, atol=0.002)
    for frame in frames:
        assert np.abs(frame.pixels.astype(int) - moving_square(frame.number)).mean() < 4
    assert (video.fault, video.damaged) == ("", 0)


def test_frames__of_a_varying_rate_keep_their_times(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 10, 11, 40, 41, 42, 90, 91, 92, 93]
    video = opened(write_video(tmp_path / "a.mp4", ticks=ticks))
    times = [frame.time for frame in video.frames()]
    np.testing.assert_allclose(times, np.array(ticks) / RATE, atol=1e-4)
    assert video.fault == ""


def test_frames__are_turned_as_a_player_turns_them(tmp_path: Path) -> None:
    video = opened(turned(write_video(tmp_path / "a.mp4", 3), tmp_path / "phone.mp4"))
    frames = list(video.frames())
    assert frames[0].pixels.shape == (SIZE[1], SIZE[0], 3)
    assert frames[0].pixels.flags.c_contiguous  # torch takes no other
    clockwise = np.rot90(moving_square(2), -1)
    assert np.abs(frames[2].pixels.astype(int) - clockwise).mean() < 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames__of_a_file_that_is_cut_off_come_up_to_there(tmp_path: Path, name: str) -> None:
    whole = write_video(tmp_path / name, 120, options={"movflags": "faststart"})
    video = opened(cut_off(whole, tmp_path / f"cut-{name}"))
    count = len(list(video.frames()))
    assert 40 < count < 100
    assert video.fault.startswith("it ends after ")
    assert video.fault.endswith("should be 4.8 s long")


def test_frames__damaged_packets_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    video = opened(path)
    real, packets = video._stream, iter(range(100))
    error = video._av.error.InvalidDataError(1, "bad")

    class Stream:
        """Fails to decode the fourth packet."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def decode(self, packet: Any) -> Any:
            if next(packets) == 3:
                raise error
            return real.decode(packet)

    class Container:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *exception: object) -> None:
            pass

        def demux(self, stream: object) -> Any:
            return container.demux(real)

    container = video._container
    video._stream, video._container = Stream(), Container()  # type: ignore[assignment]
    assert 8 < len(list(video.frames())) < 12
    assert video.damaged == 1


def test_video_input__says_why_a_source_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    whole = write_video(tmp_path / "a.mp4", 60)
    cut_off(whole, tmp_path / "cut.mp4")  # its index stood at the end
    for name, message in [
        ("text.mp4", r"cannot read .*text\.mp4: Invalid data"),
        ("cut.mp4", r"cannot read .*cut\.mp4: (there is no video in it, or its end is missing|Invalid data)"),
    ]:
        with pytest.raises(InputError, match=message):
            opened(tmp_path / name)
    address = "rtsp://me:secret@127.0.0.1:9/live"
    with pytest.raises(InputError, match=r"cannot read rtsp://127\.0\.0\.1:9/live: ") as caught:
        VideoInput(find_videos([address])[0])
    assert "secret" not in str(caught.value)


def test_video_input__a_playlist_reaches_no_network(tmp_path: Path) -> None:
    playlist = tmp_path / "list.ts"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    with pytest.raises(InputError, match="cannot read"):
        opened(playlist)


def test_video_input__without_pyav_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"stream needs the package av, which .*'\.\[video\]'"):
        VideoInput(find_videos(["camera:0"])[0])


def test_camera_address__by_platform() -> None:
    devices = [
        SimpleNamespace(name="mic", media_types=["audio"]),
        SimpleNamespace(name="@1", media_types=["video"]),
    ]
    av = SimpleNamespace(device=SimpleNamespace(enumerate_input_devices=lambda format: devices))
    assert camera_address(av, "1", "linux") == ("/dev/video1", "v4l2", {})
    assert camera_address(av, "/dev/video7", "linux") == ("/dev/video7", "v4l2", {})
    assert camera_address(av, "1", "darwin") == ("1", "avfoundation", {"framerate": "30"})
    assert camera_address(av, "0", "win32") == ("video=@1", "dshow", {})
    assert camera_address(av, "My Camera", "win32") == ("video=My Camera", "dshow", {})
    with pytest.raises(InputError, match="camera:1: there are 1 cameras, counted from 0"):
        camera_address(av, "1", "win32")


def test_open_container__a_camera_is_opened_by_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    av = module.import_av()
    camera, given = find_videos(["camera:3"])[0], []

    def fake_open(address: str, **options: object) -> object:
        given.append((address, options["format"]))
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", fake_open)
    monkeypatch.setattr(sys, "platform", "linux")
    if "video4linux2,v4l2" in av.formats_available:
        with pytest.raises(InputError, match="cannot read camera:3: Permission denied"):
            module.open_container(av, camera)
        assert given == [("/dev/video3", "v4l2")]
    monkeypatch.setattr(av, "formats_available", set())
    with pytest.raises(InputError, match="this build of PyAV reads no cameras by v4l2"):
        module.open_container(av, camera)


class FakeVideo:
    """Frames without a file; notes how many were made."""

    frame_bytes = 10
    rate = Fraction(25)

    def __init__(self, count: int, *, live: bool = False, error: Exception | None = None) -> None:
        self.source = VideoSource("x", "camera" if live else "file", "x", Path("x"))
        self.count, self.error, self.made, self.closed = count, error, 0, threading.Event()

    def frames(self) -> Any:
        try:
            for index in range(self.count):
                self.made += 1
                yield Frame(index, index / 25, np.zeros((1, 1, 3), np.uint8))
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


def ahead(video: FakeVideo, budget: int, stopped: Any = lambda: False) -> FramesAhead:
    return FramesAhead(video, budget_bytes=budget, stopped=stopped)  # type: ignore[arg-type]


def test_frames_ahead__keeps_the_order_within_its_budget() -> None:
    video = FakeVideo(30)
    for taken, frame in enumerate(ahead(video, 45)):
        assert frame.number == taken
        assert video.made <= taken + 1 + 4 + 1  # taken, waiting, in the thread's hand
    assert taken == 29
    assert video.closed.wait(1)


def test_frames_ahead__of_a_camera_drops_what_nobody_takes() -> None:
    video = FakeVideo(30, live=True)
    frames = ahead(video, 40)
    taken = []
    for frame in frames:
        taken.append(frame.number)
        assert video.closed.wait(1)  # the camera does not wait
    assert taken[0] == 0
    assert taken == sorted(taken)
    assert len(taken) + frames.dropped == 30
    assert frames.dropped >= 24


def test_frames_ahead__raises_what_the_reader_raised_and_stops_when_told() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        list(ahead(FakeVideo(3, error=RuntimeError("ours")), 100))
    seen: list[int] = []
    video = FakeVideo(1000)
    for frame in ahead(video, 20, stopped=lambda: len(seen) == 5):
        seen.append(frame.number)
    assert seen == [0, 1, 2, 3, 4]
    assert video.closed.wait(1)


def test_frames_ahead__stops_although_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, comes = FakeVideo(1), threading.Event()

    def wait_for_a_frame() -> Iterator[Frame]:
        comes.wait(5)
        yield from ()

    monkeypatch.setattr(silent, "frames", wait_for_a_frame)
    started = time.perf_counter()
    assert list(ahead(silent, 20, stopped=lambda: time.perf_counter() - started > 0.1)) == []
    assert time.perf_counter() - started < 4
    comes.set()

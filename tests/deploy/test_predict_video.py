from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from detect.api import Detector
from detect.commands.main import main
from detect.deploy import predict as predict_module
from detect.deploy import predict_video as module
from detect.deploy import video_input
from detect.deploy.video_sources import find_videos
from tests.detector_cases import checkpoint
from tests.rtsp_server import rtsp_server
from tests.video_cases import RATE, SIZE, cut_off, times_and_frames, write_video

pytest.importorskip("av")
SHARED = ("--score_threshold", "0.3", "--batch_size", "5")


def run(out: Path, *sources: Path | str, more: tuple[str, ...] = ()) -> int:
    words = ["--source", *map(str, sources), "--out", str(out), *SHARED, *more]
    return main(["predict", "--ckpt_path", str(checkpoint()), *words])


def rows_of(out: Path) -> list[dict]:
    return json.loads((out / "detections.json").read_text())


def names_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def test_predict_videos__lists_and_draws_every_frame(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ticks = [*range(11), 60]
    video = write_video(tmp_path / "a.mkv", ticks=ticks)
    assert run(tmp_path / "out", video) == 0
    rows, (times, frames) = rows_of(tmp_path / "out"), times_and_frames(video)
    wanted = Detector.load(checkpoint(), device="cpu").predict(list(frames), score_threshold=0.3)
    assert [row["frame"] for row in rows] == [i for i, found in enumerate(wanted) for _ in found.names]
    assert [row["category_name"] for row in rows] == [name for found in wanted for name in found.names]
    np.testing.assert_allclose(
        [row["time"] for row in rows], [times[row["frame"]] for row in rows], atol=1e-3
    )
    assert max(row["time"] for row in rows) == 60 / RATE
    first, last = rows[0], rows[-1]
    assert first.keys() == {
        *("image_id", "category_id", "bbox", "score", "file_name", "category_name", "frame", "time")
    }
    assert (first["image_id"], last["image_id"]) == ("a.mkv#0", "a.mkv#11")
    assert first["file_name"] == str(video)
    drawn_times, drawn = times_and_frames(tmp_path / "out" / "a.mp4")
    np.testing.assert_allclose(drawn_times, times, atol=1e-3)
    assert {pixels.shape for pixels in drawn} == {(*SIZE, 3)}
    changed = [np.abs(a.astype(int) - b).mean() for a, b in zip(drawn, frames, strict=True)]
    assert min(changed) > 5  # boxes on every frame
    assert names_in(tmp_path / "out") == ["a.mp4", "detections.json"]
    output = capsys.readouterr().out
    assert f"{video}: 12 frames, " in output
    assert f"{len(rows)} detections in 12 frames, written to" in output


def test_predict_videos__several_without_drawings(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    videos = write_video(tmp_path / "a.mp4", 3), write_video(tmp_path / "b" / "a.mp4", 2)
    assert run(tmp_path / "out", *videos, more=("--draw", "false", "--classes", "disc")) == 0
    assert names_in(tmp_path / "out") == ["detections.json"]
    rows = rows_of(tmp_path / "out")
    assert {(row["file_name"], row["frame"]) for row in rows} >= {(str(videos[0]), 2), (str(videos[1]), 1)}
    assert {row["category_name"] for row in rows} == {"disc"}
    assert run(tmp_path / "out", *videos) == 0
    assert names_in(tmp_path / "out") == ["a-2.mp4", "a.mp4", "detections.json"]


def test_predict_videos__a_broken_one_gives_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = write_video(tmp_path / "whole.mp4", 60, options={"movflags": "faststart"})
    cut = cut_off(whole, tmp_path / "cut.mp4", 0.5)
    (tmp_path / "text.mp4").write_text("no video")
    assert run(tmp_path / "out", cut, tmp_path / "text.mp4") == 1
    output = capsys.readouterr().out
    assert "it ends after " in output
    assert f"note: cannot read {tmp_path / 'text.mp4'}: Invalid data" in output
    _, drawn = times_and_frames(tmp_path / "out" / "cut.mp4")
    assert 15 < len(drawn) < 50
    assert max(row["frame"] for row in rows_of(tmp_path / "out")) == len(drawn) - 1
    assert f"cut.mp4 is broken after {len(drawn)} frames: it ends" in output


def test_predict_videos__without_a_frame_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    assert run(tmp_path / "out", tmp_path / "text.mp4") == 2
    assert "text.mp4: Invalid data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def stop_at_batch(number: int, signum: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send this process a signal while that batch is with the network; gives the sizes of all batches."""
    real, sizes = Detector.predict_pixels, []

    def interrupted(self: Detector, pixels: list) -> list:
        sizes.append(len(pixels))
        if len(sizes) == number:
            os.kill(os.getpid(), signum)
        return real(self, pixels)

    monkeypatch.setattr(Detector, "predict_pixels", interrupted)
    return sizes


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_predict_videos__when_stopped_everything_until_then_is_written(
    tmp_path: Path, signum: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    calls = stop_at_batch(2, signum, monkeypatch)
    before = signal.getsignal(signum)
    video, other = write_video(tmp_path / "a.mp4", 60), write_video(tmp_path / "b.mp4", 2)
    assert run(tmp_path / "out", video, other) == 128 + signum
    assert signal.getsignal(signum) == before
    assert calls == [5, 5]
    assert {row["frame"] for row in rows_of(tmp_path / "out")} == set(range(10))
    assert len(times_and_frames(tmp_path / "out" / "a.mp4")[0]) == 10
    assert names_in(tmp_path / "out") == ["a.mp4", "detections.json"]
    assert f"stopped; what was found until then is in {tmp_path / 'out'}" in capsys.readouterr().err


@contextmanager
def served(content: bytes, *, silent_end: bool = False) -> Iterator[str]:
    """An address at which one visitor gets `content`; then it closes, or keeps silent."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                visitor.sendall(content)
                if silent_end:
                    done.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


def test_predict_videos__a_stream_over_tcp(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.ts", 20).read_bytes()
    with served(content) as address:
        assert run(tmp_path / "out", address) == 0
    rows = rows_of(tmp_path / "out")
    assert {row["frame"] for row in rows} == set(range(20))
    assert {row["file_name"] for row in rows} == {address}
    name = find_videos([address])[0].file.name
    assert len(times_and_frames(tmp_path / "out" / name)[0]) == 20


@pytest.mark.slow
def test_predict_videos__a_stream_that_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(video_input, "READ_S", 3.0)
    content = write_video(tmp_path / "a.ts", 60).read_bytes()
    with served(content, silent_end=True) as address:
        assert run(tmp_path / "out", address) == 1
    note = rf"note: {address} is broken after \d+ frames: nothing came for 3 s"
    assert re.search(note, capsys.readouterr().out)
    frames = {row["frame"] for row in rows_of(tmp_path / "out")}
    assert 40 < len(frames) <= 60
    name = find_videos([address])[0].file.name
    assert len(times_and_frames(tmp_path / "out" / name)[0]) == len(frames)


def test_predict_videos__a_stream_over_rtsp(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with rtsp_server(write_video(tmp_path / "a.ts", 30).read_bytes()) as address:
        assert run(tmp_path / "out", address) == 0
    rows = rows_of(tmp_path / "out")
    assert {row["frame"] for row in rows} >= set(range(28))  # FFmpeg waits for more of the last ones
    (name,) = {row["file_name"] for row in rows}
    assert name == address.replace("me:secret@", "")
    written = capsys.readouterr()
    assert "secret" not in written.out + written.err + " ".join(names_in(tmp_path / "out"))


def test_predict_videos__a_camera_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """FFmpeg's test image takes the camera's place: it comes without end, faster than any network."""
    av = pytest.importorskip("av")
    if "lavfi" not in av.formats_available:
        pytest.skip("this build of PyAV has no test images")
    test_image = "testsrc=size=128x96:rate=25", "lavfi", {}
    monkeypatch.setattr(video_input, "camera_address", lambda *_: test_image)
    monkeypatch.setattr(predict_module, "BUDGET_BYTES", 5 * 3 * SIZE[0] * SIZE[1])
    stop_at_batch(4, signal.SIGINT, monkeypatch)
    assert run(tmp_path / "out", "camera:0") == 130
    assert names_in(tmp_path / "out") == ["camera-0.mp4", "detections.json"]
    frames = sorted({row["frame"] for row in rows_of(tmp_path / "out")})
    assert frames[0] == 0
    assert 20 <= frames[-1]  # some between them came too fast
    times, _ = times_and_frames(tmp_path / "out" / "camera-0.mp4")
    assert len(times) == 20
    np.testing.assert_allclose(times[-1], frames[-1] / 25, atol=0.001)
    assert "frames were left out; they came faster than the network" in capsys.readouterr().out


def test_predict_videos__refuses_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    assert run(tmp_path / "out", video, more=("--format", "coco")) == 2
    assert "--format coco is for images" in capsys.readouterr().err
    assert run(tmp_path, video) == 2
    assert "would overwrite the source" in capsys.readouterr().err
    assert run(tmp_path / "out", "https://a.b/c.mp4") == 2
    assert "files of the web are not fetched" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_progress__says_frames_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(module, "Console", lambda: console)
    (source,) = find_videos(["camera:0"])
    for total, shown in ((60, "30/60"), (None, "30/?")):
        with module.progress(source, total) as advance:
            advance(30)
        assert shown in screen.getvalue()
        assert "frames/s" in screen.getvalue()

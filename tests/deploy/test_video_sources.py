from pathlib import Path

import pytest

from detect.deploy.prediction_files import find_images
from detect.deploy.video_sources import find_videos
from detect.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.MOV", "c.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def test_find_videos__files_and_globs_each_once(folder: Path) -> None:
    videos = find_videos([str(folder / "*.mp4"), str(folder / "b.MOV"), str(folder / "a.mp4")])
    assert [video.file for video in videos] == [folder / "a.mp4", folder / "b.MOV"]
    assert {video.kind for video in videos} == {"file"}
    assert not any(video.is_live for video in videos)


@pytest.mark.parametrize("images", ["", "c.jpg", "*.jpg", "*", "missing.jpg"])
def test_find_videos__images_are_left_to_others(folder: Path, images: str) -> None:
    assert find_videos([str(folder / images)]) == []


def test_find_videos__a_camera_and_a_stream_without_its_password() -> None:
    camera, stream = find_videos(["camera:0", "rtsp://me:secret@10.0.0.4:554/live/1?token=secret"])
    assert (camera.kind, camera.given, camera.file.name) == ("camera", "0", "camera-0.mp4")
    assert stream.kind == "stream"
    assert stream.is_live
    assert stream.given == "rtsp://me:secret@10.0.0.4:554/live/1?token=secret"
    assert stream.shown == "rtsp://10.0.0.4:554/live/1"
    assert stream.file.name == "10.0.0.4-554-live-1.mp4"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            ["https://a.b/c.mp4?key=secret"],
            "https://...: files of the web are not fetched, .*download the file",
        ),
        (["HTTP://a.b/c.jpg"], "http://...: files of the web are not fetched"),
        (["gopher://a"], "gopher://...: not an address that is read; rtsp, .*tcp are"),
        (["missing.mp4"], "missing.mp4: no video there"),
        (["0"], "0: there is no such file; a camera is camera:0"),
        (["camera:0", "photos"], "photos: images and videos are not mixed"),
        (["rtsp://a/b?c=1", "rtsp://a/b?c=2"], "two streams are called rtsp://a/b;"),
    ],
)
def test_find_videos__refuses_with_a_reason(sources: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_videos(sources)
    assert "secret" not in str(caught.value)


def test_find_images__of_a_folder_with_videos_alone_says_how_to_name_them(folder: Path) -> None:
    (folder / "c.jpg").unlink()
    with pytest.raises(InputError, match=r"videos are named by themselves or by a glob, such as .*\*\.mp4"):
        find_images([str(folder)])

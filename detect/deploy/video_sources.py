"""Which videos, cameras and streams `--source` names, and what each is called."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from detect.errors import InputError

VIDEO_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts"),
        *("wmv", "flv", "3gp", "ogv", "mjpeg", "mjpg", "h264", "hevc"),
    )
)
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp")
"""Of streams that are read."""
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
CAMERA = "camera:"


class VideoSource(NamedTuple):
    """One video, camera or stream."""

    given: str
    """The file, the number or name of the camera, or the whole address."""
    kind: Literal["file", "camera", "stream"]
    shown: str
    """What messages and detections.json call it: an address without user, password and query."""
    file: Path
    """The file itself, or one that does not exist and whose name says which camera or stream it is."""

    @property
    def is_live(self) -> bool:
        """Whether frames come when they come, and are gone when nobody takes them."""
        return self.kind != "file"


def find_videos(sources: list[str]) -> list[VideoSource]:
    """The videos that sources name; none where all are images.

    Raises:
        InputError: an address that is not read, a video that is not there, images beside videos, or two
            sources of one name.
    """
    found: dict[VideoSource, None] = {}
    images: list[str] = []
    for source in sources:
        videos = videos_of(source)
        found |= dict.fromkeys(videos)
        if not videos:
            images.append(source)
    if found and images:
        raise InputError(
            f"--source {images[0]}: images and videos are not mixed; call detect predict for each"
        )
    shown: dict[Path, VideoSource] = {}
    for video in found:
        if video.file in shown:
            raise InputError(f"--source: two streams are called {video.shown}; give each a call of its own")
        shown[video.file] = video
    return list(found)


def videos_of(source: str) -> list[VideoSource]:
    """The videos of one source: an address, a camera, a file or a glob of files; none where it names images.

    Raises:
        InputError: an address that is not read, a video that is not there, or a bare number.
    """
    if source.startswith(CAMERA) and source != CAMERA:
        name = source.removeprefix(CAMERA)
        return [VideoSource(name, "camera", source, Path(CAMERA, f"camera-{slug(name)}.mp4"))]
    if (address := ADDRESS.match(source)) is not None:
        return [stream_source(source, address[1].lower())]
    path = Path(source)
    if source.isdecimal() and not path.exists():
        raise InputError(f"--source {source}: there is no such file; a camera is camera:{source}")
    matches = [path] if path.is_file() else sorted(map(Path, glob.glob(source, recursive=True)))
    if not matches and path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(f"--source {source}: no video there")
    if not all(match.suffix.lower() in VIDEO_SUFFIXES and match.is_file() for match in matches):
        return []
    return [VideoSource(str(match), "file", str(match), match) for match in matches]


def stream_source(address: str, scheme: str) -> VideoSource:
    """A stream that is read.

    Raises:
        InputError: its scheme is not one of `SCHEMES`.
    """
    if scheme in ("http", "https", "ftp"):
        raise InputError(
            f"--source {scheme}://...: files of the web are not fetched, so that a run can be repeated and "
            "nothing is read that you have not seen; download the file and give its path"
        )
    if scheme not in SCHEMES:
        raise InputError(f"--source {scheme}://...: not an address that is read; {', '.join(SCHEMES)} are")
    parts = urlsplit(address)
    place = parts.netloc.rpartition("@")[2] + parts.path
    return VideoSource(address, "stream", f"{scheme}://{place}", Path(f"{scheme}:", f"{slug(place)}.mp4"))


def slug(text: str) -> str:
    """A text as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", text.replace(":", "-")).strip("-.") or "stream"

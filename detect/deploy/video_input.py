"""From a video, a camera or a stream to upright RGB frames, by PyAV; decoded ahead of whoever takes them."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.deploy.runtimes.base import require
from detect.deploy.video_sources import VideoSource
from detect.errors import InputError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

READ_S = 10.0
"""How long a stream may keep silent before it counts as broken."""
POLL_S = 0.2
"""How often whoever waits for a frame looks whether to stop."""
DEFAULT_RATE = Fraction(25)
"""Frames per second where the video does not say."""
EARLY_S = 1.0
"""A file that ends earlier than it says by more than this is cut off; sound may be a little longer."""
ENDED = object()


class Frame(NamedTuple):
    """One frame of a video."""

    number: int
    """From 0, as the source counts."""
    time: float
    """Seconds since the first frame."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) upright RGB."""


def import_av() -> Any:
    """PyAV.

    Raises:
        InputError: it is not installed; names the extra.
    """
    return require("av", extra="video", path="a video, camera or stream")


class VideoInput:
    """Frames of a video, a camera or a stream, in order.

    Args:
        source: what to open.

    Raises:
        InputError: PyAV is not installed, or the source cannot be opened or has no video; with the reason.
    """

    def __init__(self, source: VideoSource) -> None:
        self.source = source
        self._av = import_av()
        self._container = open_container(self._av, source)
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"cannot read {source.shown}: there is no video in it, or its end is missing")
        self._stream: VideoStream = self._container.streams.video[0]
        if getattr(self._stream, "codec_context", None) is None:  # typed as if there always were one
            self._container.close()
            raise InputError(f"cannot read {source.shown}: PyAV has no decoder for its video")
        self._stream.thread_type = "AUTO"
        self.damaged = 0
        """Packets that could not be decoded."""
        self.fault = ""
        """Why the frames ended early; empty where they did not, or have not yet."""

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average."""
        return self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel in heights, of the frame as it is stored."""
        return self._stream.sample_aspect_ratio or Fraction(1)

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame."""
        return max(1, 3 * self._stream.width * self._stream.height)

    @property
    def seconds(self) -> float | None:
        """How long a file says that it is; null where it does not."""
        stream, container = self._stream, self._container
        if self.source.is_live:
            return None
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        alone = len(container.streams) == 1
        return container.duration / self._av.time_base if alone and container.duration else None

    @property
    def total(self) -> int | None:
        """About how many frames a file has; null where it does not say."""
        if self.source.is_live:
            return None
        of_time = None if self.seconds is None else round(self.seconds * self.rate)
        return self._stream.frames or of_time

    def frames(self) -> Generator[Frame, None, None]:
        """The frames; `fault` and `damaged` say afterwards whether they were all. Closes the source."""
        start: float | None = None
        last, shape = -1.0, None
        reformatter = self._av.video.reformatter.VideoReformatter()
        total_s, spacing = self.seconds, float(1 / self.rate)
        with self._container:
            for index, decoded in enumerate(self._decoded()):
                stamp = decoded.time if decoded.pts is not None else None
                start = stamp if start is None else start
                time = index * spacing if stamp is None or start is None else max(0.0, stamp - start)
                pixels = upright(decoded, reformatter)
                if shape not in (None, pixels.shape):
                    height, width = pixels.shape[:2]
                    self.fault = f"the size of its frames changes to {width}x{height} at frame {index}"
                    return
                last, shape = time, pixels.shape
                yield Frame(index, time, pixels)
        if total_s is not None and not self.fault and total_s - (last + spacing) > EARLY_S:
            self.fault = f"it ends after {last + spacing:.1f} s and should be {total_s:.1f} s long"

    def _decoded(self) -> Iterator[VideoFrame]:
        """Frames as PyAV has them; what cannot be decoded is counted, and what cannot be read is the end."""
        errors = self._av.error
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except errors.FFmpegError as error:
                self.fault = reason_of(self._av, error)
                packet = None
            try:
                yield from self._stream.decode(packet)
            except errors.EOFError:
                return  # the decoder was emptied by the last packet
            except errors.FFmpegError:
                self.damaged += 1
            if packet is None:
                return


def upright(frame: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """(H, W, 3) RGB as a player shows it: `rotation` is counter-clockwise, in degrees.

    Args:
        frame: as the decoder gives it.
        reformatter: one for the whole video. A frame's own starts a thread per core for each frame,
            and keeps them as long as the frame lives.
    """
    pixels: NDArray[Any] = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def open_container(av: Any, source: VideoSource) -> InputContainer:
    """An opened source.

    Raises:
        InputError: it cannot be opened; with the reason, and without the password of an address.
    """
    address, format, options, timeout = source.given, None, {"protocol_whitelist": "file"}, None
    if source.kind == "camera":
        address, format, options = camera_address(av, source.given, sys.platform)
        if format not in av.formats_available and f"video4linux2,{format}" not in av.formats_available:
            raise InputError(f"{source.shown}: this build of PyAV reads no cameras by {format}")
    elif source.kind == "stream":
        options, timeout = {"rtsp_flags": "prefer_tcp"}, READ_S
    try:
        container: InputContainer = av.open(address, format=format, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"cannot read {source.shown}: {reason_of(av, error)}") from error
    return container


def reason_of(av: Any, error: Exception) -> str:
    """What went wrong, without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):  # our own time limit
        return f"nothing came for {READ_S:.0f} s"
    return getattr(error, "strerror", None) or type(error).__name__


def camera_address(av: Any, name: str, platform: str) -> tuple[str, str, dict[str, str]]:
    """Address, format and options of a camera.

    Args:
        av: PyAV.
        name: a number, or the name that the system gives the camera.
        platform: as `sys.platform`.

    Raises:
        InputError: Windows has no camera of that number.
    """
    if platform == "darwin":
        return name, "avfoundation", {"framerate": "30"}  # its own default, 29.97, is refused by cameras
    if platform != "win32":
        return f"/dev/video{name}" if name.isdecimal() else name, "v4l2", {}
    if name.isdecimal():
        devices = av.device.enumerate_input_devices("dshow")
        names = [device.name for device in devices if "video" in device.media_types]
        if int(name) >= len(names):
            raise InputError(f"camera:{name}: there are {len(names)} cameras, counted from 0")
        name = names[int(name)]
    return f"video={name.removeprefix('video=')}", "dshow", {}


class FramesAhead:
    """Frames of a video, decoded in a thread ahead of whoever takes them.

    Args:
        video: opened; the thread reads and closes it.
        budget_bytes: of frames that wait.
        stopped: true when no more frames are wanted.
    """

    def __init__(self, video: VideoInput, *, budget_bytes: int, stopped: Callable[[], bool]) -> None:
        self.dropped = 0
        """Frames of a camera or a stream that came faster than they were taken."""
        self._video, self._stopped = video, stopped
        self._waiting: queue.Queue[Any] = queue.Queue(max(1, budget_bytes // video.frame_bytes))
        self._ended = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        # A daemon: a stream that is silent would keep the process for as long as it may be.
        thread = threading.Thread(target=self._read, name="frames", daemon=True)
        thread.start()
        try:
            while not self._stopped():
                try:
                    item = self._waiting.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if item is ENDED:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._ended.set()
            thread.join(timeout=1)

    def _read(self) -> None:
        last: object = ENDED
        frames = self._video.frames()
        try:
            for frame in frames:
                if self._video.source.is_live and self._waiting.full():
                    self.dropped += 1
                elif not self._put(frame):
                    break
        except BaseException as error:  # raised where the frames are taken
            last = error
        frames.close()
        self._put(last)

    def _put(self, item: object) -> bool:
        """Wait for room; false when nobody takes frames any more."""
        while not self._ended.is_set():
            try:
                self._waiting.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

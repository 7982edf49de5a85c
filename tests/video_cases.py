"""Videos that tests write through PyAV: a bright square that moves over a dark ground."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 25
SIZE = (96, 128)
"""(H, W) px."""
IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
QUARTER_CLOCKWISE = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""Matrix of a track that a player turns clockwise, as of a phone held upright (ISO/IEC 14496-12, 8.3.2)."""


def moving_square(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Frame `index`: the square's left edge stands at 4 px per frame."""
    pixels = np.full((*size, 3), 30, dtype=np.uint8)
    left = 4 * index % (size[1] - 20)
    pixels[20:40, left : left + 20] = (220, 60, 40)
    return pixels


def write_video(
    path: Path,
    frames: int = 12,
    *,
    size: tuple[int, int] = SIZE,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """An MPEG-4 video by the suffix of `path`; `ticks` are the times of the frames in 1 / RATE s."""
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(moving_square(index, size), format="rgb24")
            frame.pts, frame.time_base = (index if ticks is None else ticks[index]), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_off(video: Path, target: Path, share: float = 0.6) -> Path:
    """The beginning of a video whose index stands in front."""
    content = video.read_bytes()
    target.write_bytes(content[: int(share * len(content))])
    return target


def turned(video: Path, target: Path) -> Path:
    """The same MP4 with the matrix of a phone held upright in its track."""
    content = video.read_bytes()
    track = content.index(b"tkhd")
    place = content.index(IDENTITY, track)
    target.write_bytes(content[:place] + QUARTER_CLOCKWISE + content[place + len(IDENTITY) :])
    return target


def times_and_frames(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """What a player shows: seconds of each frame, and its RGB pixels."""
    import av

    reformatter = av.video.reformatter.VideoReformatter()  # of each frame, it keeps a thread per core
    times, frames = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append(frame.time)
            frames.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    return times, frames

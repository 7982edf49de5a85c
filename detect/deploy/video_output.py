"""From RGB frames to an MP4 file, by PyAV: the times of the frames are kept, their rate varying or not."""

from __future__ import annotations

from fractions import Fraction
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from detect.deploy.video_input import import_av

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""H.264 where this build of PyAV has it, else MPEG-4; the first that there is."""
OPTIONS = {"libx264": {"preset": "veryfast", "crf": "20", "bf": "0"}}
"""Boxes and text stay sharp at little cost; without B-frames a varying rate keeps the duration right."""
BITS_PER_PIXEL = 0.2
"""Of a frame, for encoders that want a rate: 5.5 Mbit/s at 1280x720 and 30 frames per second."""
TICKS = 60_000
"""Of time per second: whole numbers at 24, 25, 30, 30000/1001, 50 and 60 frames; MPEG-4 allows 65535."""
MOST_RATE = 1000
"""Frames per second; more is a container's mistake."""
BT709 = 1
"""Code of BT.709 for matrix, transfer and primaries (ITU-T H.273), which every player takes."""


class VideoOutput:
    """An MP4 file without sound, written frame by frame until `close`.

    Args:
        file: to write to; it can be searched.
        size: (H, W) of the frames in px.
        rate: frames per second, on average.
        pixel_aspect: width of a pixel in heights.
    """

    def __init__(
        self, file: IO[bytes], size: tuple[int, int], *, rate: Fraction, pixel_aspect: Fraction = Fraction(1)
    ) -> None:
        self._av = import_av()
        height, width = size
        codec = encoder(size, self._av.codec.codecs_available)
        rate = min(rate, Fraction(MOST_RATE)).limit_denominator(1001)
        self._container = self._av.open(file, "w", format="mp4")
        self._stream: Any = self._container.add_stream(codec, rate=rate, options=OPTIONS.get(codec, {}))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.sample_aspect_ratio = pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        if codec not in OPTIONS:
            context.bit_rate = int(BITS_PER_PIXEL * height * width * rate)
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._last = -1

    def write(self, pixels: NDArray[np.uint8], time: float) -> None:
        """Add a frame.

        Args:
            pixels: (H, W, 3) RGB.
            time: seconds since the first frame; later than that of the frame before.
        """
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace="ITU709", threads=1)
        self._last = frame.pts = max(self._last + 1, round(time * TICKS))
        frame.time_base = Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def encoder(size: tuple[int, int], available: set[str]) -> str:
    """The best encoder that takes frames of (H, W) px; H.264 wants even numbers."""
    even = size[0] % 2 == 0 and size[1] % 2 == 0
    return next(name for name in ENCODERS if name in available and (even or name == "mpeg4"))

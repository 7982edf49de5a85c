"""Pictures of findings: the box where it is, even beyond the edge, and repeated pictures side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from detect.data.checks.findings import Finding
from detect.data.images.decode import load_image
from detect.errors import InputError
from detect.evaluation.draw import draw_detections
from detect.report.html import text
from detect.report.pictures import WRONG, picture_tag

SIDE_PX = 420
"""Longer side of a picture on the page."""
MARGIN = 0.5
"""Most that is added beside a picture for a box beyond its edge, in sides of the picture."""
MARGIN_GREY = (128, 128, 128)
SMALLEST_BOX_PX = 14
"""On the page: a box without area must be seen too."""
BUDGET_BYTES = 3_600_000
"""Of all pictures, so that the page stays below 5 MB."""


class FindingPictures:
    """Makes figures of findings until their room on the page is used up."""

    def __init__(self) -> None:
        self.bytes_left = BUDGET_BYTES

    def figure(self, finding: Finding, title: str, caption: str) -> str:
        """The picture of a finding; nothing where there is none to show, or no room.

        Args:
            finding: what is shown.
            title: above the picture, as HTML.
            caption: below it, as plain text.
        """
        if finding.image is None:
            return ""
        try:
            pictures = [draw_finding(Path(finding.image), finding.box)]
            if finding.other is not None:
                pictures.append(draw_finding(Path(finding.other), None))
        except InputError:
            return ""  # that it cannot be read is the finding
        html = "".join(picture_tag(picture, caption) for picture in pictures)
        if len(html) > self.bytes_left:
            return ""
        self.bytes_left -= len(html)
        shown = f'<div class="two">{html}</div>' if len(pictures) > 1 else html
        return (
            f'<figure><figcaption class="title">{title}</figcaption>{shown}'
            f"<figcaption>{text(caption)}</figcaption></figure>\n"
        )


def draw_finding(path: Path, box: list[float] | None) -> Image.Image:
    """The picture at most `SIDE_PX` long with `box`, on a grey ground where the box leaves it.

    Args:
        path: the picture.
        box: xyxy px of the upright picture, or None.

    Raises:
        InputError: the picture cannot be read.
    """
    picture = load_image(path)
    if box is None:
        return _shrunk(picture)[0]
    left, top, right, bottom = _needed(box, picture.size)
    ground = Image.new("RGB", (right - left, bottom - top), MARGIN_GREY)
    ground.paste(picture, (-left, -top))
    shrunk, scale = _shrunk(ground)
    drawn = (np.array(box) - (left, top, left, top)) * scale
    middle, size = (drawn[:2] + drawn[2:]) / 2, np.maximum(drawn[2:] - drawn[:2], SMALLEST_BOX_PX)
    return draw_detections(shrunk, [[*(middle - size / 2), *(middle + size / 2)]], [""], labels=[WRONG])


def _needed(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What must be seen of the plane for picture and box, within reason: left, top, right, bottom px."""
    x0, y0, x1, y1 = box
    width, height = size
    beyond_x, beyond_y = int(width * MARGIN), int(height * MARGIN)
    left = int(np.clip(min(x0, x1), -beyond_x, 0))
    top = int(np.clip(min(y0, y1), -beyond_y, 0))
    right = int(np.clip(max(x0, x1), width, width + beyond_x))
    bottom = int(np.clip(max(y0, y1), height, height + beyond_y))
    return left, top, right, bottom


def _shrunk(picture: Image.Image) -> tuple[Image.Image, float]:
    """The picture and its scale; small ones are made larger, up to four times."""
    scale = min(SIDE_PX / max(picture.size), 4.0)
    return picture.resize([max(1, round(side * scale)) for side in picture.size]), scale

"""Images of findings: the box where it is, even beyond the edge, and repeated images side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from detect.data.checks.findings import Finding
from detect.data.images.decode import load_image
from detect.errors import InputError
from detect.evaluation.draw import draw_detections
from detect.report.album import WRONG, ImageBudget, ImageFigure, resized

SIDE_PX = 420
"""Longer side of an image on the page."""
MARGIN = 0.5
"""Most that is added beside an image for a box beyond its edge, in sides of the image."""
MARGIN_GREY = (128, 128, 128)
SMALLEST_BOX_PX = 14
"""Least side of a box on the page: one without area must be seen too."""


def finding_images(finding: Finding, caption: str, budget: ImageBudget) -> ImageFigure | None:
    """The image of a finding, with that of the other file where it is about two.

    Returns:
        None where there is nothing to show, or no room.
    """
    if finding.image is None:
        return None
    try:
        drawn = [draw_finding(Path(finding.image), finding.box)]
        if finding.other is not None:
            drawn.append(draw_finding(Path(finding.other), None))
    except InputError:
        return None  # that it cannot be read is the finding
    images = budget.encode((image, caption) for image in drawn)
    return None if images is None else ImageFigure(images, caption)


def draw_finding(path: Path, box: list[float] | None) -> Image.Image:
    """The image at most `SIDE_PX` long with `box`, on a grey ground where the box leaves it.

    Args:
        path: the image.
        box: xyxy px of the upright image, or None.

    Raises:
        InputError: the image cannot be read.
    """
    image = load_image(path)
    if box is None:
        return _fitted(image)[0]
    left, top, right, bottom = _needed(box, image.size)
    ground = Image.new("RGB", (right - left, bottom - top), MARGIN_GREY)
    ground.paste(image, (-left, -top))
    shrunk, scale = _fitted(ground)
    drawn = (np.array(box) - (left, top, left, top)) * scale
    middle, size = (drawn[:2] + drawn[2:]) / 2, np.maximum(drawn[2:] - drawn[:2], SMALLEST_BOX_PX)
    return draw_detections(shrunk, [[*(middle - size / 2), *(middle + size / 2)]], [""], labels=[WRONG])


def _needed(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What must be seen of the plane for image and box, within reason: left, top, right, bottom px."""
    x0, y0, x1, y1 = box
    width, height = size
    beyond_x, beyond_y = int(width * MARGIN), int(height * MARGIN)
    left = int(np.clip(min(x0, x1), -beyond_x, 0))
    top = int(np.clip(min(y0, y1), -beyond_y, 0))
    right = int(np.clip(max(x0, x1), width, width + beyond_x))
    bottom = int(np.clip(max(y0, y1), height, height + beyond_y))
    return left, top, right, bottom


def _fitted(image: Image.Image) -> tuple[Image.Image, float]:
    """The image and its scale; small ones are enlarged, up to four times."""
    return resized(image, min(SIDE_PX, 4 * max(image.size)))

"""Images for trials where no photograph is at hand: those of the built-in data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detect.data.synthetic.shapes import paint_scene

LONGER_SIDE_PX = 640


def generated_images(count: int) -> list[NDArray[np.uint8]]:
    """(h, w, 3) RGB images, the same ones each time."""
    scenes = (paint_scene(np.random.default_rng([6, i]), LONGER_SIDE_PX) for i in range(count))
    return [np.array(scene.image) for scene in scenes]

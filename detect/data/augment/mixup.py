"""MixUp: two images blended."""

from __future__ import annotations

import numpy as np

from detect.data.annotations import Annotations
from detect.data.augment.plan import Layout, Plan, single_image
from detect.data.augment.transforms import require_inner_range, require_share


class MixUp(Layout):
    """Two whole images in one, as a photograph exposed twice, with the boxes of both; name it first.

    Later steps change each of the two. Both count fully in the loss.

    Published as harmful below 1 M parameters: YOLOX switches it off for its smallest network
    (exps/default/yolox_nano.py).

    Args:
        probability: how often; other inputs show their image alone.
        weight: range of the weight of the image whose turn it is; the other has the rest.

    Source: "Bag of Freebies for Training Object Detection" (arXiv 1902.04103) section 3.1, which draws the
    weight from Beta(1.5, 1.5); a half each in YOLOX.
    """

    max_images = 2

    def __init__(self, probability: float = 0.5, weight: tuple[float, float] = (0.4, 0.6)) -> None:
        require_share(self, probability)
        require_inner_range(self, weight=weight)
        self.probability, self.weight = probability, weight

    def tiles(
        self, row: int, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        below = single_image(row, tuple(images.sizes[row].tolist()), image_size)
        if rng.random() >= self.probability:
            return below
        weight, other = rng.uniform(*self.weight), int(rng.integers(len(images.sizes)))
        (above,) = single_image(other, tuple(images.sizes[other].tolist()), image_size)
        return (*below, above._replace(opacity=1 - weight))

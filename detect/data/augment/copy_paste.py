"""Copy-paste: objects of other images on top of an image."""

from __future__ import annotations

import numpy as np

from detect.data.annotations import Annotations
from detect.data.augment.plan import Area, Layout, Plan, Tile, single_image
from detect.data.augment.transforms import require_share
from detect.data.augment.view import View
from detect.errors import InputError


class CopyPaste(Layout):
    """Rectangles with objects of other images, pasted at random places; name it first.

    There are no masks, so what is pasted is the box with some of what is around it. It has the size that the
    object has in its own image, times a factor. Later steps crop and zoom the image below; what is pasted
    they mirror and colour alone. An object of which more than half is covered loses its box.

    Args:
        probability: how often; other inputs show their image alone.
        objects: most that are pasted; one to so many.
        scale: range of the factor on the size of each.
        margin: most that is shown around a box on each side, as a share of its width and height.

    Source: "Simple Copy-Paste" (arXiv 2012.07177), which pastes by masks; rectangles as in "Cut, Paste and
    Learn" (arXiv 1708.01642) show edges that a detector may learn: try it against a run without.
    """

    def __init__(
        self,
        probability: float = 0.5,
        objects: int = 3,
        *,
        scale: tuple[float, float] = (0.5, 1.5),
        margin: float = 0.2,
    ) -> None:
        require_share(self, probability)
        if objects < 1:
            raise InputError(f"objects of a CopyPaste are 1 or more, got {objects}")
        if not 0 < scale[0] <= scale[1]:
            raise InputError(
                f"scale of a CopyPaste is a range above 0, the lower end first; got {scale[0]}, {scale[1]}"
            )
        if margin < 0:
            raise InputError(f"margin of a CopyPaste is 0 or more, got {margin}")
        self.probability, self.objects, self.scale, self.margin = probability, objects, scale, margin
        self.max_images = 1 + objects

    def tiles(
        self, row: int, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        below = single_image(row, tuple(images.sizes[row].tolist()), image_size)
        if rng.random() >= self.probability or not len(images.boxes):
            return below
        pasted = (self._paste(images, image_size, rng) for _ in range(rng.integers(self.objects) + 1))
        return (*below, *(tile for tile in pasted if tile is not None))

    def _paste(
        self, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Tile | None:
        """One object, drawn among all of the split; None for a region to ignore or less than a pixel."""
        box = int(rng.integers(len(images.boxes)))
        factor, margins, places = rng.uniform(*self.scale), rng.random(4), rng.random(2).tolist()
        if images.ignore[box]:
            return None
        row = int(np.searchsorted(images.offsets, box, side="right")) - 1
        limits = images.sizes[row, ::-1]  # width, height
        low, high = np.clip(images.boxes[box].reshape(2, 2), 0, limits)
        around = margins.reshape(2, 2) * self.margin * (high - low)
        low, high = np.maximum(low - around[0], 0), np.minimum(high + around[1], limits)
        whole = np.array(image_size[::-1])
        size = (high - low) * whole / limits  # px of the input where the image is alone
        if not (size > 0).all():
            return None
        pasted = np.minimum(np.rint(size * min(factor, *(whole / size))), whole).astype(int)
        if not pasted.all():
            return None
        (width, height), (x, y) = pasted.tolist(), (np.array(places) * (whole - pasted + 1)).astype(int)
        view = View(*low.tolist(), *high.tolist())
        return Tile(row, view, Area(int(x), int(y), int(x) + width, int(y) + height), fixed=True)

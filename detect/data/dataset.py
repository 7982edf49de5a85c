"""From a row of the annotations to a sample, and from samples to a `Batch`.

A sample is a pure function of (seed, epoch, row, copy): no state, so workers, ranks and restarts change
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from detect.data.annotations import Annotations
from detect.data.augment.plan import Plan, Tile, drop_hidden, layout_of, single_image, tile_boxes
from detect.data.augment.transforms import Augmentation
from detect.data.augment.view import FILL, blend, render, resize_pixels, snap_view
from detect.data.cache import PixelCache
from detect.data.images.decode import JPEG_SUFFIXES, choose_draft_scales, load_pixels
from detect.data.stall import InHand
from detect.errors import InputError
from detect.types import Batch, ResizeRule, Target

MIN_PADDED_BOXES = 8
LAYOUT_STREAM = 0x713E5
"""Sets a layout's random numbers apart from those of the steps after it, for the same sample."""


class SampleKey(NamedTuple):
    """What the sampler asks for."""

    epoch: int
    row: int
    """The image, a row of the annotations; a mosaic shows others beside it."""
    padded_boxes: int
    """Boxes of the batch after padding; the same on every rank."""
    copy: int = 0
    """Which showing of the image in this epoch, where it is repeated: each is augmented otherwise."""
    image_size: tuple[int, int] | None = None
    """(H, W) of the network input; None: the data set's."""


class ShownBoxes(NamedTuple):
    """Boxes in the input's frame, and which boxes of the annotations they are."""

    boxes: NDArray[np.float32]
    """(G', 4) xyxy px of the input."""
    kept: NDArray[np.bool_]
    """(G,), G' of them true; G boxes are in the images of the plan, or in what is pasted of them."""
    places: NDArray[np.int64]
    """(G,) places in the annotations' boxes, tile after tile."""


class Sample(NamedTuple):
    """One input as the network will see it, with G boxes."""

    image: NDArray[np.uint8] | NDArray[np.float32]
    """(H, W, 3) RGB."""
    boxes: NDArray[np.float32]
    """(G, 4) xyxy px of the input."""
    labels: NDArray[np.int64]
    """(G,) 1..K."""
    ignore: NDArray[np.bool_]
    """(G,) crowd and difficult boxes."""
    key: SampleKey
    orig_size: NDArray[np.int32]
    """(2,) height and width of the upright file of `key.row`."""


class DetectionDataset(Dataset[Sample]):
    """The images of one split as samples.

    Args:
        annotations: the split.
        image_size: (H, W) of the network input, where a key has none.
        largest_size: (H, W) of the largest input that a key has; None: `image_size`.
        augmentations: the steps of a plan, in order; None shows every image whole.
        weak_augmentations: the steps from the epoch `weak_from` on.
        weak_from: the first epoch, from 0, with `weak_augmentations`; None: there is none.
        seed: of the augmentations.
        resize_rule: how whole images are resized; a view that was augmented always is by "antialias".
        cache: decoded pixels of `annotations` at `draft_scales`.

    Raises:
        InputError: an augmentation that shows several images is not the first.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_size: tuple[int, int],
        *,
        largest_size: tuple[int, int] | None = None,
        augmentations: Sequence[Augmentation] | None = None,
        weak_augmentations: Sequence[Augmentation] = (),
        weak_from: int | None = None,
        seed: int = 0,
        resize_rule: ResizeRule = "antialias",
        cache: PixelCache | None = None,
    ) -> None:
        self.annotations = annotations
        self.image_size = image_size
        self.augmentations = augmentations
        self.weak_augmentations, self.weak_from = weak_augmentations, weak_from
        self._layouts = [
            layout
            for steps in (augmentations or [], weak_augmentations)
            if (layout := layout_of(steps)) is not None
        ]
        self.seed = seed
        self.resize_rule = resize_rule
        self.cache = cache
        self.in_hand: InHand | None = None
        """Where a loader looks when no batch comes."""
        drafted = largest_size or image_size
        self.draft_scales = draft_scales(annotations, drafted, training=augmentations is not None)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`.

        Raises:
            InputError: a file cannot be decoded, or has another size than when it was checked.
        """
        plan = self.plan(key)
        return self.show(plan, self.decode(plan), key)

    def decode(self, plan: Plan) -> dict[int, NDArray[np.uint8]]:
        """The `pixels` of each image of a plan, each decoded once."""
        decoded = {}
        for row in dict.fromkeys(tile.row for tile in plan):
            with nullcontext() if self.in_hand is None else self.in_hand.take(row):
                decoded[row] = self.pixels(row)
        return decoded

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """(h, w, 3) of the upright file at its draft scale, from the cache where it is there."""
        pixels = self.cache.get(row) if self.cache is not None else None
        if pixels is None:
            pixels = load_pixels(self.annotations.path(row), draft_scale=int(self.draft_scales[row]))
            if self.cache is not None:
                self.cache.put(row, pixels)
        return pixels

    def show(self, plan: Plan, decoded: Mapping[int, NDArray[np.uint8]], key: SampleKey) -> Sample:
        """What the network sees of `plan`, of which `decoded` has the `pixels` of each image."""
        shown = self._map(plan)
        places = shown.places[shown.kept]
        return Sample(
            image=self._image(plan, decoded, self._size_of(key)),
            boxes=shown.boxes,
            labels=self.annotations.labels[places],
            ignore=self.annotations.ignore[places],
            key=key,
            orig_size=self.annotations.sizes[key.row],
        )

    def boxes(self, key: SampleKey) -> ShownBoxes:
        """The boxes of `key` as the network sees them; no pixel is read."""
        return self._map(self.plan(key))

    def plan(self, key: SampleKey) -> Plan:
        """What `key` shows of which images, and where: all but the pixels."""
        plan, steps = self.layout(key), self.steps(key.epoch)
        if steps is None:
            return plan
        rng = np.random.default_rng((self.seed, key.epoch, key.row, key.copy))
        return tuple(self._augmented(tile, steps, rng) for tile in plan)

    def steps(self, epoch: int) -> Sequence[Augmentation] | None:
        """The augmentations of an epoch, from 0; None shows every image whole."""
        is_weak = self.weak_from is not None and epoch >= self.weak_from
        return self.weak_augmentations if is_weak else self.augmentations

    def layout(self, key: SampleKey) -> Plan:
        """Which images `key` shows and where, before each of them is augmented."""
        layout, image_size = layout_of(self.steps(key.epoch) or []), self._size_of(key)
        if layout is None:
            return single_image(key.row, self._orig_size(key.row), image_size)
        rng = np.random.default_rng((self.seed, key.epoch, key.row, key.copy, LAYOUT_STREAM))
        return layout.tiles(key.row, self.annotations, image_size, rng)

    @property
    def shows_several(self) -> bool:
        """Whether a sample may show several images."""
        return bool(self._layouts)

    def count_boxes(self, key: SampleKey) -> int:
        """Boxes of all that `key` shows of its images: the sample has no more."""
        return sum(self._most_of(tile) for tile in self.layout(key))

    def _most_of(self, tile: Tile) -> int:
        """Boxes of a tile's image; where its rectangle is fixed those that it meets."""
        rows = self.annotations.rows(tile.row)
        if not tile.fixed:
            return rows.stop - rows.start
        reach = int(self.draft_scales[tile.row])  # `snap_view` moves an edge by less
        boxes, view = self.annotations.boxes[rows], tile.view
        along_x = (boxes[:, 0] < view.x1 + reach) & (boxes[:, 2] > view.x0 - reach)
        along_y = (boxes[:, 1] < view.y1 + reach) & (boxes[:, 3] > view.y0 - reach)
        return int((along_x & along_y).sum())

    @property
    def most_boxes(self) -> int:
        """No sample has more boxes."""
        images = max((layout.max_images for layout in self._layouts), default=1)
        return images * int(np.diff(self.annotations.offsets).max(initial=0))

    def _size_of(self, key: SampleKey) -> tuple[int, int]:
        """(H, W) of the input."""
        return key.image_size or self.image_size

    def _augmented(self, tile: Tile, steps: Sequence[Augmentation], rng: np.random.Generator) -> Tile:
        objects = self._boxes(tile.row)[~self.annotations.ignore[self.annotations.rows(tile.row)]]
        view = tile.view
        for augment in steps:
            view = augment(view, objects, rng)
        grid_px = int(self.draft_scales[tile.row])
        if tile.fixed:
            seen = tile.view
            view = replace(view, x0=seen.x0, y0=seen.y0, x1=seen.x1, y1=seen.y1)
        view = snap_view(view, self._orig_size(tile.row), tile.area.size, grid_px=grid_px)
        return tile._replace(view=view)

    def _boxes(self, row: int) -> NDArray[np.float64]:
        """(G, 4) xyxy px of the file, cut to the image: what overhangs it cannot be seen."""
        height, width = self._orig_size(row)
        return np.clip(self.annotations.boxes[self.annotations.rows(row)], 0, (width, height, width, height))

    def _map(self, plan: Plan) -> ShownBoxes:
        shown = []
        for place, tile in enumerate(plan, 1):
            of_image = self.annotations.rows(tile.row)
            places = np.arange(of_image.start, of_image.stop)
            mapped = tile_boxes(self._boxes(tile.row), tile, ignore=self.annotations.ignore[of_image])
            if tile.fixed:  # the rest of its image was never to be seen
                places, mapped = places[mapped.kept], mapped._replace(kept=mapped.kept[mapped.kept])
            later = [one.area for one in plan[place:] if one.opacity == 1 and one.area.meets(tile.area)]
            mapped = drop_hidden(mapped, later, ignore=self.annotations.ignore[places])
            shown.append((*mapped, places))
        return ShownBoxes(*map(np.concatenate, zip(*shown, strict=True)))

    def _orig_size(self, row: int) -> tuple[int, int]:
        height, width = self.annotations.sizes[row].tolist()
        return height, width

    def _image(
        self, plan: Plan, decoded: Mapping[int, NDArray[np.uint8]], image_size: tuple[int, int]
    ) -> NDArray[np.uint8] | NDArray[np.float32]:
        scales = {row: self._file_scale(pixels, row) for row, pixels in decoded.items()}
        if self.augmentations is None:
            return resize_pixels(decoded[plan[0].row], image_size, self.resize_rule)
        parts = [
            render(decoded[tile.row], tile.view, tile.area.size, file_scale=scales[tile.row]) for tile in plan
        ]
        if len(parts) == 1 and parts[0].shape[:2] == image_size:
            return parts[0]
        image = np.empty((*image_size, 3), dtype=np.uint8)
        image[:] = FILL
        for part, tile in zip(parts, plan, strict=True):
            x0, y0, x1, y1 = tile.area
            below = image[y0:y1, x0:x1]
            below[:] = part if tile.opacity == 1 else blend(below, part, tile.opacity)
        return image

    def _file_scale(self, pixels: NDArray[np.uint8], row: int) -> int:
        """Px of the file per px of `pixels`: what is named JPEG and is something else has no draft."""
        height, width = self._orig_size(row)
        for scale in (int(self.draft_scales[row]), 1):
            if pixels.shape[:2] == (-(-height // scale), -(-width // scale)):
                return scale
        raise InputError(
            f"{self.annotations.path(row)} is {pixels.shape[1]} x {pixels.shape[0]} px, {width} x {height} "
            f"when the data set was checked; touch {self.annotations.source} to have all checked anew"
        )


def draft_scales(
    annotations: Annotations, image_size: tuple[int, int], *, training: bool
) -> NDArray[np.int64]:
    """(N,) the reduction at which each file is decoded: large JPEGs, and only for training."""
    if not training:
        return np.ones(len(annotations), dtype=np.int64)
    lowered = np.char.lower(annotations.file_names)
    is_jpeg = np.logical_or.reduce([np.char.endswith(lowered, suffix.encode()) for suffix in JPEG_SUFFIXES])
    return np.where(is_jpeg, choose_draft_scales(annotations.sizes, image_size), 1)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples, boxes padded with zero rows to the `padded_boxes` of their key.

    Images are stacked as they lie in memory, (B, H, W, 3), and seen as (B, 3, H, W): the layout that torch
    calls channels_last. In a worker they are written straight into the memory that the trainer reads.
    """
    count, padded = len(samples), samples[0].key.padded_boxes
    boxes = np.zeros((count, padded, 4), dtype=np.float32)
    labels = np.zeros((count, padded), dtype=np.int64)
    ignore = np.zeros((count, padded), dtype=np.bool_)
    for row, sample in enumerate(samples):
        objects = len(sample.boxes)
        boxes[row, :objects] = sample.boxes
        labels[row, :objects] = sample.labels
        ignore[row, :objects] = sample.ignore
    return Batch(
        images=default_collate([sample.image for sample in samples]).permute(0, 3, 1, 2),
        target=Target(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(ignore)),
        sample_idx=torch.tensor([sample.key.row for sample in samples], dtype=torch.int64),
        orig_size=torch.from_numpy(np.stack([sample.orig_size for sample in samples]).astype(np.int64)),
    )


def padded_box_count(most_boxes: int) -> int:
    """The smallest of 8, 16, 32, ... that holds `most_boxes`: few shapes, so that little is compiled."""
    padded = MIN_PADDED_BOXES
    while padded < most_boxes:
        padded *= 2
    return padded

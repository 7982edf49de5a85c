"""From a row of the annotations to a sample, and from samples to a `Batch`.

A sample is a pure function of (seed, epoch, row, copy): no state, so workers, ranks and restarts change
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from detect.data.annotations import Annotations
from detect.data.augment.transforms import Augmentation
from detect.data.augment.view import (
    MappedBoxes,
    ResizeRule,
    View,
    boxes_to_input,
    render,
    resize_pixels,
    snap_view,
)
from detect.data.cache import PixelCache
from detect.data.images.decode import JPEG_SUFFIXES, choose_draft_scales, load_pixels
from detect.data.stall import InHand
from detect.errors import InputError
from detect.types import Batch, Target

MIN_PADDED_BOXES = 8


class SampleKey(NamedTuple):
    """What the sampler asks for."""

    epoch: int
    row: int
    """Of the annotations: which image."""
    padded_boxes: int
    """Boxes of the batch after padding; the same on every rank."""
    copy: int = 0
    """Which showing of the image in this epoch, where it is repeated: each is augmented otherwise."""


class Sample(NamedTuple):
    """One image as the network will see it, with G boxes."""

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
    """(2,) height and width of the upright file."""


class DetectionDataset(Dataset[Sample]):
    """The images of one split as samples.

    Args:
        annotations: the split.
        image_size: (H, W) of the network input.
        augmentations: the plan, in order; None shows every image whole.
        seed: of the augmentations.
        resize_rule: how whole images are resized; a view that was augmented always is by "antialias".
        cache: decoded pixels of `annotations` at `draft_scales`.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_size: tuple[int, int],
        *,
        augmentations: Sequence[Augmentation] | None = None,
        seed: int = 0,
        resize_rule: ResizeRule = "antialias",
        cache: PixelCache | None = None,
    ) -> None:
        self.annotations = annotations
        self.image_size = image_size
        self.augmentations = augmentations
        self.seed = seed
        self.resize_rule = resize_rule
        self.cache = cache
        self.in_hand: InHand | None = None
        """Where a loader looks when no batch comes."""
        self.draft_scales = draft_scales(annotations, image_size, training=augmentations is not None)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`.

        Raises:
            InputError: the file cannot be decoded, or has another size than when it was checked.
        """
        if self.in_hand is None:
            return self.show(self.pixels(key.row), key)
        with self.in_hand.take(key.row):
            return self.show(self.pixels(key.row), key)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """(h, w, 3) of the upright file at its draft scale, from the cache where it is there."""
        pixels = self.cache.get(row) if self.cache is not None else None
        if pixels is None:
            pixels = load_pixels(self.annotations.path(row), draft_scale=int(self.draft_scales[row]))
            if self.cache is not None:
                self.cache.put(row, pixels)
        return pixels

    def show(self, pixels: NDArray[np.uint8], key: SampleKey) -> Sample:
        """What the network sees of `pixels` of image `key.row`."""
        annotations, rows = self.annotations, self.annotations.rows(key.row)
        view = self.view(key)
        mapped = self._map(key.row, view)
        return Sample(
            image=self._image(pixels, view, key.row),
            boxes=mapped.boxes,
            labels=annotations.labels[rows][mapped.kept],
            ignore=annotations.ignore[rows][mapped.kept],
            key=key,
            orig_size=annotations.sizes[key.row],
        )

    def boxes(self, key: SampleKey) -> MappedBoxes:
        """The boxes of `key` as the network sees them; no pixel is read."""
        return self._map(key.row, self.view(key))

    def view(self, key: SampleKey) -> View:
        """What `key` shows of its image: the plan without its pixels."""
        orig_size = self._orig_size(key.row)
        view = View.whole(orig_size)
        if self.augmentations is None:
            return view
        rows = self.annotations.rows(key.row)
        objects = self._boxes(key.row)[~self.annotations.ignore[rows]]
        rng = np.random.default_rng((self.seed, key.epoch, key.row, key.copy))
        for augment in self.augmentations:
            view = augment(view, objects, rng)
        return snap_view(view, orig_size, self.image_size, grid_px=int(self.draft_scales[key.row]))

    def _boxes(self, row: int) -> NDArray[np.float64]:
        """(G, 4) xyxy px of the file, cut to the image: what overhangs it cannot be seen."""
        height, width = self._orig_size(row)
        return np.clip(self.annotations.boxes[self.annotations.rows(row)], 0, (width, height, width, height))

    def _map(self, row: int, view: View) -> MappedBoxes:
        ignore = self.annotations.ignore[self.annotations.rows(row)]
        return boxes_to_input(self._boxes(row), view, self.image_size, ignore=ignore)

    def _orig_size(self, row: int) -> tuple[int, int]:
        height, width = self.annotations.sizes[row].tolist()
        return height, width

    def _image(
        self, pixels: NDArray[np.uint8], view: View, row: int
    ) -> NDArray[np.uint8] | NDArray[np.float32]:
        file_scale = self._file_scale(pixels, row)
        if self.augmentations is None:
            return resize_pixels(pixels, self.image_size, self.resize_rule)
        return render(pixels, view, self.image_size, file_scale=file_scale)

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

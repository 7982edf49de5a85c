"""Samples whose tiles lie on each other: pasted objects, and two images blended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detect.data.annotations import Annotations
from detect.data.augment import (
    Augmentation,
    CopyPaste,
    Layout,
    MixUp,
    PhotometricDistort,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    RandomZoomOut,
    default_augmentations,
)
from detect.data.augment.view import blend, render
from detect.data.cache import PixelCache
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.sampler import TrainLoader
from detect.data.splits import open_split
from tests.conftest import make_coco
from tests.data.loader_cases import loader_of, same_on_workers_and_ranks
from tests.data_sets import coco_file, make_coco_split

SIZE = (96, 128)
KEYS = [SampleKey(epoch, row, 64) for epoch in range(4) for row in range(6)]
LAYOUTS = [CopyPaste(1.0), MixUp(1.0)]
COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]], dtype=np.uint8)
"""Of the labels 1, 2 and 3, on black."""


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return open_split(make_coco(tmp_path / "coco", train=6), role="train").annotations


@pytest.fixture
def coloured(tmp_path: Path) -> Annotations:
    """Six images, each with a rectangle of the colour of its class, at any place."""
    rng = np.random.default_rng(1)
    names = [(f"{i}.png", 160, 120) for i in range(1, 7)]
    boxes = [(i, 1 + i % 3, [*rng.integers(5, 70, 2).tolist(), 60, 45]) for i in range(1, 7)]
    root = make_coco_split(tmp_path / "coloured", coco_file(names, boxes, {1: "red", 2: "green", 3: "blue"}))
    for (name, width, height), (_, label, (x, y, w, h)) in zip(names, boxes, strict=True):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[y : y + h, x : x + w] = COLOURS[label - 1]
        Image.fromarray(pixels).save(root / "train" / name)
    return open_split(root, role="train").annotations


def of(annotations: Annotations, *steps: Augmentation, **settings: Any) -> DetectionDataset:
    return DetectionDataset(annotations, SIZE, augmentations=[*steps], seed=5, **settings)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_sample__is_a_pure_function__with_and_without_a_cache(
    annotations: Annotations, layout: Layout
) -> None:
    plain, cached = (of(annotations, layout, *default_augmentations()) for _ in range(2))
    cached.cache = PixelCache(annotations, cached.draft_scales, place="disk", limit_gb=1)
    expected = [plain[key] for key in KEYS]
    again = [plain[key] for key in reversed(KEYS)][::-1]
    for samples in (again, [cached[key] for key in KEYS], [cached[key] for key in KEYS]):
        for sample, other in zip(samples, expected, strict=True):
            for ours, theirs in zip(sample, other, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert len({plain.plan(key) for key in KEYS}) == len(KEYS)


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_loader__workers_and_ranks_change_nothing(annotations: Annotations, layout: Layout) -> None:
    def loader(**how: int) -> TrainLoader:
        return loader_of(of(annotations, layout, *default_augmentations()), **how)

    assert same_on_workers_and_ranks(loader, epochs=2)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_count_boxes__no_sample_has_more(annotations: Annotations, layout: Layout) -> None:
    dataset = of(annotations, layout, *default_augmentations())
    counts = np.diff(annotations.offsets)
    for key in KEYS:
        most = sum(counts[tile.row] for tile in dataset.layout(key))
        assert len(dataset.boxes(key).boxes) <= dataset.count_boxes(key) <= most <= dataset.most_boxes


def test_count_boxes__of_what_is_pasted__those_that_it_meets(tmp_path: Path) -> None:
    """Of a hundred boxes side by side a pasted one brings its neighbours alone."""
    boxes = [(1, 3, [10 * (i % 10), 10 * (i // 10), 8, 8]) for i in range(100)]
    root = make_coco_split(tmp_path / "many", coco_file([("1.jpg", 100, 100)], boxes, {3: "thing"}))
    dataset = of(open_split(root, role="train").annotations, CopyPaste(1.0), RandomZoomOut(2.0, 1.0))
    for epoch in range(20):
        key = SampleKey(epoch, 0, 128)
        pasted = dataset.layout(key)[1:]
        assert 100 + len(pasted) <= dataset.count_boxes(key) <= 100 + 9 * len(pasted)
        assert len(dataset.boxes(key).boxes) <= dataset.count_boxes(key)


def test_copy_paste__boxes_lie_on_their_colours(coloured: Annotations) -> None:
    """Objects lie where their boxes are, of the same class; what is over them is framed as well."""
    black = RandomZoomOut(2.0, fill=(0, 0, 0))
    dataset = of(coloured, CopyPaste(1.0), black, RandomHorizontalFlip(), RandomVerticalFlip())
    several = 0
    for key in KEYS:
        sample, plan = dataset[key], dataset.plan(key)
        framed = np.zeros(SIZE, dtype=np.bool_)
        colour_at = np.full(SIZE, -1)
        tiles = np.arange(len(plan))  # one box in each image
        shown = dataset.boxes(key)
        for box, label, place in zip(sample.boxes, sample.labels, tiles[shown.kept], strict=True):
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            visible = np.zeros(SIZE, dtype=np.bool_)
            visible[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
            for later in plan[place + 1 :]:
                visible[later.area.y0 : later.area.y1, later.area.x0 : later.area.x1] = False
            colour_at[visible] = label - 1
            framed[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = True
        known = colour_at >= 0
        off = np.abs(sample.image[known].astype(int) - COLOURS[colour_at[known]]).max(initial=0)
        assert off <= 8
        several += len(sample.boxes) > 1
        hidden = [tile for tile, kept in zip(plan, shown.kept, strict=True) if not kept]
        if not hidden:
            assert (sample.image[~framed] <= 8).all()
    assert several > 10


def test_copy_paste__what_is_hidden_has_no_box(coloured: Annotations) -> None:
    dataset = of(coloured, CopyPaste(1.0, 8, scale=(1.5, 2.0)))
    dropped = 0
    for key in KEYS:
        plan, shown = dataset.plan(key), dataset.boxes(key)
        mask = np.zeros(SIZE, dtype=np.bool_)
        for tile, kept in list(zip(plan, shown.kept, strict=True))[::-1]:
            alone = of(coloured).show((tile,), dataset.decode(plan), key)
            ((x0, y0, x1, y1),) = alone.boxes.round().astype(int).tolist()
            share = mask[y0:y1, x0:x1].mean()
            assert kept == (share <= 0.5) or abs(share - 0.5) < 0.05  # boxes were rounded
            mask[tile.area.y0 : tile.area.y1, tile.area.x0 : tile.area.x1] = True
            dropped += not kept
    assert dropped > 10


def test_boxes__of_what_is_pasted__those_of_its_rectangle_alone(annotations: Annotations) -> None:
    """What the pasted rectangles leave out of their images is no box that augmentation has lost."""
    dataset = of(annotations, CopyPaste(1.0, 1, margin=0.0))
    for key in KEYS:
        shown, own = dataset.boxes(key), annotations.rows(key.row)
        assert shown.places[: own.stop - own.start].tolist() == list(range(own.start, own.stop))
        assert shown.kept[own.stop - own.start :].all()
        assert len(shown.places) - (own.stop - own.start) >= len(dataset.plan(key)) - 1


def test_copy_paste__later_steps_zoom_the_image_below_and_colour_both(annotations: Annotations) -> None:
    dark = PhotometricDistort((0.5, 0.5), (1, 1), saturation=(1, 1), hue=(0, 0), probability=1)
    bare, full = (
        of(annotations, CopyPaste(1.0)),
        of(annotations, CopyPaste(1.0), RandomZoomOut(2.0, 1.0), dark),
    )
    for key in KEYS:
        for before, after in zip(bare.plan(key), full.plan(key), strict=True):
            assert (before.view.width < after.view.width) != before.fixed
            assert (before.area, before.row) == (after.area, after.row)
            assert after.view.colour != before.view.colour


def test_mixup__each_value_is_between_those_of_the_two_images(coloured: Annotations) -> None:
    dataset = of(coloured, MixUp(1.0), RandomHorizontalFlip())
    for key in KEYS:
        sample, plan = dataset[key], dataset.plan(key)
        below, above = (render(dataset.pixels(tile.row), tile.view, SIZE).astype(float) for tile in plan)
        weight = plan[1].opacity
        expected = (1 - weight) * below + weight * above
        assert np.abs(sample.image - expected).max() <= 0.5 + 1e-3
        assert len(sample.boxes) == 2  # nothing is hidden
        np.testing.assert_array_equal(
            sample.labels, [coloured.labels[coloured.rows(tile.row)][0] for tile in plan]
        )
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            channel = sample.image[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1, label - 1]
            assert (channel >= 0.4 * 230 - 1).all()


def test_blend__to_the_nearest_value() -> None:
    below, above = np.array([[[0, 100, 255]]], dtype=np.uint8), np.array([[[255, 101, 0]]], dtype=np.uint8)
    assert blend(below, above, 0.25).tolist() == [[[64, 100, 191]]]  # 63.75, 100.25, 191.25
    assert blend(below, above, 0.0).tolist() == below.tolist()
    assert blend(below, above, 1.0).tolist() == above.tolist()

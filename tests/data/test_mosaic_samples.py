"""Samples of several images: from the plan to pixels, boxes and batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.annotations import Annotations
from detect.data.augment import (
    Augmentation,
    Layout,
    Mosaic,
    PhotometricDistort,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomVerticalFlip,
    RandomZoomOut,
    default_augmentations,
)
from detect.data.augment.plan import Area, Plan, Tile
from detect.data.augment.view import FILL, View, render
from detect.data.cache import PixelCache
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, Sample, SampleKey, collate
from detect.data.profile import profile_dataset
from detect.data.sampler import TrainLoader
from detect.data.splits import open_split
from detect.errors import InputError
from tests.conftest import make_coco
from tests.data.loader_cases import loader_of, same_on_workers_and_ranks
from tests.data_sets import coco_file, make_coco_split

SIZE = (64, 80)
KEYS = [SampleKey(epoch, row, 32) for epoch in range(3) for row in range(6)]


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return open_split(make_coco(tmp_path / "coco", train=6), role="train").annotations


def mosaics(annotations: Annotations, *steps: Augmentation, probability: float = 1.0) -> DetectionDataset:
    return DetectionDataset(annotations, SIZE, augmentations=[Mosaic(probability), *steps], seed=5)


def assert_same(sample: Sample, other: Sample) -> None:
    for ours, theirs in zip(sample, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_plan__is_a_pure_function_of_seed_epoch_and_row(annotations: Annotations) -> None:
    forwards = [mosaics(annotations, *default_augmentations())[key] for key in KEYS]
    dataset = mosaics(annotations, *default_augmentations())
    backwards = [dataset[key] for key in reversed(KEYS)][::-1]
    for sample, other in zip(forwards, backwards, strict=True):
        assert_same(sample, other)
    repeats = [SampleKey(epoch, row, 32, copy) for epoch, row, *_ in KEYS for copy in (0, 1)]
    others = DetectionDataset(annotations, SIZE, augmentations=dataset.augmentations, seed=6)
    for plans in (
        {one.plan(key) for one in (dataset, others) for key in repeats},
        {one.layout(key) for one in (dataset, others) for key in repeats},
    ):
        assert len(plans) == 2 * len(repeats)  # seed, epoch, row and copy all matter


def test_layout__has_random_numbers_of_its_own(annotations: Annotations) -> None:
    drawn: list[float] = []

    def spy(view: View, boxes: np.ndarray, rng: np.random.Generator) -> View:
        drawn.append(rng.random())
        return view

    dataset = mosaics(annotations, spy)
    dataset.plan(SampleKey(2, 3, 8))
    steps = np.random.default_rng((5, 2, 3))  # as without a layout
    assert drawn == steps.random(4).tolist()
    same = Mosaic(1.0).tiles(3, annotations, SIZE, np.random.default_rng((5, 2, 3)))
    assert dataset.layout(SampleKey(2, 3, 8)) != same


def test_plan__the_images_and_places_do_not_depend_on_later_steps(annotations: Annotations) -> None:
    bare, full = mosaics(annotations), mosaics(annotations, *default_augmentations())
    for key in KEYS:
        expected = [(tile.row, tile.area) for tile in bare.plan(key)]
        assert [(tile.row, tile.area) for tile in full.plan(key)] == expected
        assert [(tile.row, tile.area) for tile in full.layout(key)] == expected


def test_plan__without_a_mosaic_in_it__is_that_of_the_image_alone(annotations: Annotations) -> None:
    alone = DetectionDataset(annotations, SIZE, augmentations=default_augmentations(), seed=5)
    some = mosaics(annotations, *default_augmentations(), probability=0.5)
    single = [key for key in KEYS if len(some.plan(key)) == 1]
    assert 0 < len(single) < len(KEYS)
    for key in single:
        assert some.plan(key) == alone.plan(key)
        assert_same(some[key], alone[key])


def test_sample__each_tile_shows_its_image_as_alone(annotations: Annotations) -> None:
    steps = [
        PhotometricDistort(probability=1.0),
        RandomIoUCrop(),
        RandomHorizontalFlip(),
        RandomVerticalFlip(),
    ]
    dataset = mosaics(annotations, *steps)
    for key in KEYS:
        image = dataset[key].image
        for row, view, area, *_ in dataset.plan(key):
            part = render(dataset.pixels(row), view, area.size)
            np.testing.assert_array_equal(image[area.y0 : area.y1, area.x0 : area.x1], part)


def test_sample__flips_and_colours_apply_within_each_tile(annotations: Annotations) -> None:
    plain, flipped = mosaics(annotations), mosaics(annotations, RandomHorizontalFlip(1.0))
    dark = mosaics(
        annotations, PhotometricDistort((0.5, 0.5), (1, 1), saturation=(1, 1), hue=(0, 0), probability=1)
    )
    for key in KEYS:
        image = plain[key].image
        for tile in plain.plan(key):
            place = np.s_[tile.area.y0 : tile.area.y1, tile.area.x0 : tile.area.x1]
            np.testing.assert_array_equal(flipped[key].image[place], image[place][:, ::-1])
        assert np.abs(dark[key].image.astype(int) - image / 2).max() <= 1
        np.testing.assert_array_equal(dark[key].boxes, plain[key].boxes)
        areas = [
            (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1) for sample in (flipped[key], plain[key])
        ]
        assert areas[0] == pytest.approx(areas[1], rel=1e-4)


def test_sample__boxes_lie_on_their_pixels(tmp_path: Path) -> None:
    """Images of one white rectangle each: every box of a mosaic frames white, and all white is framed."""
    rng = np.random.default_rng(0)
    objects, rectangles = [], []
    for image in range(1, 6):
        x, y = rng.integers(10, 70, 2).tolist()
        rectangles.append((x, y, x + 60, y + 45))
        objects.append((image, 3, [x, y, 60, 45]))
    names = [(f"{i}.png", 160, 120) for i in range(1, 6)]
    root = make_coco_split(tmp_path / "coco", coco_file(names, objects, {3: "white"}))
    for (name, width, height), (x0, y0, x1, y1) in zip(names, rectangles, strict=True):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[y0:y1, x0:x1] = 255
        Image.fromarray(pixels).save(root / "train" / name)
    annotations = open_split(root, role="train").annotations
    # A region to ignore is kept wherever 1 px of it is seen.
    ignored = replace(annotations, ignore=np.ones(len(annotations.boxes), dtype=np.bool_))
    dataset = mosaics(ignored, RandomZoomOut(2.0, fill=(0, 0, 0)), RandomHorizontalFlip())
    for key in KEYS[:5] + KEYS[6:11]:
        sample, framed = dataset[key], np.zeros(SIZE, dtype=np.bool_)
        bright = sample.image[:, :, 0] > 127
        for x0, y0, x1, y1 in sample.boxes.round().astype(int).tolist():
            assert bright[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].all()
            framed[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = True
        loose = bright & ~framed  # a line of 1 px may be left of what was too narrow for a box
        assert not (loose[1:, 1:] & loose[:-1, 1:] & loose[1:, :-1] & loose[:-1, :-1]).any()


def test_sample__boxes_carry_the_labels_of_their_images(annotations: Annotations) -> None:
    dataset = mosaics(annotations, RandomIoUCrop())
    for key in KEYS:
        sample, shown = dataset[key], dataset.boxes(key)
        np.testing.assert_array_equal(sample.labels, annotations.labels[shown.places[shown.kept]])
        of_images = [
            np.arange(len(annotations.boxes))[annotations.rows(tile.row)] for tile in dataset.plan(key)
        ]
        np.testing.assert_array_equal(shown.places, np.concatenate(of_images))
        inside = np.zeros(len(sample.boxes), dtype=np.bool_)
        for tile in dataset.plan(key):
            inside |= (sample.boxes >= (tile.area[:2] * 2)).all(axis=1) & (
                sample.boxes <= (tile.area[2:] * 2)
            ).all(axis=1)
        assert inside.all()  # no box reaches over the edge of a tile


def test_sample__cache_on_and_off__same_pixels_and_one_decode_of_each_image(
    annotations: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cached = (mosaics(annotations, *default_augmentations()) for _ in range(2))
    cached.cache = PixelCache(annotations, cached.draft_scales, place="disk", limit_gb=1)
    expected = [plain[key] for key in KEYS]
    for _ in range(2):  # filling it, then reading it
        for key, sample in zip(KEYS, expected, strict=True):
            assert_same(cached[key], sample)
    twice = next(key for key in KEYS if len({tile.row for tile in plain.plan(key)}) < 4)
    asked: list[int] = []
    own = DetectionDataset.pixels

    def spy(self: DetectionDataset, row: int) -> np.ndarray:
        asked.append(row)
        return own(self, row)

    monkeypatch.setattr(DetectionDataset, "pixels", spy)
    plain[twice]
    assert len(asked) == len(set(asked)) == len({tile.row for tile in plain.plan(twice)})


class Corner(Layout):
    """The image, and itself again in a corner; most of the input stays empty."""

    max_images = 2

    def tiles(
        self, row: int, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        view = View.whole(tuple(images.sizes[row].tolist()))
        return Tile(row, view, Area(0, 0, 20, 16)), Tile(row, view, Area(40, 32, 60, 48))


def test_sample__layout_of_ones_own__leaves_fill_where_no_tile_is(annotations: Annotations) -> None:
    dataset = DetectionDataset(annotations, SIZE, augmentations=[Corner()])
    sample = dataset[SampleKey(0, 0, 8)]
    assert (sample.image[16:32] == FILL).all()
    np.testing.assert_array_equal(sample.image[:16, :20], sample.image[32:48, 40:60])
    half = len(sample.boxes) // 2
    np.testing.assert_allclose(sample.boxes[half:] - sample.boxes[:half], np.tile([40, 32], (half, 2)))


# Batches


@pytest.fixture
def crowded(tmp_path: Path) -> Annotations:
    """Of eight images each even one has 7 boxes: a batch pads one to 8, four of them need 28."""
    names = [(f"{i}.jpg", 160, 120) for i in range(1, 9)]
    boxes = [(i, 3, [20 * x, 40, 18, 18]) for i in range(1, 9, 2) for x in range(7)]
    root = make_coco_split(tmp_path / "crowded", coco_file(names, boxes, {3: "thing"}))
    return open_split(root, role="train").annotations


def test_sampler__pads_for_all_images_of_a_plan(crowded: Annotations) -> None:
    dataset = DetectionDataset(crowded, SIZE, augmentations=[Mosaic(1.0)], seed=5)
    loader, paddings = loader_of(dataset), set()
    for epoch in range(12):
        loader.batch_sampler.set_epoch(epoch)
        for keys in loader.batch_sampler:
            (padded,) = {key.padded_boxes for key in keys}
            rows = [[tile.row for tile in dataset.plan(key)] for key in keys]
            most = max(sum(7 if row % 2 == 0 else 0 for row in of_key) for of_key in rows)
            assert padded >= most
            assert padded == 8 or padded // 2 < most
            assert most == max(dataset.count_boxes(key) for key in keys) <= dataset.most_boxes == 28
            paddings.add(padded)
            kept = [len(dataset.boxes(key).boxes) for key in keys]
            assert (collate([dataset[key] for key in keys]).target.labels > 0).sum() == sum(kept)
    assert paddings >= {16, 32}  # more than any image has


def test_collate__more_boxes_than_the_padding__never_truncated(crowded: Annotations) -> None:
    dataset = DetectionDataset(crowded, SIZE, augmentations=[Mosaic(1.0)], seed=5)
    keys = [SampleKey(epoch, row, 8) for epoch in range(9) for row in range(8)]
    full = next(key for key in keys if len(dataset.boxes(key).boxes) > 8)
    with pytest.raises(ValueError, match="broadcast"):
        collate([dataset[full]])


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_loader__workers_and_ranks_change_nothing(annotations: Annotations) -> None:
    def loader(**how: int) -> TrainLoader:
        return loader_of(mosaics(annotations, *default_augmentations()), **how)

    assert same_on_workers_and_ranks(loader, epochs=3)


def test_data_module__mosaic_by_setting__every_batch_fits(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=9)
    settings = {"total_batch_size": 4, "workers": 0, "image_size": SIZE}
    data = DetectionData(root, augmentations=[Mosaic(1.0), *default_augmentations()], **settings)  # type: ignore[arg-type]
    data.setup("fit")
    loader = data.train_dataloader()
    assert loader.batch_sampler.count_boxes == loader.dataset.count_boxes
    assert loader.batch_sampler.of_rank(0).count_boxes == loader.dataset.count_boxes
    assert len(list(loader)) == 2
    plain = DetectionData(root, **settings)  # type: ignore[arg-type]
    plain.setup("fit")
    assert plain.train_dataloader().batch_sampler.count_boxes is None  # no plan is made to count boxes


def test_data_module__mosaic_behind_another_step__refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"data\.augmentations: Mosaic shows several images at once"):
        DetectionData(augmentations=[RandomHorizontalFlip(), Mosaic()])


def test_profile__mosaics_are_timed_too(crowded: Annotations) -> None:
    dataset = DetectionDataset(crowded, SIZE, augmentations=[Mosaic(1.0)], seed=5)
    measured = profile_dataset(dataset, 4, images=16)
    assert measured.images == 16
    assert measured.decode_ms > 0

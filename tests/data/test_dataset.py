from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detect.data.annotations import Annotations
from detect.data.augment.transforms import default_augmentations
from detect.data.augment.view import View, render
from detect.data.dataset import DetectionDataset, Sample, SampleKey, collate, draft_scales
from detect.data.images.decode import load_pixels
from detect.data.splits import open_split
from detect.errors import InputError
from tests.conftest import make_coco


@pytest.fixture
def annotations(coco_root: Path) -> Annotations:
    return open_split(coco_root, role="train").annotations


def assert_same(sample: Sample, other: Sample) -> None:
    for ours, theirs in zip(sample, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sample__is_a_pure_function_of_seed_epoch_and_row(annotations: Annotations) -> None:
    def dataset(seed: int) -> DetectionDataset:
        return DetectionDataset(annotations, (32, 40), augmentations=default_augmentations(), seed=seed)

    keys = [SampleKey(epoch, row, 8) for epoch in (0, 1) for row in range(4)]
    forwards = [dataset(5)[key] for key in keys]
    one_dataset = dataset(5)
    backwards = [one_dataset[key] for key in reversed(keys)][::-1]
    for sample, other in zip(forwards, backwards, strict=True):
        assert_same(sample, other)
    plans = {dataset(seed).plan(key) for seed in (5, 6) for key in keys}
    assert len(plans) == 2 * len(keys)  # seed, epoch and row all matter


RECORDED = {
    SampleKey(0, 0, 8): (
        (-9.411764705882353, -8.571428571428571, 367.05882352941177, 265.7142857142857, False),
        [[9.074999809265137, 7.883333206176758, 11.625, 11.149999618530273]],
        [1],
        (144.4, 135.4, 125.0),
    ),
    SampleKey(0, 1, 8): (
        (-40.0, -38.18181818181818, 188.57142857142858, 136.36363636363635, False),
        [
            [7.699999809265137, 18.0, 14.175000190734863, 26.433332443237305],
            [29.75, 15.800000190734863, 33.95000076293945, 21.850000381469727],
        ],
        [2, 3],
        (174.7, 164.2, 165.1),
    ),
    SampleKey(0, 2, 8): (
        (-207.0, -190.0, 69.0, 130.0, True),
        [[6.231884002685547, 21.5, 9.710144996643066, 25.100000381469727]],
        [3],
        (124.3, 122.8, 110.2),
    ),
    SampleKey(1, 2, 8): (
        (0.0, 0.0, 160.0, 120.0, False),
        [[0.5, 6.666666507720947, 6.5, 16.266666412353516]],
        [3],
        (177.4, 230.2, 224.7),
    ),
    SampleKey(3, 3, 8, 1): (
        (1.0, 17.0, 159.0, 99.0, True),
        [[1.2658227682113647, 1.5609755516052246, 11.39240550994873, 15.609756469726562]],
        [1],
        (212.1, 191.4, 195.2),
    ),
}
"""View, boxes, labels and mean colour of samples, as they were before plans could hold several images."""


@pytest.mark.parametrize("key", RECORDED)
def test_sample__of_one_image_stays_what_it_was(annotations: Annotations, key: SampleKey) -> None:
    dataset = DetectionDataset(annotations, (32, 40), augmentations=default_augmentations(), seed=5)
    (x0, y0, x1, y1, flip), boxes, labels, mean_colour = RECORDED[key]
    (tile,), sample = dataset.plan(key), dataset[key]
    assert (tile.row, tile.area) == (key.row, (0, 0, 40, 32))
    view = View(x0, y0, x1, y1, flip_horizontal=flip, colour=tile.view.colour)
    assert tile.view == view
    assert sample.boxes.tolist() == boxes
    assert sample.labels.tolist() == labels
    pixels = load_pixels(annotations.path(key.row))
    np.testing.assert_array_equal(sample.image, render(pixels, view, (32, 40)))
    np.testing.assert_allclose(sample.image.mean(axis=(0, 1)), mean_colour, atol=1)  # decoders differ


def test_sample__every_showing_of_an_epoch_is_augmented_otherwise(annotations: Annotations) -> None:
    dataset = DetectionDataset(annotations, (32, 40), augmentations=default_augmentations(), seed=5)
    plans = [dataset.plan(SampleKey(0, row, 8, copy)) for row in range(4) for copy in range(3)]
    assert len(set(plans)) == len(plans)


def test_sample__first_showing_is_that_of_runs_without_repeats(annotations: Annotations) -> None:
    """numpy fills a seed up with zeros, so a fourth number of 0 leaves the draws of three as they were."""
    drawn: list[float] = []

    def spy(view: View, boxes: np.ndarray, rng: np.random.Generator) -> View:
        drawn.append(rng.random())
        return view

    DetectionDataset(annotations, (32, 40), augmentations=[spy], seed=5).plan(SampleKey(2, 3, 8))
    assert drawn == [np.random.default_rng((5, 2, 3)).random()]


def test_sample__without_augmentation_is_the_whole_image(annotations: Annotations) -> None:
    sample = DetectionDataset(annotations, (60, 80))[SampleKey(0, 1, 8)]
    resized = Image.open(annotations.path(1)).resize((80, 60), Image.Resampling.BILINEAR)
    assert np.abs(sample.image.astype(int) - np.array(resized)).max() <= 1
    np.testing.assert_allclose(sample.boxes, annotations.boxes[annotations.rows(1)] / 2)  # 160 x 120 px
    np.testing.assert_array_equal(sample.labels, annotations.labels[annotations.rows(1)])
    assert sample.orig_size.tolist() == [120, 160]


def test_sample__box_that_overhangs__seen_as_if_cut_to_the_image(annotations: Annotations) -> None:
    boxes = annotations.boxes.copy()
    rows = annotations.rows(0)
    boxes[rows.start] = [-30, 40, 90, 500]
    raw = replace(annotations, boxes=boxes)
    cut = replace(raw, boxes=raw.clipped_boxes())
    assert cut.boxes[rows.start].tolist() == [0, 40, 90, 120]  # 160 x 120 px
    for augmentations in (None, default_augmentations()):
        one, other = (
            DetectionDataset(split, (32, 40), augmentations=augmentations, seed=3) for split in (raw, cut)
        )
        for epoch in range(8):
            assert_same(one[SampleKey(epoch, 0, 8)], other[SampleKey(epoch, 0, 8)])


def test_sample__torchvision_rule_gives_floats_for_evaluation_only(annotations: Annotations) -> None:
    key = SampleKey(0, 0, 8)
    assert DetectionDataset(annotations, (60, 80), resize_rule="torchvision")[key].image.dtype == np.float32
    training = DetectionDataset(annotations, (60, 80), augmentations=[], resize_rule="torchvision")
    assert training[key].image.dtype == np.uint8


def test_sample__crowd_is_kept_and_does_not_steer_the_crop(annotations: Annotations) -> None:
    crowd = replace(annotations, ignore=np.ones(len(annotations.boxes), dtype=np.bool_))
    seen: list[int] = []

    def spy(view: View, boxes: np.ndarray, rng: np.random.Generator) -> View:
        seen.append(len(boxes))
        return view

    sample = DetectionDataset(crowd, (60, 80), augmentations=[spy])[SampleKey(0, 0, 8)]
    assert seen == [0]
    assert sample.ignore.all()
    assert len(sample.boxes) == len(annotations.boxes[annotations.rows(0)])


@pytest.fixture
def large_photograph(tmp_path: Path) -> Annotations:
    """A white square on black in a JPEG of 1001 x 803 px, which is decoded at half its size for 200 px."""
    root = tmp_path / "large"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    pixels = np.zeros((803, 1001, 3), dtype=np.uint8)
    pixels[200:500, 301:702] = 255
    Image.fromarray(pixels).save(root / "train" / "large.jpg", quality=95)
    Image.fromarray(pixels).save(root / "train" / "large.png")
    images = [{"id": 0, "file_name": "large.jpg"}, {"id": 1, "file_name": "large.png"}]
    box = {"category_id": 1, "bbox": [301, 200, 401, 300]}
    boxes = [{"id": i + 1, "image_id": i, **box} for i in range(2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return open_split(root, role="train").annotations


def test_draft_scales__only_jpegs_and_only_for_training(large_photograph: Annotations) -> None:
    assert draft_scales(large_photograph, (200, 200), training=True).tolist() == [2, 1]
    assert draft_scales(large_photograph, (200, 200), training=False).tolist() == [1, 1]


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("epoch", range(6))
def test_sample__boxes_lie_on_the_pixels_of_a_draft_too(
    large_photograph: Annotations, row: int, epoch: int
) -> None:
    dataset = DetectionDataset(large_photograph, (200, 200), augmentations=default_augmentations()[1:])
    sample = dataset[SampleKey(epoch, row, 8)]
    bright = sample.image.min(axis=2) > 200  # the fill of a zoom-out is darker
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(sample.boxes[0], seen, atol=1.5)  # the draft blurs the edge


def test_sample__a_file_that_was_replaced_is_named(annotations: Annotations) -> None:
    path = annotations.path(2)
    Image.new("RGB", (50, 40)).save(path)
    with pytest.raises(
        InputError, match=rf"{path.name} is 50 x 40 px, 160 x 120 when the data set was checked"
    ):
        DetectionDataset(annotations, (60, 80), augmentations=[])[SampleKey(0, 2, 8)]
    with pytest.raises(InputError, match="50 x 40 px"):
        DetectionDataset(annotations, (60, 80))[SampleKey(0, 2, 8)]


def test_collate__pads_and_keeps_everything(annotations: Annotations) -> None:
    dataset = DetectionDataset(annotations, (32, 40))
    samples = [dataset[SampleKey(0, row, 16)] for row in (2, 0)]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 32, 40)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.target.boxes.shape == (2, 16, 4)
    assert batch.sample_idx.tolist() == [2, 0]
    assert batch.orig_size.tolist() == [[120, 160]] * 2
    for i, sample in enumerate(samples):
        count = len(sample.boxes)
        assert torch.equal(batch.images[i], torch.from_numpy(sample.image).permute(2, 0, 1))
        assert torch.equal(batch.target.boxes[i, :count], torch.from_numpy(sample.boxes))
        assert (batch.target.labels[i] > 0).sum() == count
        assert not batch.target.boxes[i, count:].any()
        assert not batch.target.ignore[i].any()


def test_collate__images_without_boxes(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "empty")
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    dataset = DetectionDataset(
        open_split(root, role="train").annotations, (32, 40), augmentations=default_augmentations()
    )
    batch = collate([dataset[SampleKey(0, row, 8)] for row in range(4)])
    assert batch.target.boxes.shape == (4, 8, 4)
    assert not batch.target.labels.any()

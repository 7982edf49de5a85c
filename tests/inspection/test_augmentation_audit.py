from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.data.augment import (
    Augmentation,
    Mosaic,
    RandomHorizontalFlip,
    RandomIoUCrop,
    default_augmentations,
)
from detect.data.augment.view import View
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.splits import open_split
from detect.inspection.anchor_fit import fit_anchors
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.augmentation_audit import audit, audit_keys
from tests.conftest import make_coco

LAYOUT = replace(AnchorLayout.default(), image_size=(96, 128))


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return open_split(make_coco(tmp_path / "coco", train=10), role="train").annotations


def dataset(annotations: Annotations, *steps: Augmentation) -> DetectionDataset:
    return DetectionDataset(annotations, LAYOUT.image_size, augmentations=list(steps), seed=3)


def test_audit__without_augmentation__changes_nothing(annotations: Annotations) -> None:
    found = audit(dataset(annotations), LAYOUT, samples=10)
    counts = found.counts()
    assert counts.shown == counts.kept == len(annotations.boxes)
    assert found.after_px == pytest.approx(found.before_px, rel=1e-6)
    assert counts.met_before == counts.met_after == fit_anchors(annotations, LAYOUT).all.met
    assert found.emptied == 0


def test_audit__flips__keep_every_box_and_size(annotations: Annotations) -> None:
    found = audit(dataset(annotations, RandomHorizontalFlip()), LAYOUT, samples=40)
    assert found.counts().kept == found.counts().shown == 4 * len(annotations.boxes)
    assert found.after_px == pytest.approx(found.before_px, rel=1e-5)


def test_audit__crop_by_hand__counts_what_it_cuts_away(annotations: Annotations) -> None:
    """The left half of every picture, stretched to the whole input: boxes become 2 ** 0.5 times as large."""

    def left_half(view: View, boxes: np.ndarray, rng: np.random.Generator) -> View:
        return replace(view, x1=80.0)  # of 160 px

    found = audit(dataset(annotations, left_half), LAYOUT, samples=10)
    centres = annotations.boxes[:, 0::2].mean(axis=1)
    assert found.counts().kept == int((centres < 80).sum())
    whole = annotations.boxes[:, 2] <= 80
    assert found.after_px[whole] == pytest.approx(found.before_px[whole] * 2**0.5, rel=1e-5)
    empty = sum(
        not (centres[annotations.rows(i)] < 80).any() and len(centres[annotations.rows(i)]) > 0
        for i in range(10)
    )
    assert found.emptied == empty > 0


def test_audit__follows_the_boxes_of_the_samples_themselves(annotations: Annotations) -> None:
    training = dataset(annotations, *default_augmentations())
    found = audit(training, LAYOUT, samples=20)
    samples = [training[SampleKey(epoch, row, 8)] for epoch in (0, 1) for row in range(10)]
    boxes = np.concatenate([sample.boxes for sample in samples])
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert found.after_px[~np.isnan(found.after_px)] == pytest.approx(sizes, rel=1e-5)


def test_audit__mosaic__follows_the_boxes_of_all_its_images(annotations: Annotations) -> None:
    training = dataset(annotations, Mosaic(1.0), RandomHorizontalFlip())
    found = audit(training, LAYOUT, samples=20)
    keys = [SampleKey(epoch, row, 64) for epoch in (0, 1) for row in range(10)]
    counts = np.diff(annotations.offsets)
    plans = [training.plan(key) for key in keys]
    assert found.counts().shown == sum(int(counts[tile.row]) for plan in plans for tile in plan)
    boxes = np.concatenate([training[key].boxes for key in keys])
    assert found.counts().kept == len(boxes) < found.counts().shown
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert found.after_px[~np.isnan(found.after_px)] == pytest.approx(sizes, rel=1e-5)
    labels = [annotations.labels[annotations.rows(tile.row)] for plan in plans for tile in plan]
    np.testing.assert_array_equal(found.labels, np.concatenate(labels))
    assert found.emptied == 0


def test_audit__groups_add_up_and_regions_to_ignore_are_left_out(annotations: Annotations) -> None:
    ignore = np.arange(len(annotations.boxes)) % 3 == 0
    found = audit(dataset(replace(annotations, ignore=ignore), RandomIoUCrop()), LAYOUT, samples=10)
    assert found.counts().shown == int((~ignore).sum())
    for groups in (found.by_size(), found.by_class()):
        for field in ("shown", "kept", "met_before", "met_after"):
            assert sum(getattr(counts, field) for counts in groups.values()) == getattr(found.counts(), field)


def test_audit__no_boxes__has_no_shares(annotations: Annotations) -> None:
    empty = replace(annotations, ignore=np.ones(len(annotations.boxes), dtype=np.bool_))
    content = audit(dataset(empty, RandomIoUCrop()), LAYOUT, samples=10).to_json()
    assert content["kept_share"] is content["met_after"] is content["median_after_px"] is None
    assert content["quantiles_after_px"] == {}
    assert content["emptied"] == 0


def test_to_json__by_hand(annotations: Annotations) -> None:
    content = audit(dataset(annotations), LAYOUT, samples=10).to_json()
    assert content["samples"] == 10
    assert content["kept_share"] == 1.0
    assert set(content["by_class"]) == {"square", "disc", "bar"}
    assert content["quantiles_before_px"] == content["quantiles_after_px"]


def test_audit_keys__whole_epochs_or_evenly_spread() -> None:
    assert audit_keys(3, 5) == [SampleKey(*key, 0) for key in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    assert [key.row for key in audit_keys(101, 3)] == [0, 50, 100]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.data.repeats import describe_repeats, draw_repeats, repeat_factors
from detect.errors import InputError
from detect.types import ClassMap


def annotations(labels: list[list[int]], ignored: list[list[bool]] | None = None) -> Annotations:
    """One image an entry, with a box of each label."""
    counts = [len(image) for image in labels]
    boxes = sum(counts)
    flat = [label for image in labels for label in image]
    ignore = [value for image in ignored for value in image] if ignored else [False] * boxes
    return Annotations(
        root=Path("root"),
        source=Path("a.json"),
        classes=ClassMap(("common", "rare", "never"), (1, 2, 3)),
        file_names=np.array([f"{i}.jpg".encode() for i in range(len(labels))]),
        image_ids=np.arange(len(labels)),
        sizes=np.full((len(labels), 2), 100, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.tile([0.0, 0.0, 10.0, 10.0], (boxes, 1)),
        labels=np.array(flat, dtype=np.int64),
        ignore=np.array(ignore, dtype=np.bool_),
        areas=np.full(boxes, 100.0),
        annotation_ids=np.arange(boxes),
    )


LABELS = [[1], [1, 1, 1], [1, 2], [2], [], [1], [1], [1]]
"""The common class is in 6 of 8 images, the rare one in 2, one image is empty."""


def test_repeat_factors__by_hand() -> None:
    # rare: sqrt(0.5 / (2 / 8)) = sqrt 2; common: 6 / 8 > 0.5, so 1; an image has its rarest class's.
    root2 = 2**0.5
    assert repeat_factors(annotations(LABELS), 0.5) == pytest.approx([1, 1, root2, root2, 1, 1, 1, 1])


def test_repeat_factors__count_images_and_not_boxes() -> None:
    more = [image * 7 for image in LABELS]
    assert (
        repeat_factors(annotations(more), 0.5).tolist() == repeat_factors(annotations(LABELS), 0.5).tolist()
    )


def test_repeat_factors__regions_to_ignore_show_nothing() -> None:
    ignored = [[False], [False] * 3, [False, True], [False], [], [False], [False], [False]]
    # The rare class is now in one image alone: sqrt(0.5 / (1 / 8)) = 2; its ignored box repeats nothing.
    assert repeat_factors(annotations(LABELS, ignored), 0.5).tolist() == [1, 1, 1, 2, 1, 1, 1, 1]


def test_repeat_factors__threshold_below_every_share__repeats_nothing() -> None:
    factors = repeat_factors(annotations(LABELS), 0.25)
    assert factors.tolist() == [1] * 8
    assert describe_repeats(factors).endswith("none is repeated")


def test_repeat_factors__no_boxes_at_all__repeats_nothing() -> None:
    assert repeat_factors(annotations([[], []]), 1.0).tolist() == [1, 1]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_repeat_factors__threshold_that_is_no_share__refused(threshold: float) -> None:
    with pytest.raises(InputError, match=f"data.repeat_threshold {threshold}: a share of the images"):
        repeat_factors(annotations(LABELS), threshold)


def test_describe_repeats__says_what_it_costs() -> None:
    assert describe_repeats(np.array([1.0, 1, 2.5, 1.5])) == (
        "repeat_threshold: 1 of 4 images are shown more often than before, up to 2.50 times as often as "
        "others; an epoch keeps its length, so 2 showings of those are left out of it"
    )


def test_describe_repeats__every_class_equally_rare__none_is_repeated() -> None:
    assert describe_repeats(np.array([1.4, 1.4])).endswith("none is repeated")


def test_draw_repeats__mean_over_epochs_is_the_factor() -> None:
    factors = np.array([1.0, 1.25, 2.0, 3.75])
    draws = np.stack([draw_repeats(factors, seed=3, epoch=epoch) for epoch in range(4000)])
    assert draws.mean(axis=0) == pytest.approx(factors, abs=0.03)  # 4 standard deviations
    assert (draws >= np.floor(factors)).all()
    assert (draws <= np.ceil(factors)).all()


def test_draw_repeats__pure_function_of_seed_and_epoch() -> None:
    factors = np.full(100, 1.5)
    first = draw_repeats(factors, seed=1, epoch=2)
    assert (first == draw_repeats(factors, seed=1, epoch=2)).all()
    assert (first != draw_repeats(factors, seed=1, epoch=3)).any()
    assert (first != draw_repeats(factors, seed=2, epoch=2)).any()


def test_draw_repeats__an_image_does_not_depend_on_the_others() -> None:
    factors = np.full(100, 1.5)
    changed = np.where(np.arange(100) < 50, factors, 2.25)
    first, second = (draw_repeats(f, seed=1, epoch=2) for f in (factors, changed))
    assert (first[:50] == second[:50]).all()

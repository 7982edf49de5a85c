from __future__ import annotations

import numpy as np
import pytest

from detect.evaluation.average_precision import WeightedAp
from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.bootstrap import CHUNK, Difference, compare_groups, draw_weights, resampled_map
from tests.coco_cases import annotations_of, random_case
from tests.evaluation.test_matching import rows_of


def test_draw_weights__each_resample_has_as_many_images_as_the_split() -> None:
    weights = draw_weights(30, resamples=200)
    assert weights.shape == (200, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert (weights == draw_weights(30, resamples=200)).all()
    assert (weights != draw_weights(30, resamples=200, seed=1)).any()
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 30) ** 30, abs=0.02)


def test_resampled_map__chunks_change_nothing_and_the_mean_is_near_the_full_map() -> None:
    dataset, results = random_case(2, images=40, classes=3)
    annotations = annotations_of(dataset)
    truth = ground_truth_rows(annotations)
    ap = WeightedAp(annotations, truth, rows_of(annotations, results))
    weights = draw_weights(40, resamples=CHUNK + 7)
    resampled = resampled_map(ap, weights)
    assert resampled.shape == (CHUNK + 7,)
    assert resampled[-1] == ap.mean(weights[-1:].astype(np.float64))[0]
    full = ap.mean(np.ones((1, 40)))[0]
    assert resampled.mean() == pytest.approx(full, abs=3 * resampled.std())


def test_compare_groups__same_run__zero_and_not_distinguishable() -> None:
    resampled = np.random.default_rng(0).normal(0.4, 0.02, 500)
    difference = compare_groups([resampled], [resampled], full=([0.4], [0.4]))
    assert (difference.mAP, difference.low, difference.high) == (0, 0, 0)
    assert not difference.distinguishable
    assert str(difference) == "not distinguishable: +0.000 [+0.000, +0.000]"


def test_compare_groups__paired__what_is_hard_for_both_cancels_out() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0.4, 0.05, 1000)
    second = first + rng.normal(0.02, 0.005, 1000)
    difference = compare_groups([first], [second], full=([0.4], [0.42]))
    assert difference.distinguishable
    assert difference.mAP == pytest.approx(0.02)
    assert (difference.low, difference.high) == pytest.approx(
        (0.02 - 1.96 * 0.005, 0.02 + 1.96 * 0.005), abs=1e-3
    )


def test_compare_groups__seeds_that_differ_widen_the_interval() -> None:
    first = np.full(2000, 0.40)
    seeds = [np.full(2000, value) for value in (0.38, 0.42, 0.46)]
    one = compare_groups([first], seeds[1:2], full=([0.40], [0.42]))
    three = compare_groups([first], seeds, full=([0.40], [0.38, 0.42, 0.46]))
    assert one.distinguishable
    assert not three.distinguishable  # 0.38 three times is one draw in 27, above 2.5 %
    assert three.mAP == pytest.approx(0.02)


def test_compare_groups__resamples_without_a_box_are_left_out() -> None:
    first, second = np.array([0.1, np.nan, 0.3]), np.array([0.2, np.nan, 0.4])
    difference = compare_groups([first], [second], full=([0.2], [0.3]))
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))


def test_difference__second_worse() -> None:
    assert Difference(-0.031, -0.052, -0.011).distinguishable
    assert str(Difference(-0.031, -0.052, -0.011)) == "-0.031 [-0.052, -0.011]"

"""Divergence of class maps and boxes, by hand."""

import math

import pytest
import torch

from detect.training.losses.distillation import (
    NOWHERE,
    bin_divergence,
    channel_wise_divergence,
    class_log_odds,
    class_maps,
    softened_divergence,
)


def test_log_odds__softmax_and_sigmoid__say_the_same_of_one_class() -> None:
    logits = torch.tensor([[1.0, 3.0], [0.0, -2.0]])  # background, object
    torch.testing.assert_close(class_log_odds(logits, "softmax"), torch.tensor([[2.0], [-2.0]]))
    torch.testing.assert_close(class_log_odds(logits, "sigmoid"), torch.tensor([[3.0], [-2.0]]))


def test_log_odds__of_softmax__by_hand_and_free_of_what_all_columns_share() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()  # scores as they are
    expected = torch.tensor([[math.log(0.25 / 0.75)] * 2])
    torch.testing.assert_close(class_log_odds(logits, "softmax"), expected)
    torch.testing.assert_close(class_log_odds(logits + 7, "softmax"), expected)


def test_log_odds__of_a_certain_score__are_finite_with_a_gradient() -> None:
    logits = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    odds = class_log_odds(logits, "softmax")
    (gradient,) = torch.autograd.grad(odds.sum(), logits)
    assert odds.isfinite().all()
    assert gradient.isfinite().all()


def test_maps__a_channel_for_each_class_of_each_anchor_of_a_cell() -> None:
    # Two maps: 2 cells of 2 anchors and 1 cell of 1 anchor, 2 classes; the value tells anchor and class.
    values = torch.tensor([[[0.0, 1], [10, 11], [20, 21], [30, 31], [40, 41]]])
    fine, coarse = class_maps(values, (4, 1), (2, 1))
    assert fine.tolist() == [[[0, 20], [1, 21], [10, 30], [11, 31]]]
    assert coarse.tolist() == [[[40], [41]]]


def test_channel_wise_divergence__by_hand() -> None:
    # Over 2 positions the teacher says 3/4 and 1/4, the student 1/2 and 1/2; a second channel is alike.
    teacher = torch.tensor([[[math.log(3), 0.0], [5.0, 5.0]]])
    student = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = channel_wise_divergence([student], [teacher], temperature=1.0)
    assert found.tolist() == pytest.approx([divergence / 2])  # the mean over channels
    twice = channel_wise_divergence([student, student], [teacher, teacher], temperature=1.0)
    assert twice.tolist() == pytest.approx([divergence])  # the sum over maps


def test_temperature__halves_the_logits_and_counts_by_its_square() -> None:
    teacher = torch.tensor([2 * math.log(3), 0.0])  # at temperature 2: 3/4 and 1/4
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = softened_divergence(torch.zeros(2), teacher, temperature=2.0)
    assert found.item() == pytest.approx(4 * divergence)


def test_a_position_that_is_left_out_of_a_map__changes_nothing_and_learns_nothing() -> None:
    teacher, student = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.0], requires_grad=True)
    nowhere = torch.tensor([False, True, False])
    padded = torch.stack([student[0], torch.tensor(3.0), student[1]]).masked_fill(nowhere, NOWHERE)
    of_three = softened_divergence(padded, torch.tensor([1.0, NOWHERE, -1.0]), temperature=1.0)
    assert of_three.item() == softened_divergence(student, teacher, temperature=1.0).item()
    all_out = torch.full((3,), NOWHERE)
    assert softened_divergence(all_out, all_out, temperature=1.0).item() == 0


def test_bin_divergence__is_the_mean_of_four_deltas_by_hand() -> None:
    teacher, student = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    teacher[0, 2] = torch.tensor([math.log(3), 0.0])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert bin_divergence(student, teacher, temperature=1.0).tolist() == pytest.approx([divergence / 4])


def test_the_divergence_and_its_gradient__of_equal_logits__are_0() -> None:
    logits = torch.randn(2, 5, 9, requires_grad=True)
    found = softened_divergence(logits, logits.detach(), temperature=10.0)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found.abs().max() < 1e-5
    assert gradient.abs().max() < 1e-5

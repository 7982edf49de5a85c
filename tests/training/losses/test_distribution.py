"""Distribution focal loss: by hand, where it is least, what it needs."""

import math

import pytest
import torch

from detect.errors import InputError
from detect.model.box_bins import BoxBins
from detect.model.box_coder import decode
from detect.model.configurable import plain
from detect.training.build import build_module
from detect.training.losses import (
    BoxLoss,
    DistributionFocalLoss,
    GIoULoss,
    MultiBoxLoss,
    QualityFocalLoss,
    SmoothL1Loss,
)
from detect.training.losses.distribution import neighbour_cross_entropy
from detect.types import HeadOutputs, Target
from tests.detector_cases import SETTINGS

ANCHORS = torch.tensor([[0.0, 0, 10, 10]])
DELTAS = torch.tensor([[1.0, -2.0, 0.0, 3.0]])  # of the box
PATH = "detect.training.losses."


def outputs_of(logits: torch.Tensor) -> HeadOutputs:
    """(4, n) logits of one anchor, as a network gives them."""
    box_logits = logits[None, None]
    return HeadOutputs(torch.zeros(1, 1, 3), BoxBins(logits.shape[-1])(box_logits), box_logits)


def loss_of(loss: BoxLoss, outputs: HeadOutputs) -> torch.Tensor:
    value: torch.Tensor = loss(outputs, decode(DELTAS, ANCHORS)[None], ANCHORS)
    assert value.shape == (1, 1)
    return value[0, 0]


def perfect_logits() -> torch.Tensor:
    # Bins at -8, -4, 0, 4, 8: 1 is a quarter of the way from 0 to 4, -2 half of that from -4, and so on.
    shares = torch.tensor([[0, 0, 3, 1, 0], [0, 2, 2, 0, 0], [0, 0, 4, 0, 0], [0, 0, 1, 3, 0]]) / 4
    return shares.clamp(min=1e-12).log()


def test_loss__by_hand() -> None:
    logits = torch.zeros(4, 5)
    logits[0, 3] = math.log(4)  # probabilities 1/8, 1/8, 1/8, 4/8, 1/8
    first = 0.75 * math.log(8) + 0.25 * math.log(2)
    others = 3 * math.log(5)
    outputs = outputs_of(logits)
    base = loss_of(SmoothL1Loss(), outputs).item()
    found = loss_of(DistributionFocalLoss(weight=2.0, base=SmoothL1Loss()), outputs).item()
    assert found - base == pytest.approx(2 * (first + others) / 4, rel=1e-5)
    alone = loss_of(DistributionFocalLoss(weight=0.0), outputs)
    assert alone.item() == loss_of(GIoULoss(), outputs).item()


def test_perfect_distribution__has_the_entropy_which_is_least_and_the_true_delta() -> None:
    logits = perfect_logits().requires_grad_()
    outputs = outputs_of(logits)
    torch.testing.assert_close(outputs.box_deltas[0, 0], DELTAS[0], rtol=0, atol=1e-5)
    found = neighbour_cross_entropy(logits, DELTAS[0])
    quarters = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(found, torch.tensor([quarters, math.log(2), 0, quarters]), rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss_of(DistributionFocalLoss(base=SmoothL1Loss()), outputs), logits)
    assert gradient.abs().max() < 1e-5
    for seed in range(20):
        noise = 0.3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        assert (neighbour_cross_entropy(logits + noise, DELTAS[0]) > found - 1e-6).all()


@pytest.mark.parametrize(("delta", "bin_"), [(8.0, 4), (-8.0, 0), (30.0, 4), (-math.inf, 0), (4.0, 3)])
def test_delta_on_a_bin_or_beyond__is_that_bin(delta: float, bin_: int) -> None:
    logits = torch.arange(5.0)
    found = neighbour_cross_entropy(logits, torch.tensor(delta))
    assert found.item() == pytest.approx(-logits.log_softmax(0)[bin_].item(), rel=1e-6)


def test_loss__descends_to_the_box() -> None:
    logits = torch.zeros(4, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(DistributionFocalLoss(), outputs_of(logits)).backward()
        optimizer.step()
    torch.testing.assert_close(outputs_of(logits).box_deltas[0, 0], DELTAS[0], rtol=0, atol=0.1)


@pytest.mark.parametrize("loss_class", [MultiBoxLoss, QualityFocalLoss])
def test_gradient__reaches_positive_anchors_alone(
    loss_class: type[MultiBoxLoss | QualityFocalLoss],
) -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [30, 0, 40, 10]])
    target = Target(
        torch.tensor([[[0.0, 0, 10, 9]]]), torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1) > 0
    )
    box_logits = torch.zeros(1, 2, 4, 8, requires_grad=True)
    outputs = HeadOutputs(torch.zeros(1, 2, 3), BoxBins(8)(box_logits), box_logits)
    with torch.autocast("cpu", torch.bfloat16):
        sums = loss_class(box_loss=DistributionFocalLoss())(outputs, anchors, (2,), target)
    assert sums.total.dtype == torch.float32
    (gradient,) = torch.autograd.grad(sums.total, box_logits)
    assert (gradient.abs().sum((-1, -2)) > 0).tolist() == [[True, False]]


def with_loss(box_bins: int | None) -> dict[str, object]:
    base = {"class_path": PATH + "CIoULoss"}
    box_loss = {"class_path": PATH + "DistributionFocalLoss", "init_args": {"weight": 0.5, "base": base}}
    loss = {"class_path": PATH + "QualityFocalLoss", "init_args": {"box_loss": box_loss}}
    return {**SETTINGS, "box_bins": box_bins, "loss": loss}


def test_configuration__without_bins__refused() -> None:
    with pytest.raises(InputError, match=r"DistributionFocalLoss, which learns .* give model.box_bins 16"):
        build_module(with_loss(None))


@pytest.mark.slow
def test_loss__compiles_whole_and_its_settings_come_back() -> None:
    module = build_module(with_loss(8))
    box_loss = plain(module.loss)["init_args"]["box_loss"]
    assert box_loss["init_args"]["base"]["class_path"] == PATH + "CIoULoss"
    box_logits = torch.randn(2, len(ANCHORS), 4, 8, requires_grad=True)
    outputs = HeadOutputs(torch.zeros(2, len(ANCHORS), 4), BoxBins(8)(box_logits), box_logits)
    boxes = torch.tensor([[[0.0, 0, 10, 9], [0, 0, 0, 0]]] * 2)
    target = Target(boxes, torch.tensor([[2, 0], [0, 0]]), torch.zeros(2, 2) > 0)
    expected = module.loss(outputs, ANCHORS, (1,), target)
    found = torch.compile(module.loss, backend="aot_eager", fullgraph=True)(outputs, ANCHORS, (1,), target)
    torch.testing.assert_close(found.stacked(), expected.stacked(), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(found.total, box_logits)
    assert gradient[0].abs().sum() > 0
    torch.compiler.reset()

"""Losses whose target is the quality of the box: by hand, against focal loss, and their divisor."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from detect.errors import InputError
from detect.model.box_coder import decode
from detect.training.assigners import TaskAlignedAssigner
from detect.training.losses import FocalLoss, GIoULoss, QualityFocalLoss, VarifocalLoss
from detect.types import HeadOutputs, Target
from tests.training.losses.test_losses import K, anchors, assign, random_case, sums_of  # noqa: F401

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10]])
TARGET = Target(torch.tensor([[[0.0, 0, 10, 5]]]), torch.tensor([[2]]), torch.tensor([[False]]))


def one_positive() -> HeadOutputs:
    """Predicted boxes are the anchors: IoU 1/2 with the box for the first, which is forced to be positive."""
    logits = torch.tensor([[[9.0, 0.5, -1.0], [9.0, -2.0, 1.0]]])  # column 0 is the background's
    return HeadOutputs(logits.requires_grad_(), torch.zeros(1, 2, 4, requires_grad=True))


def cross_entropy(logit: float, truth: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -truth * math.log(p) - (1 - truth) * math.log(1 - p)


def score(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_quality_focal__by_hand():
    sums = QualityFocalLoss(weigh=True)(one_positive(), ANCHORS, (2,), TARGET)
    expected = (score(-1.0) - 0.5) ** 2 * cross_entropy(-1.0, 0.5)
    expected += sum(score(logit) ** 2 * cross_entropy(logit, 0) for logit in (0.5, -2.0, 1.0))
    assert sums.terms["loss_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert sums.positives.item() == pytest.approx(0.5)
    # GIoU loss of half a box is 1/2; times the quality, times 2.5.
    assert sums.terms["loss_box"].item() == pytest.approx(2.5 * 0.5 * 0.5, rel=1e-4)


@pytest.mark.parametrize("weigh", [True, False])
def test_varifocal__by_hand(weigh):
    sums = VarifocalLoss(weigh=weigh)(one_positive(), ANCHORS, (2,), TARGET)
    expected = (0.5 if weigh else 1.0) * cross_entropy(-1.0, 0.5)
    expected += sum(0.75 * score(logit) ** 2 * cross_entropy(logit, 0) for logit in (0.5, -2.0, 1.0))
    assert sums.terms["loss_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert sums.positives.item() == pytest.approx(0.5 if weigh else 1.0)
    assert sums.terms["loss_box"].item() == pytest.approx(2.5 * 0.5 * (0.5 if weigh else 1.0), rel=1e-4)


def test_varifocal__its_factor_has_no_gradient():
    outputs = one_positive()
    terms = VarifocalLoss(weigh=True)(outputs, ANCHORS, (2,), TARGET).terms
    gradient = torch.autograd.grad(terms["loss_cls"], outputs.cls_logits)[0]
    # d/dx of cross-entropy is score - truth.
    assert gradient[0, 1, 2].item() == pytest.approx(0.75 * score(1.0) ** 2 * score(1.0), rel=1e-5)
    assert gradient[0, 0, 2].item() == pytest.approx(0.5 * (score(-1.0) - 0.5), rel=1e-5)
    assert not gradient[..., 0].any()


def test_quality_focal__quality_is_the_iou_of_the_predicted_box(anchors):  # noqa: F811
    outputs, target = random_case(anchors, 4)
    assignment = QualityFocalLoss().assign(outputs.map(torch.Tensor.detach), anchors, (len(anchors),), target)
    assert torch.equal(assignment.foreground, assign(anchors, target).foreground)
    for image, place in assignment.foreground.nonzero().tolist():
        predicted = decode(outputs.box_deltas[image, place], anchors[place])
        iou = box_iou(predicted[None].detach(), assignment.boxes[image, place][None])
        assert assignment.soft_targets[image, place].item() == pytest.approx(iou.item(), abs=1e-6)
    assert not assignment.soft_targets[~assignment.foreground].any()


def test_quality_focal__of_an_assigner_with_soft_targets__as_focal_loss_with_them(anchors):  # noqa: F811
    outputs, target = random_case(anchors, 4)
    quality = QualityFocalLoss(assigner=TaskAlignedAssigner(), beta=2.0)
    focal = FocalLoss(assigner=TaskAlignedAssigner(), alpha=0.5, gamma=2.0)  # alpha halves everything
    ours = sums_of(quality, outputs, anchors, target).terms["loss_cls"]
    assert ours.item() == pytest.approx(
        2 * sums_of(focal, outputs, anchors, target).terms["loss_cls"].item(), rel=1e-5
    )


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()], ids=lambda loss: type(loss).__name__)
def test_quality_losses__no_boxes_and_the_prior(loss, anchors):  # noqa: F811
    outputs, target = random_case(anchors, 0)
    sums = sums_of(loss, outputs, anchors, target)
    assert sums.positives.item() == 0
    assert sums.terms["loss_box"].item() == 0
    assert torch.isfinite(torch.autograd.grad(sums.total, outputs.cls_logits)[0]).all()
    assert loss.prior_bias(K)[1:].sigmoid().tolist() == pytest.approx([0.01] * K)
    assert isinstance(loss.box_loss, GIoULoss)


@pytest.mark.parametrize("arguments", [{"prior": 0.0}, {"cls_weight": -1.0}, {"beta": -1.0}], ids=str)
def test_quality_focal__out_of_range__refused(arguments):
    with pytest.raises(InputError, match=rf"loss.{next(iter(arguments))} is"):
        QualityFocalLoss(**arguments)

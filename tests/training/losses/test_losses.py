import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.ops import sigmoid_focal_loss

from detect.errors import InputError
from detect.model.anchors import AnchorConfig
from detect.model.backbones import MobileNetV3
from detect.model.ssdlite import SSDLite
from detect.training.assigners import Assignment, MaxIoUAssigner
from detect.training.losses import DetectionLoss, FocalLoss, LossTerms, MultiBoxLoss
from detect.types import HeadOutputs, Target
from tests.test_boxes import random_boxes

K = 3


@pytest.fixture(scope="module")
def anchors() -> torch.Tensor:
    return SSDLite(MobileNetV3(), K, anchors=AnchorConfig("torchvision")).anchors


def random_case(anchors, boxes_per_image: int, seed: int = 0) -> tuple[HeadOutputs, Target]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, len(anchors), K + 1, generator=generator).requires_grad_()
    deltas = torch.randn(2, len(anchors), 4, generator=generator).requires_grad_()
    boxes = torch.zeros(2, 8, 4)
    labels = torch.zeros(2, 8, dtype=torch.int64)
    boxes[:, :boxes_per_image] = random_boxes(2, boxes_per_image, seed=seed) / 2
    labels[:, :boxes_per_image] = torch.randint(1, K + 1, (2, boxes_per_image), generator=generator)
    return HeadOutputs(logits, deltas), Target(boxes, labels, torch.zeros(2, 8, dtype=torch.bool))


def sums_of(loss: DetectionLoss, outputs: HeadOutputs, anchors: torch.Tensor, target: Target) -> LossTerms:
    """The loss of anchors that all lie on one map."""
    return loss(outputs, anchors, (len(anchors),), target)


def assign(anchors: torch.Tensor, target: Target) -> Assignment:
    return MaxIoUAssigner()(None, anchors, (len(anchors),), target)


def mean_losses(sums) -> tuple[torch.Tensor, torch.Tensor]:
    positives = sums.positives.clamp(min=1)
    return sums.terms["loss_cls"] / positives, sums.terms["loss_box"] / positives


def torchvision_losses(
    outputs: HeadOutputs, target: Target, anchors: torch.Tensor
) -> dict[str, torch.Tensor]:
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=K + 1)
    targets = [
        {"boxes": boxes[labels > 0], "labels": labels[labels > 0]}
        for boxes, labels in zip(target.boxes, target.labels, strict=True)
    ]
    matched = []
    for boxes, labels in zip(target.boxes, target.labels, strict=True):
        one = Target(boxes[None], labels[None], torch.zeros_like(labels[None], dtype=torch.bool))
        matched.append(MaxIoUAssigner().match(anchors, one)[0])
    heads = {"bbox_regression": outputs.box_deltas, "cls_logits": outputs.cls_logits}
    return model.compute_loss(targets, heads, [anchors] * 2, matched)


def test_multibox__equals_torchvision_in_value_and_gradient(anchors):
    outputs, target = random_case(anchors, 5)
    ours = mean_losses(sums_of(MultiBoxLoss(min_negatives=0), outputs, anchors, target))
    our_grads = torch.autograd.grad(sum(ours), outputs[:2])
    theirs = torchvision_losses(outputs, target, anchors)
    their_grads = torch.autograd.grad(sum(theirs.values()), outputs[:2])
    assert ours[0].item() == pytest.approx(theirs["classification"].item(), rel=1e-5)
    assert ours[1].item() == pytest.approx(theirs["bbox_regression"].item(), rel=1e-5)
    for mine, other in zip(our_grads, their_grads, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
        assert torch.equal(mine.abs().sum(-1) > 0, other.abs().sum(-1) > 0)  # the same anchors were chosen


@pytest.mark.parametrize("min_negatives", [0, 3])
def test_multibox__without_boxes(anchors, min_negatives):
    outputs, target = random_case(anchors, 0)
    sums = sums_of(MultiBoxLoss(min_negatives=min_negatives), outputs, anchors, target)
    assert sums.positives.item() == 0
    assert sums.terms["loss_box"].item() == 0
    nothing = torch.zeros(2 * len(anchors), dtype=torch.int64)
    background = F.cross_entropy(outputs.cls_logits.flatten(0, 1), nothing, reduction="none").view(2, -1)
    expected = background.sort(dim=1, descending=True).values[:, :min_negatives].sum()
    assert sums.terms["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(sums.total, outputs.cls_logits)[0]).all()


def test_multibox__by_hand():
    # One anchor on the object, five far away; all logits 0 but one: 1 positive keeps 3 negatives.
    anchors = torch.tensor([[0.0, 0, 10, 10]] + [[100.0 + 20 * i, 0, 110 + 20 * i, 10] for i in range(5)])
    logits = torch.zeros(1, 6, 2)
    logits[0, 3, 1] = 2.0  # the hardest negative: -log(1 / (1 + e^2))
    target = Target(torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[1]]), torch.tensor([[False]]))
    sums = MultiBoxLoss()(HeadOutputs(logits, torch.full((1, 6, 4), 0.5)), anchors, (6,), target)
    assert sums.terms["loss_cls"].item() == pytest.approx(3 * math.log(2) + math.log(1 + math.e**2), rel=1e-5)
    assert sums.terms["loss_box"].item() == pytest.approx(4 * 0.5 * 0.5**2)  # smooth L1 of 0.5, four deltas


def test_ignore_regions__leave_the_loss(anchors):
    outputs, target = random_case(anchors, 1)
    everywhere = torch.tensor([[-1000.0, -1000, 2000, 2000]]).expand(2, 1, 4)
    target = target._replace(
        boxes=torch.cat([target.boxes, everywhere], 1),
        labels=torch.cat([target.labels, torch.ones(2, 1, dtype=torch.int64)], 1),
        ignore=torch.cat([target.ignore, torch.ones(2, 1, dtype=torch.bool)], 1),
    )
    assignment = assign(anchors, target)
    assert not assignment.background.any()
    for loss in (MultiBoxLoss(), FocalLoss()):
        grad = torch.autograd.grad(
            sums_of(loss, outputs, anchors, target).terms["loss_cls"], outputs.cls_logits
        )[0]
        assert torch.equal(grad.abs().sum(-1) > 0, assignment.foreground)


def test_focal__equals_torchvision(anchors):
    outputs, target = random_case(anchors, 4)
    assignment = assign(anchors, target)
    truth = F.one_hot(assignment.labels, K + 1)[..., 1:].float()
    theirs = sigmoid_focal_loss(outputs.cls_logits[..., 1:], truth, alpha=0.75, gamma=2.0, reduction="sum")
    assert sums_of(FocalLoss(), outputs, anchors, target).terms["loss_cls"].item() == pytest.approx(
        theirs.item(), rel=1e-5
    )


def test_focal__background_column_has_no_gradient(anchors):
    outputs, target = random_case(anchors, 4)
    grad = torch.autograd.grad(
        sums_of(FocalLoss(), outputs, anchors, target).terms["loss_cls"], outputs.cls_logits
    )[0]
    assert grad[..., 0].abs().max().item() == 0
    assert grad[..., 1:].abs().min().item() > 0


def test_focal__prior_bias_gives_the_prior():
    bias = FocalLoss(prior=0.02).prior_bias(K)
    assert bias.sigmoid()[1:].tolist() == pytest.approx([0.02] * K)


def test_box_loss__only_where_matched(anchors):
    outputs, target = random_case(anchors, 3)
    sums = sums_of(MultiBoxLoss(box_weight=2.0), outputs, anchors, target)
    grad = torch.autograd.grad(sums.terms["loss_box"], outputs.box_deltas)[0]
    foreground = assign(anchors, target).foreground
    assert torch.equal(grad.abs().sum(-1) > 0, foreground)
    assert sums.terms["loss_box"].item() == pytest.approx(
        2 * sums_of(MultiBoxLoss(), outputs, anchors, target).terms["loss_box"].item()
    )


def test_loss__is_float32_under_autocast(anchors):
    outputs, target = random_case(anchors, 3)
    half = outputs.map(lambda value: value.detach().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        sums = sums_of(MultiBoxLoss(), half, anchors, target)
    assert all(value.dtype == torch.float32 for value in (*sums.terms.values(), sums.positives))


@pytest.mark.parametrize("loss", [MultiBoxLoss(), FocalLoss()])
@pytest.mark.parametrize("boxes", [0, 1, 8])
def test_compile__takes_the_loss_whole(loss, boxes, anchors):
    """Together with a network: tests/training/test_module.py."""
    outputs, target = random_case(anchors, boxes)
    inputs = (outputs.cls_logits, outputs.box_deltas)

    def step() -> torch.Tensor:
        return sums_of(loss, outputs, anchors, target).total

    expected, value = step(), torch.compile(step, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(total, inputs) for total in (value, expected)]
    torch.testing.assert_close(*gradients)
    torch.compiler.reset()


def test_errors__name_the_value():
    with pytest.raises(InputError, match=r"loss.min_negatives is -1"):
        MultiBoxLoss(min_negatives=-1)
    with pytest.raises(InputError, match=r"loss.iou_threshold is 0; give a number above 0"):
        MultiBoxLoss(iou_threshold=0)
    with pytest.raises(InputError, match=r"loss.prior is 1.5"):
        FocalLoss(prior=1.5)


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        (MultiBoxLoss, "negative_ratio", -1.0),
        (MultiBoxLoss, "box_weight", -2.0),
        (FocalLoss, "box_beta", -1.0),
        (FocalLoss, "gamma", -3.0),
        (FocalLoss, "alpha", 2.0),
    ],
)
def test_settings__out_of_range__refused(loss, name, value):
    with pytest.raises(InputError, match=f"loss.{name} is {value}"):
        loss(**{name: value})

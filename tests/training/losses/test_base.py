"""The seams of a loss: terms by name, an assigner and a box loss of one's own."""

import csv
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detect.boxes import box_iou
from detect.commands.main import main
from detect.errors import InputError
from detect.model.configurable import plain
from detect.report.sections import loss_curves
from detect.training.assigners import Assigner, Assignment, MaxIoUAssigner
from detect.training.assigners.base import lay_out
from detect.training.build import build_module
from detect.training.losses import BoxLoss, FocalLoss, LossTerms, MultiBoxLoss, SmoothL1Loss
from detect.types import HeadOutputs, Target
from tests.conftest import make_coco
from tests.fit_cases import TINY, EndAt, fit_args, fit_until, read_raw, run_differences, write_config
from tests.training.losses.three_terms import ThreeTermLoss, name_it

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [0, 0, 40, 10]])
TARGET = Target(
    torch.tensor([[[0.0, 0, 10, 9], [0, 0, 0, 0]]]), torch.tensor([[2, 0]]), torch.tensor([[False, False]])
)


def outputs() -> HeadOutputs:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, 3, generator=generator).requires_grad_()
    return HeadOutputs(logits, torch.randn(1, 4, 4, generator=generator).requires_grad_())


# ---- terms


def test_terms__stack_and_come_back_by_their_names() -> None:
    sums = ThreeTermLoss()(outputs(), ANCHORS, (3, 1), TARGET)
    assert list(sums.terms) == ["loss_cls", "loss_box", "loss_size"]
    assert sums.total.item() == pytest.approx(sum(value.item() for value in sums.terms.values()))
    again = LossTerms.of(ThreeTermLoss.term_names, sums.stacked())
    assert plain_numbers(again) == plain_numbers(sums)
    assert list(sums.per_positive()) == ["loss", *sums.terms]


def plain_numbers(sums: LossTerms) -> dict[str, float]:
    return {name: value.item() for name, value in {**sums.terms, "positives": sums.positives}.items()}


def test_terms__other_than_declared__refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreeTermLoss, "term_names", MultiBoxLoss.term_names)
    message = "ThreeTermLoss returns the terms loss_cls, loss_box, loss_size; its term_names are loss_cls, "
    with pytest.raises(InputError, match=message):
        ThreeTermLoss()(outputs(), ANCHORS, (4,), TARGET)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_a_third_term_is_logged_shown_monitored_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {**TINY["model"], "loss": name_it(monkeypatch)}
    config = write_config(tmp_path, {**TINY, "model": model})
    data = make_coco(tmp_path / "coco", train=16, val=4)
    watching = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss_size")
    words = (*watching, "--trainer.enable_progress_bar", "true")
    assert main(["fit", *fit_args(config, data, tmp_path / "straight", *words)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"epoch +loss +loss_cls +loss_box +loss_size +mAP", said)
    (first, _) = csv.DictReader((tmp_path / "straight" / "metrics.csv").open())
    assert float(first["train/loss_size"]) > 0
    assert float(first["val/loss_size"]) > 0
    parts = sum(float(first[f"train/{name}"]) for name in ThreeTermLoss.term_names)
    assert float(first["train/loss"]) == pytest.approx(parts, rel=1e-5)

    stopped = tmp_path / "stopped"
    args = fit_args(config, data, stopped, *words, "--checkpoint_minutes", "0")
    fit_until(EndAt("batch_end", 2), args, monkeypatch)
    assert len(read_raw(stopped)["epoch_sums"]) == 4
    more = ("--ckpt_path", "last", "--checkpoint_minutes", "10")
    assert main(["fit", *fit_args(config, data, stopped, *words, *more)]) == 0
    assert run_differences(tmp_path / "straight", stopped) == []


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_a_third_term_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {**TINY["model"], "loss": name_it(monkeypatch), "schedule": {"warmup_steps": 0}}
    config = write_config(tmp_path, {**TINY, "model": model})
    data = make_coco(tmp_path / "coco", train=16, val=4)
    words = fit_args(config, data, tmp_path / "run", "--model.optimizer.init_args.lr", "1e18")
    assert main(["fit", *words]) == 3
    assert main(["replay", str(tmp_path / "run" / "nan")]) == 1
    assert re.search(r"batch.*loss_cls.*loss_box.*loss_size.*positives", capsys.readouterr().out)


def test_a_third_term_has_a_curve() -> None:
    columns = ["epoch", "train/loss", "train/loss_cls", "train/loss_size", "val/mAP"]
    assert loss_curves(columns) == {
        "train/loss_cls": "train class",
        "val/loss_cls": "val class",
        "train/loss_size": "train loss_size",
        "val/loss_size": "val loss_size",
    }


# ---- an assigner of one's own


class QualityAssigner(Assigner):
    """Anchors of the last map alone; the score to reach is the IoU of the box that the network gives."""

    def __init__(self, *, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self, head_outputs: HeadOutputs | None, anchors: Tensor, levels: tuple[int, ...], target: Target
    ) -> Assignment:
        on_last = torch.arange(len(anchors)) >= len(anchors) - levels[-1]
        iou = torch.stack([box_iou(boxes, anchors) for boxes in target.boxes]).amax(1)
        matched = torch.where(on_last & (iou > 0), 0, -1)
        weights = torch.full(matched.shape, self.factor)
        return lay_out(matched, anchors, target, weights=weights, soft_targets=iou)


@pytest.mark.parametrize("loss_class", [MultiBoxLoss, FocalLoss])
def test_assigner__levels_decide_and_weights_scale(loss_class: type[MultiBoxLoss | FocalLoss]) -> None:
    given = outputs()
    once, twice = (
        loss_class(assigner=QualityAssigner(factor=factor))(given, ANCHORS, (3, 1), TARGET)
        for factor in (1.0, 2.0)
    )
    assert once.positives.item() == 1
    assert twice.total.item() == pytest.approx(2 * once.total.item(), rel=1e-6)
    gradient = torch.autograd.grad(once.terms["loss_box"], given.box_deltas)[0]
    assert (gradient.abs().sum(-1) > 0).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize(
    "loss", [MultiBoxLoss(assigner=QualityAssigner()), FocalLoss(assigner=QualityAssigner())]
)
def test_soft_targets__are_where_the_loss_is_least(loss: MultiBoxLoss | FocalLoss) -> None:
    # The last anchor, 40 x 10, has an IoU of 90 / 400 with the box of 10 x 9.
    quality = 90 / 400
    found = []
    for score in (quality - 0.1, quality, quality + 0.1):
        logits = torch.zeros(1, 4, 3)
        logits[0, 3] = torch.tensor([0.0, -30.0, torch.logit(torch.tensor(score))])
        sums = loss(HeadOutputs(logits, torch.zeros(1, 4, 4)), ANCHORS, (3, 1), TARGET)
        found.append(sums.terms["loss_cls"].item())
    assert min(found) == found[1]


def test_assigner__and_its_shorthand__refused() -> None:
    with pytest.raises(InputError, match=r"loss.iou_threshold is 0.4, and loss.assigner is MaxIoUAssigner"):
        MultiBoxLoss(assigner=MaxIoUAssigner(), iou_threshold=0.4)
    with pytest.raises(InputError, match=r"loss.box_beta is 0.1, and loss.box_loss is SmoothL1Loss"):
        FocalLoss(box_loss=SmoothL1Loss(), box_beta=0.1)


def test_settings_of_parts__come_back_from_a_description() -> None:
    assigner = {"class_path": "detect.training.assigners.MaxIoUAssigner", "init_args": {"iou_threshold": 0.4}}
    box_loss = {"class_path": "detect.training.losses.SmoothL1Loss", "init_args": {"beta": 0.1}}
    loss = {
        "class_path": "detect.training.losses.FocalLoss",
        "init_args": {"assigner": assigner, "box_loss": box_loss},
    }
    backbone = {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}}
    settings = {"backbone": backbone, "num_classes": 2, "image_size": [64, 64]}
    for _ in range(2):  # what a checkpoint says builds the same again
        built = build_module({**settings, "loss": loss}).loss
        assert (built.assigner.iou_threshold, built.box_loss.beta) == (0.4, 0.1)
        loss = plain(built)
    assert loss["init_args"]["assigner"]["init_args"] == {"iou_threshold": 0.4, "ignore_threshold": 0.5}


# ---- a box loss of one's own


class CentreLoss(BoxLoss):
    """The distance of the centres alone."""

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        return head_outputs.box_deltas[..., :2].abs().sum(-1)


def test_box_loss__of_ones_own__takes_the_place_of_smooth_l1() -> None:
    given = outputs()
    sums = MultiBoxLoss(box_loss=CentreLoss(), box_weight=3.0)(given, ANCHORS, (4,), TARGET)
    assert sums.terms["loss_box"].item() == pytest.approx(3 * given.box_deltas[0, 0, :2].abs().sum().item())

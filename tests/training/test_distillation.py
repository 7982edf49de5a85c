"""A teacher beside the loss: what it adds, to whom, and that nothing of it stays."""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detect.boxes import box_iou
from detect.commands.fit import fit
from detect.commands.main import main
from detect.errors import InputError
from detect.model.checkpoint import read_checkpoint
from detect.training.build import build_module
from detect.training.distillation import (
    TERM_NAMES,
    DistillationConfig,
    load_teacher,
    refuse_other_classes,
)
from detect.training.module import DetectionModule
from detect.types import Batch, ClassMap, HeadOutputs, Target
from tests.conftest import make_coco
from tests.detector_cases import CLASSES, lively_detector, save_checkpoint
from tests.fit_cases import TINY, EndAt, fit_args, fit_until, read_raw, run_differences, write_config

SIZE = {"image_size": [64, 64]}
STUDENT: dict[str, Any] = {
    "backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}},
    "num_classes": 3,
    **SIZE,
}
SIGMOID = {"loss": {"class_path": "detect.training.losses.FocalLoss"}}
TARGET = Target(
    torch.tensor([[[4.0, 4, 40, 50], [30, 30, 60, 63]], [[0, 0, 30, 30], [0, 0, 0, 0]]]),
    torch.tensor([[1, 3], [2, 0]]),
    torch.zeros(2, 2, dtype=torch.bool),
)


def images(size: tuple[int, int] = (64, 64)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)


def teacher_file(folder: Path, **settings: Any) -> Path:
    return save_checkpoint(lively_detector(**{**SIZE, **settings}), folder / "teacher.ckpt")


def taught_module(path: Path, **settings: Any) -> DetectionModule:
    torch.manual_seed(3)
    return build_module({**STUDENT, **settings, "teacher": str(path)})


def of_teacher(module: DetectionModule) -> dict[str, float]:
    terms = module.loss_terms(images(), TARGET).terms
    return {name: terms[name].item() for name in TERM_NAMES}


# ---- the terms


@pytest.mark.parametrize("bins", [None, 8])
def test_a_teacher_that_is_the_student__adds_nothing(bins: int | None, tmp_path: Path) -> None:
    path = teacher_file(tmp_path, box_bins=bins)
    module = taught_module(path, box_bins=bins).eval()
    module.detector.load_state_dict(read_checkpoint(path).state_dict)
    assert list(of_teacher(module).values()) == pytest.approx([0, 0], abs=1e-3)
    for head in [*module.net.box_heads, *module.net.cls_heads]:
        head.predictor.weight.data *= 2.0
    assert min(of_teacher(module).values()) > 1e-3


def test_terms__by_hand(tmp_path: Path) -> None:
    """Of two anchors that one is confident of; their deltas differ by 0.5 in one of four."""
    module = taught_module(teacher_file(tmp_path), distillation={"box_weight": 2.0, "cls_weight": 3.0})
    distillation = module.distillation
    assert distillation is not None
    anchors = len(module.net.anchors)
    taught = HeadOutputs(torch.zeros(1, anchors, 4), torch.zeros(1, anchors, 4))
    taught.cls_logits[..., 0] = 9.0
    taught.cls_logits[0, 7] = torch.tensor([0.0, 2.0, -20.0, -20.0])
    score = torch.tensor(2.0).sigmoid().item()
    given = taught.map(Tensor.clone)
    given.box_deltas[0, 7, 2] += 0.5
    given.box_deltas[0, 8, 2] += 0.5  # the teacher is not confident there
    distillation.teach = lambda images: taught  # type: ignore[method-assign]
    sums = module.loss_of(given, Target(*(column[:1] for column in TARGET)), (64, 64))
    found = distillation(sums, module.detector, given, images()[:1]).terms
    assert found["loss_ld"].item() == pytest.approx(2.0 * score * 0.5 * 0.5**2)
    assert found["loss_cwd"].item() == pytest.approx(0, abs=1e-4)
    assert {name: found[name] for name in sums.terms} == sums.terms

    given = taught.map(Tensor.clone)
    given.cls_logits[0, 7] = taught.cls_logits[0, 6]
    sums = sums._replace(image_positives=torch.tensor([4.0]))
    once = distillation(sums, module.detector, given, images()[:1]).terms["loss_cwd"].item()
    sums = sums._replace(image_positives=torch.tensor([8.0]))
    assert once > 0.1
    assert distillation(sums, module.detector, given, images()[:1]).terms["loss_cwd"].item() == 2 * once


@pytest.mark.parametrize(
    ("settings", "mine"),
    [
        ({}, SIGMOID),
        ({"image_size": [96, 80]}, SIGMOID),
        ({"anchors": {"style": "torchvision"}}, {}),
        ({"taps": ["c3", "c4", "c5"], "box_bins": 8}, {}),
        ({"backbone": {"class_path": "detect.model.backbones.MobileNetV2"}}, {}),
    ],
    ids=["same", "size", "anchors", "taps", "backbone"],
)
def test_a_teacher_of_another_kind__gives_gradients_to_the_student_alone(
    settings: dict[str, Any], mine: dict[str, Any], tmp_path: Path
) -> None:
    module = taught_module(teacher_file(tmp_path, **settings), **mine)
    assert module.distillation is not None
    teacher = module.distillation.detector
    before = deepcopy(teacher.state_dict())
    sums = module.train().loss_terms(images(), TARGET)
    assert tuple(sums.terms) == module.term_names == (*module.loss.term_names, *TERM_NAMES)
    (sums.terms["loss_cwd"] + sums.terms["loss_ld"]).backward()
    reached = [p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters()]
    assert all(reached)
    assert any(bool(p.grad.any()) for p in module.parameters() if p.grad is not None)
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_anchors__meet_those_that_overlap_them_most(tmp_path: Path) -> None:
    module = taught_module(teacher_file(tmp_path, image_size=[96, 80]))
    assert module.distillation is not None
    match = module.distillation.match_of(module.net, (64, 64))
    theirs = module.distillation.detector.net.anchors * torch.tensor([64 / 80, 64 / 96]).repeat(2)
    overlaps = box_iou(module.net.anchors, theirs)
    assert not match.same
    torch.testing.assert_close(overlaps.gather(1, match.rows[:, None])[:, 0], overlaps.amax(1))
    torch.testing.assert_close(match.theirs, theirs[match.rows])
    assert match.known.tolist() == (overlaps.amax(1) >= 0.5).tolist()
    assert f"input 96 x 80: {match.known.float().mean():.1%} of the" in module.distillation.sentence(
        module.net
    )


def test_the_teacher_sees__the_images_at_its_own_size(tmp_path: Path) -> None:
    distillation = load_teacher(teacher_file(tmp_path, image_size=[96, 80]), DistillationConfig())
    grey = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    expected = distillation.detector.net(torch.full((2, 3, 96, 80), 90, dtype=torch.uint8))
    found = distillation.teach(grey)
    torch.testing.assert_close(found.cls_logits, expected.cls_logits)
    assert not found.cls_logits.requires_grad


# ---- nothing of it stays


def test_the_student__is_as_without_a_teacher(tmp_path: Path) -> None:
    path = teacher_file(tmp_path)
    torch.manual_seed(3)
    alone, taught = build_module(STUDENT), taught_module(path)
    assert alone.state_dict().keys() == taught.state_dict().keys()
    assert all(torch.equal(value, taught.state_dict()[name]) for name, value in alone.state_dict().items())
    assert [name for name, _ in alone.named_modules()] == [name for name, _ in taught.named_modules()]
    taught.detector.classes = alone.detector.classes = CLASSES
    assert alone.describe() == taught.describe()
    assert deepcopy(taught).distillation is taught.distillation  # an average of the weights copies the module
    theirs = taught.loss_terms(images(), TARGET).terms
    for name, value in alone.loss_terms(images(), TARGET).terms.items():
        assert value.item() == theirs[name].item()


@pytest.mark.slow
def test_the_step__compiles_whole(tmp_path: Path) -> None:
    module = taught_module(teacher_file(tmp_path, image_size=[96, 96])).train()
    module.loss_terms(images(), TARGET)  # anchors are laid out before, as at the start of a training
    assert torch._dynamo.explain(module.loss_terms)(images(), TARGET).graph_break_count == 0
    torch.compiler.reset()


# ---- a run


@pytest.mark.slow
def test_a_run__stopped_and_resumed__ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_coco(tmp_path / "coco", train=16, val=4)
    teacher = teacher_file(tmp_path, image_size=[96, 96])
    config = write_config(tmp_path, {**TINY, "model": {**TINY["model"], "teacher": str(teacher)}})
    assert main(["fit", *fit_args(config, data, tmp_path / "straight")]) == 0
    args = fit_args(config, data, tmp_path / "stopped", "--checkpoint_minutes", "0")
    fit_until(EndAt("batch_end", 2), args, monkeypatch)
    more = ("--ckpt_path", "last", "--checkpoint_minutes", "10")
    assert main(["fit", *fit_args(config, data, tmp_path / "stopped", *more)]) == 0
    assert run_differences(tmp_path / "straight", tmp_path / "stopped") == []

    rows = list(csv.DictReader((tmp_path / "straight" / "metrics.csv").open()))
    assert [name for name in rows[0] if "loss_cwd" in name or "loss_ld" in name] == [
        "train/loss_cwd",
        "train/loss_ld",
    ]
    assert all(float(row["train/loss_cwd"]) > 0 for row in rows)
    noted = json.loads((tmp_path / "straight" / "manifest.json").read_text())["teacher"]
    assert (noted["path"], noted["weights_origin"]) == (str(teacher), None)
    raw = read_raw(tmp_path / "straight")
    assert raw["run"]["teacher"] == noted
    assert "teacher" not in raw["detect"]["model"]

    save_checkpoint(lively_detector(image_size=[64, 64]), teacher)  # another one under the same name
    assert main(["fit", *fit_args(config, data, tmp_path / "stopped", *more)]) == 2
    assert "teacher.ckpt, with other weights: give model.teacher" in capsys.readouterr().err


def test_a_step_that_is_not_finite__replayed_with_the_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_coco(tmp_path / "coco", train=16, val=4)
    teacher = teacher_file(tmp_path, image_size=[96, 96])
    model = {**TINY["model"], "teacher": str(teacher), "distillation": {"cls_weight": 7.0}}
    config = write_config(tmp_path, {**TINY, "model": model})
    run = tmp_path / "run"
    too_much = ("--model.optimizer.init_args.lr", "1e18", "--model.schedule.warmup_steps", "0")
    assert main(["fit", *fit_args(config, data, run, *too_much)]) == 3
    assert json.loads((run / "nan" / "report.json").read_text())["distillation"]["cls_weight"] == 7.0
    teacher.unlink()  # the folder has its own
    assert main(["replay", str(run / "nan")]) == 1
    said = capsys.readouterr().out
    assert "loss_cwd" in said
    assert "the first layer that is not finite" in said


def test_sample_terms__sum_up_to_those_of_the_batch(tmp_path: Path) -> None:
    module = taught_module(teacher_file(tmp_path, image_size=[96, 96])).eval()
    shown = images()
    batch = Batch(shown, TARGET, torch.arange(len(shown)), torch.full((len(shown), 2), 64))
    with torch.no_grad():
        whole = module.batch_terms(batch).stacked()
        parts = torch.stack([sums.stacked() for sums in module.sample_terms(module.net, batch)])
    assert whole[2] > 0  # class maps of the teacher
    torch.testing.assert_close(parts.sum(0), whole, rtol=1e-4, atol=1e-4)


def test_a_teacher_that_cannot_teach__is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    data = make_coco(tmp_path / "coco")
    config, run = write_config(tmp_path), tmp_path / "run"
    nothing = tmp_path / "text.ckpt"
    nothing.write_text("no")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    detector = lively_detector(image_size=[64, 64])
    detector.classes = ClassMap(("disc", "square", "bar"), (3, 7, 11))
    save_checkpoint(detector, tmp_path / "order.ckpt")
    for name, message in (
        ("nowhere.ckpt", r"model\.teacher: .*nowhere\.ckpt: no such checkpoint"),
        ("text.ckpt", r"model\.teacher: .*text\.ckpt: cannot be read as a checkpoint"),
        ("other.ckpt", r"model\.teacher: .*other\.ckpt: not a checkpoint of detect"),
        ("order.ckpt", r"knows the classes \['disc', 'square', 'bar'\], the data has \['square', 'disc', "),
    ):
        with pytest.raises(InputError, match=message):
            fit(fit_args(config, data, run, "--model.teacher", str(tmp_path / name)))
        assert not run.exists()


def test_wrong_values__refused(tmp_path: Path) -> None:
    for key, value in (("cls_weight", -1.0), ("box_weight", -1.0), ("cls_temperature", 0.0)):
        with pytest.raises(InputError, match=rf"model\.distillation\.{key} is {value}"):
            DistillationConfig(**{key: value})
    with pytest.raises(InputError, match=r"box_temperature is 0"):
        DistillationConfig(box_temperature=0)
    with pytest.warns(UserWarning, match=r"model\.distillation does nothing without a model\.teacher"):
        build_module({**STUDENT, "distillation": {"cls_weight": 5.0}})
    with pytest.raises(InputError, match=r"teacher\.ckpt has 3 classes and the detector 2"):
        build_module({**STUDENT, "num_classes": 2, "teacher": str(teacher_file(tmp_path))})
    with pytest.raises(InputError, match=r"no anchor that overlaps one of this detector's"):
        taught_module(tmp_path / "teacher.ckpt", anchors={"style": "torchvision", "scales": [0.01] * 7})
    refuse_other_classes("built by hand", None, CLASSES)

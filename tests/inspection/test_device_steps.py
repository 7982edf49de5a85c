"""The parts of `scripts/gpu-check` on the CPU; `bash scripts/gpu-check --device cpu` is the whole of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.inspection import device_equality
from detect.inspection.device_equality import Bounds, Outcome, check_equality, distances, outcome, overlap
from detect.inspection.device_runs import write_config
from detect.inspection.device_steps import (
    Check,
    CheckSetup,
    TrainingStep,
    allocated_on_cpu,
    first_line,
    speed_row,
    tried,
)
from detect.report import gpu_page
from detect.report.gpu_page import gpu_check
from detect.types import Detections
from tests.conftest import make_coco

MODEL = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "width": 0.35, "reduced_tail": True},
    },
    "image_size": [64, 64],
    # One level, 2x2 to 1x1. In bf16 and channels_last, torch's weight gradient of a depthwise convolution
    # that strides over a 1x1 map reads memory that nobody wrote: NaN now and then.
    "extra_levels": [[64, 128]],
}


@pytest.fixture
def setup(tmp_path: Path) -> CheckSetup:
    root = make_coco(tmp_path / "data")
    return CheckSetup("cpu", MODEL, root, tmp_path, batch_size=4, steps=2)


def test_the_cpu_is_equal_to_itself_and_another_loss_is_not(
    setup: CheckSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_equality(setup)
    assert check.verdict == "passed", check
    assert check.rows[0] == ("float32", *(f"0.0e+00 of at most {b:.0e}" for b in (1e-4, 1e-2, 1e-2, 1e-3)))
    assert "at most" not in check.rows[1][2]
    assert "both choose 100.0% of the same detections" in check.sentence
    outcomes = iter((1.0, 1.01, 1.0))  # of the reference, float32 and bf16

    def wrong(*args: Any) -> Outcome:
        found = outcome(*args)
        return found._replace(loss=found.loss * next(outcomes))

    monkeypatch.setattr(device_equality, "outcome", wrong)
    assert check_equality(setup).verdict == "failed"


def test_distances_are_shares_of_what_was_expected() -> None:
    expected = Outcome(*(torch.tensor([3.0, 4.0]) for _ in Outcome._fields))
    found = expected._replace(gradient=torch.tensor([3.0, 5.0]))
    assert distances(found, expected) == Bounds(0.0, pytest.approx(0.2), 0.0, 0.0)


def test_detections_are_compared_in_any_order() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [5, 5, 20, 20], [0, 0, 0, 0]]])
    one = Detections(boxes, torch.tensor([[0.9, 0.8, 0.0]]), torch.tensor([[1, 2, 0]]))
    turned = Detections(*(part[:, [1, 0, 2]] for part in one))
    assert overlap(turned, one) == 1.0
    assert overlap(one._replace(labels=torch.tensor([[1, 1, 0]])), one) == 0.5
    assert overlap(one, Detections(*(part[:, :1] for part in one))) == 0.5


def test_a_row_of_speed_has_every_stage(setup: CheckSetup) -> None:
    rate, *shares, first = speed_row(setup, setup.data(), None, compiled=False)
    assert float(rate) > 0
    assert sum(int(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=3)
    assert first.endswith(" s")


def test_the_allocator_is_asked() -> None:
    def run() -> None:
        a = torch.ones(1_000_000)
        b = torch.ones(500_000)
        del a
        torch.ones(250_000)
        del b

    assert allocated_on_cpu(run) == pytest.approx(6_000_000, rel=0.01)


def test_a_check_that_ends_with_an_error_has_failed() -> None:
    def broken() -> Check:
        raise RuntimeError("no kernel\nfor this")

    assert tried("Speed", broken) == Check("Speed", "failed", "It ended with RuntimeError: no kernel")
    assert first_line(ValueError()) == "ValueError: "


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two(setup: CheckSetup) -> list[Check]:
        write_config(setup)
        return [
            Check("Equal <1>", "passed", "As --device cpu is.", ("precision", "loss"), (("float32", "0"),)),
            Check("Resume", "failed", "It differs."),
        ]

    monkeypatch.setattr(gpu_page, "equality_checks", two)
    monkeypatch.setattr(gpu_page, "step_checks", lambda _: [])
    out = tmp_path / "checked"
    assert gpu_check(out, MODEL, device="cpu", batch_size=4, steps=2, runs=False) == 1
    page = (out / "gpu-check.html").read_text()
    assert "Equal &lt;1&gt;: passed" in page
    assert "<strong>Failed:</strong>" in page
    figures = json.loads((out / "gpu-check.json").read_text())
    assert [check["verdict"] for check in figures["checks"]] == ["passed", "failed"]


def test_a_step_moves_weights(setup: CheckSetup) -> None:
    data = setup.data()
    step = TrainingStep(setup, data, None, compiled=False)
    before = next(step.module.parameters()).clone()
    step.run(next(iter(data.train_dataloader())))
    assert not torch.equal(before, next(step.module.parameters()))

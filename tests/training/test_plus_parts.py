"""The parts of SSDLite+ together: compiled whole, resumed bit for bit, exported as trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from detect.commands.main import main
from detect.deploy.export import ExportOptions, export
from detect.training.build import build_module
from detect.types import Target
from tests.conftest import make_coco
from tests.detector_cases import lively_detector, save_checkpoint
from tests.fit_cases import TINY, EndAt, fit_args, fit_until, run_differences, write_config

pytestmark = pytest.mark.slow

TAPS = ["out3", "out4", "out5"]
LCPAN: dict[str, Any] = {
    "taps": TAPS,
    "neck": {"class_path": "detect.model.necks.LCPAN", "init_args": {"channels": 16}},
    "anchors": {"style": "points"},
}
TOP_DOWN: dict[str, Any] = {
    "taps": TAPS,
    "neck": {"class_path": "detect.model.necks.TopDown"},
    "anchors": {"style": "torchvision"},
}


def quality_loss(loss: str, assigner: str, box_loss: str) -> dict[str, Any]:
    return {
        "class_path": f"detect.training.losses.{loss}",
        "init_args": {
            "assigner": {"class_path": f"detect.training.assigners.{assigner}"},
            "box_loss": {"class_path": f"detect.training.losses.{box_loss}"},
        },
    }


LOSSES = [
    quality_loss("VarifocalLoss", "TaskAlignedAssigner", "GIoULoss"),
    quality_loss("QualityFocalLoss", "ATSSAssigner", "CIoULoss"),
    quality_loss("MultiBoxLoss", "ATSSAssigner", "DIoULoss"),
]


@pytest.mark.parametrize("loss", LOSSES, ids=["varifocal", "quality_focal", "multibox"])
def test_the_step_compiles_whole(loss: dict[str, Any]) -> None:
    torch.manual_seed(0)
    section = {**TINY["model"], **LCPAN, "loss": loss, "num_classes": 3}
    module = build_module(section).train()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[[4.0, 4, 40, 50], [30, 30, 34, 33], [0, 0, 0, 0]]]).repeat(2, 1, 1)
    labels = torch.tensor([[1, 3, 0], [2, 0, 0]])
    target = Target(boxes, labels, torch.zeros(2, 3, dtype=torch.bool))
    # With fullgraph=True what has a shape that depends on values would pass; without, it breaks the graph.
    counters.clear()
    compiled = torch.compile(module.loss_terms, backend="aot_eager")
    for name, value in compiled(images, target).terms.items():
        torch.testing.assert_close(value, module.loss_terms(images, target).terms[name], rtol=1e-3, atol=1e-3)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()


@pytest.mark.parametrize("model", [{**LCPAN, "loss": LOSSES[0]}, {**TOP_DOWN}], ids=["points", "six_anchors"])
def test_a_run__stopped_and_resumed__ends_alike(
    model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, {**TINY, "model": {**TINY["model"], **model}})
    data = make_coco(tmp_path / "coco", train=16, val=4)
    assert main(["fit", *fit_args(config, data, tmp_path / "straight")]) == 0
    args = fit_args(config, data, tmp_path / "stopped", "--checkpoint_minutes", "0")
    fit_until(EndAt("batch_end", 2), args, monkeypatch)
    more = ("--ckpt_path", "last", "--checkpoint_minutes", "10")
    assert main(["fit", *fit_args(config, data, tmp_path / "stopped", *more)]) == 0
    assert run_differences(tmp_path / "straight", tmp_path / "stopped") == []


@pytest.mark.parametrize("form", ["raw", "decoded", "nms"])
@pytest.mark.parametrize("section", [LCPAN, TOP_DOWN], ids=["LCPAN", "TopDown"])
def test_exported__equals_torch(section: dict[str, Any], form: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    detector = lively_detector(**{**section, "taps": ["c3", "c4", "c5"]}, image_size=[75, 100])
    checkpoint = save_checkpoint(detector, tmp_path / "plus.ckpt")
    # The file is compared with the checkpoint's network before it is kept.
    assert export(checkpoint, tmp_path / "plus.onnx", ExportOptions(format="onnx", form=form)) == 0

"""Every configuration on a GPU that is not there: see `tests.fake_gpu`."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from detect.inspection.anchor_layout import without_auto
from detect.training.averaging import ramped_average
from detect.training.build import build_module
from detect.training.distillation import Distillation
from detect.training.finite_guard import FiniteGuard
from detect.training.memory_estimate import FakeCopies, StepShape, fake_batch, fake_copy
from detect.training.module import DetectionModule
from detect.training.parameters import parameter_groups
from detect.types import Batch
from tests.fake_gpu import DEVICE, CpuTensorError, autocast_without_gpu, backward, fake_gpu

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIDE = 64
SHAPE = StepShape(2, (SIDE, SIDE), boxes=8)
GPU = torch.device(DEVICE, 0)


def settings_of(path: Path) -> dict[str, Any]:
    """A `model:` section that needs no data and no download, at the smallest input."""
    settings = without_auto(yaml.safe_load(path.read_text())["model"])
    settings.setdefault("num_classes", 3)
    settings["backbone"].setdefault("init_args", {}).pop("weights", None)
    return settings | {"image_size": [SIDE, SIDE]}


def parts_of(settings: dict[str, Any]) -> tuple[str, ...]:
    """The classes and words of a section that choose which code runs; numbers change none of it."""
    loss = settings.get("loss", {}).get("init_args", {})
    choices = (
        settings["backbone"]["class_path"],
        settings.get("taps"),
        settings.get("neck"),
        settings.get("loss", {}).get("class_path"),
        loss.get("assigner"),
        loss.get("box_loss"),
        settings.get("box_bins") is None,
    )
    return tuple(map(str, choices))


DETECTORS = sorted({*CONFIGS.rglob("*.yaml")} - {*CONFIGS.glob("pretrain/*")})
CASES = {parts_of(settings_of(path)): path for path in reversed(DETECTORS)}
"""One configuration for each combination of parts."""
cases = pytest.mark.parametrize("path", CASES.values(), ids=lambda path: f"{path.parent.name}-{path.stem}")


class OnGpu:
    """A module in training whose tensors are all on the GPU, and the trainer that it asks."""

    def __init__(self, module: DetectionModule, *, scaler: torch.amp.GradScaler | None = None) -> None:
        if module.distillation is not None:
            module.distillation.match_of(module.net, module.net.image_size)
        self.mode = FakeTensorMode(allow_non_fake_inputs=False)
        self.module = fake_copy(module, self.mode, DEVICE)
        self.module._device = GPU
        self.module._trainer = SimpleNamespace(  # type: ignore[assignment]
            accumulate_grad_batches=1,
            world_size=1,
            global_step=1,  # the guard's host looks at step 0 and 16
            log_every_n_steps=10,
            precision_plugin=SimpleNamespace(scaler=scaler),
        )

    def batch(self) -> Batch:
        images, target = fake_batch(SHAPE, DEVICE)
        rows = torch.zeros(len(images), dtype=torch.int64, device=GPU)
        return Batch(images, target, rows, torch.ones(len(images), 2, dtype=torch.int64, device=GPU))

    def train(
        self, dtype: torch.dtype | None = None, scaler: torch.amp.GradScaler | None = None, steps: int = 1
    ) -> None:
        """Steps as Lightning makes them: forward, loss, backward, guard, optimizer, average."""
        module = self.module.train()
        module._window_sums = module._no_sums()
        module._epoch_sums = module._no_sums()
        module.guard = FiniteGuard(GPU, can_skip=True)
        module.trainer.precision_plugin.scaler = scaler
        optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
        weights = [p for p in module.parameters() if p.requires_grad]
        averages, move = [torch.empty_like(p) for p in weights], ramped_average(0.9998)
        for step in range(steps):
            with nullcontext() if dtype is None else torch.autocast(DEVICE, dtype):
                loss = module.training_step(self.batch(), 0)
            module.zero_grad()
            backward(loss if scaler is None else scaler.scale(loss))
            module.on_before_optimizer_step(optimizer)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            move(averages, [p.detach() for p in weights], step)
        assert all(p.grad is not None and p.grad.device == GPU for p in weights)

    def validate(self, *, choosing: bool) -> set[str]:
        """A validation step; returns the operators that chose by values, which `choosing` allows."""
        module, seen = self.module.eval(), []
        module.evaluator = SimpleNamespace(update=lambda rows, found: seen.append(found))  # type: ignore[assignment]
        with fake_gpu(self.mode, choosing=choosing) as watch, torch.no_grad():
            module._val_sums = module._no_sums(module.val_term_names)
            module.validation_step(self.batch(), 0)
        (found,) = seen
        assert found.boxes.device == GPU
        return watch.chosen


@cases
def test_steps__stay_on_the_gpu_and_read_no_value(path: Path) -> None:
    on_gpu = OnGpu(build_module(settings_of(path)))
    with fake_gpu(on_gpu.mode):
        on_gpu.train()
        assert on_gpu.module.layout(on_gpu.batch().images).is_contiguous(memory_format=torch.channels_last)
    assert on_gpu.validate(choosing=True) == {"nonzero", "nms"}


@pytest.mark.parametrize("name", ["plus/v3_small", "table6/v1"])
def test_steps_of_mixed_precision_likewise(name: str) -> None:
    on_gpu = OnGpu(build_module(settings_of(CONFIGS / f"{name}.yaml")))
    with fake_gpu(on_gpu.mode):
        on_gpu.train(torch.bfloat16)
        on_gpu.train(torch.float16, torch.amp.GradScaler(DEVICE), steps=2)
        with torch.autocast(DEVICE, torch.bfloat16):
            assert on_gpu.validate(choosing=True) == {"nonzero", "nms"}


def test_a_validation_step_waits_for_the_gpu_where_boxes_are_chosen() -> None:
    on_gpu = OnGpu(build_module(settings_of(CONFIGS / "plus/v3_small.yaml")))
    with pytest.raises(DynamicOutputShapeException):
        on_gpu.validate(choosing=False)


@pytest.mark.parametrize("teacher", ["table6/v1"], ids=["of other anchors"])
def test_distillation_likewise(teacher: str) -> None:
    module = build_module(settings_of(CONFIGS / "plus/v3_small.yaml") | {"num_classes": 3})
    other = build_module(settings_of(CONFIGS / f"{teacher}.yaml") | {"num_classes": 3})
    module.distillation = Distillation(other.detector)
    on_gpu = OnGpu(module)
    with fake_gpu(on_gpu.mode):
        on_gpu.train(torch.bfloat16)


def test_torch_compile_traces_the_step_on_the_gpu() -> None:
    on_gpu = OnGpu(build_module(settings_of(CONFIGS / "plus/v3_small.yaml")))
    graphs = CompileCounter()
    compiled = torch.compile(on_gpu.module.train().loss_terms, backend=graphs, fullgraph=True)
    with autocast_without_gpu(), on_gpu.mode:
        images, target = fake_batch(SHAPE, DEVICE)
        assert compiled(on_gpu.module.layout(images), target).total.device == GPU
    assert graphs.frame_count == 1
    torch.compiler.reset()


class Faulty(torch.nn.Module):
    """A layer with one of the faults that the proof is for."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "CPU scalar":
            return self.weight * x * torch.tensor(2.0)
        if self.fault == "CPU vector":
            return self.weight * x + torch.arange(3)
        if self.fault == "moved to the GPU":
            return self.weight * x + torch.arange(3).to(x.device)
        if self.fault == "item":
            return self.weight * x * (self.weight * x).sum().item()
        if self.fault == "mask as index":
            return (self.weight * x)[x > 0]
        return self.weight * x * 2.0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("CPU scalar", CpuTensorError),
        ("CPU vector", CpuTensorError),
        ("moved to the GPU", CpuTensorError),
        ("item", DataDependentOutputException),
        ("mask as index", DynamicOutputShapeException),
    ],
)
def test_the_proof_can_fail(fault: str, error: type[Exception]) -> None:
    for name in ("none", fault):
        mode = FakeTensorMode(allow_non_fake_inputs=False)
        with FakeCopies(mode, DEVICE):
            layer = deepcopy(Faulty(name))
        with fake_gpu(mode), pytest.raises(error) if name == fault else nullcontext():
            backward(layer(torch.ones(3, device=DEVICE)).sum())


def test_gradients_without_the_engine_are_those_of_the_engine() -> None:
    torch.manual_seed(0)
    module = build_module(settings_of(CONFIGS / "plus/v3_small.yaml")).train()
    images, target = fake_batch(SHAPE, "cpu")
    found = []
    for run in (Tensor.backward, backward):
        module.zero_grad()
        run(module.loss_terms(images + 3, target).total)
        found.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 100
    for engine, own in zip(*found, strict=True):
        torch.testing.assert_close(own, engine, rtol=1e-4, atol=1e-5)

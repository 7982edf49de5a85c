"""Every configuration on a GPU that is not there: see `tests.fake_gpu`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from itertools import cycle
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

from detect.config.unknown_keys import build
from detect.inspection.anchor_layout import without_auto
from detect.training.averaging import ramped_average
from detect.training.build import build_module
from detect.training.classification import Accuracy, classifier_parser
from detect.training.distillation import Distillation
from detect.training.finite_guard import FiniteGuard
from detect.training.memory_estimate import FakeCopies, StepShape, fake_batch
from detect.training.module import DetectionModule
from detect.training.parameters import parameter_groups
from detect.types import Batch
from tests.fake_gpu import DEVICE, CpuTensorError, autocast_without_gpu, backward, fake_gpu

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIDE, WIDTH, CLASSES = 64, 0.05, 3
"""Smallest input and fewest channels: layers of equal shapes are worked out once. No other code runs."""
SHAPE = StepShape(2, (SIDE, SIDE), boxes=8)
GPU = torch.device(DEVICE, 0)
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "float16": torch.float16}
CHOOSING = {"nonzero", "nms"}
"""Operators of post-processing that choose boxes by their scores."""
TRACED = ("backbone", "neck", "loss", "box_bins")
"""Sections whose classes forward pass and loss call; a graph breaks within one, whatever the others are."""


def section_of(path: Path) -> dict[str, Any]:
    """The `model:` section of a configuration; it needs no data."""
    return without_auto(yaml.safe_load(path.read_text())["model"])


def settings_of(path: Path) -> dict[str, Any]:
    """The same without a download, at the smallest input."""
    settings = section_of(path)
    backbone = settings["backbone"].setdefault("init_args", {})
    backbone.pop("weights", None)
    backbone["width"] = WIDTH
    return settings | {"image_size": [SIDE, SIDE], "num_classes": CLASSES}


NUMBERS = {
    *("anchors.scales", "anchors.aspect_ratios", "anchors.steps", "image_size", "num_classes", "mean", "std"),
    *("init", "norm", "schedule", "statistics_images", "parameters.lr_factors", "backbone.init_args.weights"),
    *("loss.init_args.min_negatives", "loss.init_args.negative_ratio"),
    *("backbone.init_args." + name for name in ("settings", "size", "width", "reduced_tail")),
}
"""What says how wide, how many, how fast or where from: no other code runs for it."""


def parts_of(section: Any, name: str = "") -> frozenset[tuple[str, Any]]:
    """Each name of a `model:` section and the words that it has; of a number, whether it is zero."""
    if name in NUMBERS:
        return frozenset()
    if isinstance(section, dict):
        inner = (parts_of(value, f"{name}.{key}".lstrip(".")) for key, value in section.items())
        return frozenset().union(*inner)
    if isinstance(section, list):
        return frozenset().union(*(parts_of(value, name) for value in section))
    if isinstance(section, (int, float)):
        section = bool(section)
    return frozenset({(name, section)})


def kinds_of(paths: list[Path]) -> list[Path]:
    """One configuration for each set of parts."""
    return list({parts_of(section_of(path)): path for path in reversed(paths)}.values())


def cover_of(paths: list[Path], sections: tuple[str, ...]) -> list[Path]:
    """Configurations that have each part of some sections at least once; those of many parts come first."""
    parts = {path: read_by(section_of(path), sections) for path in paths}
    chosen: list[Path] = []
    seen: set[tuple[str, Any]] = set()
    for path in sorted(paths, key=lambda path: -len(parts[path])):
        if not parts[path] <= seen:
            chosen.append(path)
            seen |= parts[path]
    return chosen


def read_by(section: dict[str, Any], names: tuple[str, ...]) -> frozenset[tuple[str, Any]]:
    """The parts of a `model:` section that stand below some names."""
    return frozenset(part for part in parts_of(section) if part[0].startswith(names))


CLASSIFIERS = sorted(CONFIGS.glob("pretrain/*"))
DETECTORS = sorted({*CONFIGS.rglob("*.yaml")} - {*CLASSIFIERS})


def cases(paths: list[Path]) -> pytest.MarkDecorator:
    """Each configuration, and a precision for what would cost too much in all of them."""
    pairs = list(zip(paths, cycle(PRECISIONS), strict=False))
    names = [f"{path.parent.name}-{path.stem}-{precision}" for path, precision in pairs]
    return pytest.mark.parametrize(("path", "precision"), pairs, ids=names)


def precise(precision: str) -> AbstractContextManager[object]:
    """Mixed precision, or none for float32."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(DEVICE, dtype)


class OnGpu:
    """A module in training whose tensors are all on the GPU, and the trainer that it asks."""

    def __init__(self, module: Any) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=False)
        beside = "distillation" if isinstance(module, DetectionModule) else "accuracy"
        if beside == "distillation" and module.distillation is not None:
            module.distillation.match_of(module.net, module.net.image_size)
        with FakeCopies(self.mode, DEVICE):
            self.module, kept = deepcopy((module, getattr(module, beside)))
        setattr(self.module, beside, kept)
        self.module._device = GPU
        self.module._trainer = SimpleNamespace(
            accumulate_grad_batches=1,
            world_size=1,
            global_step=1,  # the guard's host looks at step 0 and 16
            log_every_n_steps=10,
            precision_plugin=SimpleNamespace(scaler=None),
        )

    def batch(self) -> Batch:
        images, target = fake_batch(SHAPE, DEVICE)
        rows = torch.zeros(len(images), dtype=torch.int64, device=GPU)
        return Batch(images, target, rows, torch.ones(len(images), 2, dtype=torch.int64, device=GPU))

    def train(self, precision: str, *, steps: int = 1) -> None:
        """Steps as Lightning makes them: forward, loss, backward, guard, optimizer, average."""
        with fake_gpu(self.mode) as watch:
            module = self.module.train()
            module._window_sums = module._no_sums()
            module._epoch_sums = module._no_sums()
            module.guard = FiniteGuard(GPU, can_skip=True)
            scaler = torch.amp.GradScaler(DEVICE) if precision == "float16" else None
            module.trainer.precision_plugin.scaler = scaler
            optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
            weights = [p for p in module.parameters() if p.requires_grad]
            averages, move = [torch.empty_like(p) for p in weights], ramped_average(0.9998)
            for step in range(steps):
                with precise(precision):
                    loss = module.training_step(self.batch(), 0)
                module.zero_grad()
                backward(loss if scaler is None else scaler.scale(loss))
                module.on_before_optimizer_step(optimizer)
                watch.counting = True
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
                watch.counting = False
                move(averages, [p.detach() for p in weights], step)
        assert all(p.grad is not None and p.grad.device == GPU for p in weights)

    def validate(self, precision: str, *, choosing: bool) -> set[str]:
        """A validation step; returns the operators that chose by values, which `choosing` allows."""
        module, seen = self.module.eval(), []
        module.evaluator = SimpleNamespace(update=lambda rows, found: seen.append(found))
        with fake_gpu(self.mode, choosing=choosing) as watch, torch.no_grad():
            module._val_sums = module._no_sums(module.val_term_names)
            with precise(precision):
                module.validation_step(self.batch(), 0)
        (found,) = seen
        assert found.boxes.device == GPU
        return watch.chosen


@pytest.mark.slow
@cases(kinds_of(DETECTORS))
def test_steps_stay_on_the_gpu_and_read_no_value(path: Path, precision: str) -> None:
    """In every precision; with a teacher in one of them."""
    module = build_module(settings_of(path))
    teacher = build_module(settings_of(CONFIGS / "table6" / "v1.yaml"))
    module.distillation = Distillation(teacher.detector)
    on_gpu = OnGpu(module)
    taught = on_gpu.module.distillation
    for one in PRECISIONS:
        on_gpu.module.distillation = taught if one == precision else None
        on_gpu.train(one)
        assert on_gpu.validate(one, choosing=True) == CHOOSING
    with fake_gpu(on_gpu.mode):
        assert on_gpu.module.layout(on_gpu.batch().images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@cases(kinds_of(CLASSIFIERS))
def test_steps_of_a_classifier_likewise(path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one precision; where images are mixed, in all."""
    pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")
    settings = settings_of(path)
    module = build(classifier_parser(), {"model": settings}, what="model settings").model
    mixes = [None] if module.mix is None else list(module.mix.transforms)
    # What is drawn is drawn on the CPU, whatever trains; it is drawn here before.
    for mix in filter(None, mixes):
        drawn = mix.make_params([torch.zeros(2, 3, SIDE, SIDE)])
        monkeypatch.setattr(mix, "make_params", lambda inputs, drawn=drawn: drawn)
    module.mix = None
    module.accuracy = Accuracy(CLASSES, torch.device("cpu"))
    on_gpu = OnGpu(module)
    several = PRECISIONS if any(mixes) else [precision]
    for precision, on_gpu.module.mix in zip(several, cycle(mixes), strict=False):
        # For optimizers that are not fused the host looks at every step whether it is finite; here it does
        # so in float16 alone, where GradScaler does.
        waits = precision == "float16" and "fused" not in settings["optimizer"]["init_args"]
        with pytest.raises(DataDependentOutputException) if waits else nullcontext():
            on_gpu.train(precision)
        on_gpu.module.eval()
        with fake_gpu(on_gpu.mode), torch.no_grad(), precise(precision):
            on_gpu.module._val_sums = on_gpu.module._no_sums()
            on_gpu.module.validation_step(on_gpu.batch(), 0)


@pytest.mark.slow
def test_a_second_step_with_a_scaler_likewise() -> None:
    OnGpu(build_module(settings_of(CONFIGS / "plus" / "v3_small.yaml"))).train("float16", steps=2)


@pytest.mark.parametrize("thresholds", [0.01, [0.01] * CLASSES], ids=["of all classes", "of each class"])
def test_a_validation_step_waits_for_the_gpu_where_boxes_are_chosen(thresholds: float | list[float]) -> None:
    settings = settings_of(CONFIGS / "plus" / "v3_small.yaml")
    on_gpu = OnGpu(build_module(settings | {"postprocess": {"score_threshold": thresholds}}))
    assert on_gpu.validate("float32", choosing=True) == CHOOSING
    with pytest.raises(DynamicOutputShapeException):
        on_gpu.validate("float32", choosing=False)


@pytest.mark.slow
@cases(cover_of(DETECTORS, TRACED))
def test_torch_compile_traces_the_step_on_the_gpu(path: Path, precision: str) -> None:
    on_gpu = OnGpu(build_module(settings_of(path)))
    graphs = CompileCounter()
    compiled = torch.compile(on_gpu.module.train().loss_terms, backend=graphs, fullgraph=True)
    with autocast_without_gpu(), on_gpu.mode, precise(precision):
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

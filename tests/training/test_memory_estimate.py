"""The estimate of a step's memory against torch's allocator on a CPU, within what docs/multi-gpu.md says."""

from typing import Any

import pytest
import torch

from detect.inspection.device_steps import allocated_on_cpu
from detect.training.build import build_module
from detect.training.memory_estimate import (
    CONTEXT_BYTES,
    MARGIN,
    StepMemory,
    StepShape,
    _autocast,
    estimate,
    fake_batch,
)
from detect.training.module import DetectionModule
from detect.training.parameters import parameter_groups

SETTINGS: dict[str, Any] = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "width": 0.35, "reduced_tail": True},
    },
    "num_classes": 3,
    "image_size": [96, 96],
}
SHAPE = StepShape(8, (96, 96), boxes=16)


@pytest.fixture(scope="module")
def module() -> DetectionModule:
    return build_module(SETTINGS)


def allocated(module: DetectionModule, shape: StepShape) -> int:
    """The most bytes that torch's allocator gave out at once for two real steps, weights included."""
    optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
    weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))

    def run() -> None:
        for _ in range(2):
            images, target = fake_batch(shape, "cpu")
            with _autocast(shape.precision):
                sums = module.loss_terms(module.layout(images), target)
            module.zero_grad()
            sums.total.backward()
            optimizer.step()

    return weights + allocated_on_cpu(run)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "images"), [("32-true", 8), ("bf16-mixed", 32)])
def test_counts_are_those_of_the_allocator_within_a_tenth(precision: str, images: int) -> None:
    shape = SHAPE._replace(precision=precision, batch_size=images)
    module = build_module(SETTINGS)
    counted = estimate(module, shape).counted
    assert counted == pytest.approx(allocated(module.train(), shape), rel=0.1)


@pytest.mark.slow
def test_what_is_kept_beside_a_step_is_counted(module: DetectionModule) -> None:
    weights = sum(parameter.nbytes for parameter in module.parameters())
    plain = estimate(module, SHAPE)
    assert plain.held == pytest.approx(2 * weights, rel=0.2)  # SGD's momentum; blocks are rounded up
    more = estimate(module, SHAPE._replace(averages=True, ranks=2))
    assert more.held - plain.held == pytest.approx(2 * weights, rel=0.2)
    assert more.counted - plain.counted == pytest.approx(2 * weights, rel=0.2)


@pytest.mark.slow
def test_the_state_of_adam_is_counted() -> None:
    module = build_module(SETTINGS | {"optimizer": {"class_path": "torch.optim.AdamW"}})
    weights = sum(parameter.nbytes for parameter in module.parameters())
    assert estimate(module, SHAPE).held == pytest.approx(3 * weights, rel=0.3)  # and its step


@pytest.mark.slow
def test_it_grows_with_the_images_and_leaves_the_module_alone(module: DetectionModule) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    small, large = (estimate(module, SHAPE._replace(batch_size=size)) for size in (8, 16))
    assert large.counted - large.held == pytest.approx(2 * (small.counted - small.held), rel=0.1)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training


def test_additions_of_the_total() -> None:
    assert StepMemory(10, 1000).total == int(1000 * (1 + MARGIN)) + CONTEXT_BYTES

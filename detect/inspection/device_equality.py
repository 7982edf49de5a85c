"""A training step on a device against the same one on the CPU: for `scripts/gpu-check`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from detect.inspection.device_steps import DTYPES, Check, CheckSetup, autocast, on_device, tried
from detect.inspection.step_time import endless_batches
from detect.training.module import DetectionModule
from detect.types import Batch, Detections

SAME_PX, SAME_SCORE = 1e-2, 1e-4
"""Detections that differ by no more are the same."""
LEAST_COMMON = 0.99
"""Share of the same detections: scores that are equal but for rounding may change places at a limit."""


class Bounds(NamedTuple):
    """How far a device may be from float32 on the CPU: shares of the size of what is compared."""

    loss: float
    gradient: float
    head_gradient: float
    outputs: float


BOUNDS = {
    "float32": Bounds(1e-4, 1e-2, 1e-2, 1e-3),
    "bf16": Bounds(5e-2, math.inf, 0.4, 0.2),
}
"""bf16 has 8 bits, and a gradient passes some sixty layers of random weights: on a CPU the whole one is off
by 0.6 to 1.2, where zeros would show 1, so that of the heads is held. It is off by 0.14 to 0.21 there
(configs/quickstart.yaml and configs/plus/chess.yaml at 64 and 192 px)."""


class Outcome(NamedTuple):
    """What a step computes, on the CPU in float64."""

    loss: Tensor
    gradient: Tensor
    """All parameters behind each other."""
    head_gradient: Tensor
    """Those of the heads."""
    outputs: Tensor
    """Of the network in evaluation mode."""


def outcome(module: DetectionModule, batch: Batch, device: str, dtype: torch.dtype | None) -> Outcome:
    """Loss, gradients and head outputs of a copy of `module` on a device."""
    copied = deepcopy(module).to(device)
    moved = on_device(batch, device)
    with autocast(device, dtype):
        sums = copied.loss_terms(copied.layout(moved.images), moved.target)
    (sums.total / sums.positives.clamp(min=1)).backward()
    gradients = {n: p.grad.flatten() for n, p in copied.net.named_parameters() if p.grad is not None}
    of_heads = [gradient for name, gradient in gradients.items() if "_heads." in name]
    with torch.no_grad(), autocast(device, dtype):
        outputs = copied.net(copied.layout(moved.images))
    flat = torch.cat([outputs.cls_logits.float().flatten(), outputs.box_deltas.float().flatten()])
    parts = (sums.total, torch.cat([*gradients.values()]), torch.cat(of_heads), flat)
    return Outcome(*(value.detach().double().cpu() for value in parts))


def distances(found: Outcome, expected: Outcome) -> Bounds:
    """Length of the difference over that of what was expected, of each part."""
    parts = zip(found, expected, strict=True)
    return Bounds(*((a - b).norm().item() / max(b.norm().item(), 1e-12) for a, b in parts))


def check_equality(setup: CheckSetup) -> Check:
    """The step of the device against float32 on the CPU, and detections of the same outputs on both."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # it has 10 bits: what is compared here is float32
    try:
        data = setup.data()
        module, batch = setup.module(data), next(endless_batches(data))
        expected = outcome(module, batch, "cpu", None)
        rows: list[tuple[str, ...]] = []
        share = common_detections(module, batch, setup.device)
        good = share >= LEAST_COMMON
        for name, bounds in BOUNDS.items():
            found = distances(outcome(module, batch, setup.device, DTYPES[name]), expected)
            good &= all(value <= bound for value, bound in zip(found, bounds, strict=True))
            rows.append((name, *map(beside_bound, found, bounds)))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    return Check(
        "Equal to the CPU",
        "passed" if good else "failed",
        f"Relative differences of a training step of {setup.batch_size} images from float32 on the CPU. "
        f"Of the same outputs both choose {share:.1%} of the same detections (at least {LEAST_COMMON:.0%}).",
        ("precision", "loss", "gradients", "of the heads", "outputs"),
        tuple(rows),
    )


def equality_checks(setup: CheckSetup) -> Iterator[Check]:
    """The one of this file, or why it could not be made."""
    yield tried("Equal to the CPU", lambda: check_equality(setup))


def beside_bound(value: float, bound: float) -> str:
    """A difference beside its maximum."""
    return f"{value:.1e}" + (f" of at most {bound:.0e}" if math.isfinite(bound) else "")


def common_detections(module: DetectionModule, batch: Batch, device: str) -> float:
    """Share of the detections that a device and the CPU both choose from the CPU's head outputs."""
    detector = deepcopy(module.detector).eval()
    with torch.no_grad():
        outputs = detector.net(detector.layout(batch.images))
        expected = detector.postprocess(outputs, detector.net.anchors)
        anchors = detector.net.anchors.to(device)
        found = detector.postprocess(outputs.map(lambda values: values.to(device)), anchors)
    return overlap(Detections(*(part.cpu() for part in found)), expected)


def overlap(found: Detections, expected: Detections) -> float:
    """Share of (B, D) detections, of the set that has more, that are in (B, E) too, in any order."""
    near = (found.boxes.unsqueeze(2) - expected.boxes.unsqueeze(1)).abs().amax(-1) <= SAME_PX
    alike = (found.scores.unsqueeze(2) - expected.scores.unsqueeze(1)).abs() <= SAME_SCORE
    same = near & alike & (found.labels.unsqueeze(2) == expected.labels.unsqueeze(1))
    real, expected_real = found.scores > 0, expected.scores > 0
    common = (same.any(2) & real).sum()
    most = max(int(real.sum()), int(expected_real.sum()))
    return float(common / most) if most else 1.0

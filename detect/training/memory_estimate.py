"""Memory that a training step takes of a GPU, estimated before the first from shapes; nothing is computed.

The step runs on torch's fake tensors, which have shapes and no values, and every storage is counted from its
creation until nothing refers to it. What no shape tells is added: the context of CUDA, and a share for
workspaces of cuDNN and for memory that lies idle between blocks. A test compares the counts with torch's
allocator on a CPU (`tests/training/test_memory_estimate.py`); no GPU was at hand, so both additions are
assumptions.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detect.training.module import DetectionModule
from detect.training.parameters import parameter_groups
from detect.types import Target

CONTEXT_BYTES = 500_000_000
"""CUDA's own: kernels and driver of a process. An assumption: 0.3 to 0.6 GB are usual for torch."""
MARGIN = 0.15
"""Share of what is counted for workspaces of cuDNN and for fragments. An assumption."""
BLOCK_BYTES = 512
"""Torch's allocator gives multiples of it on a GPU."""
GB = 1e9
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Types of activations under Lightning's names; under any other they count as float32."""


class StepShape(NamedTuple):
    """What decides how large a step is, besides the network."""

    batch_size: int
    """Images per device and forward pass."""
    image_size: tuple[int, int]
    """(H, W) px, the largest that training shows."""
    boxes: int
    """Ground-truth boxes per image, padded."""
    precision: str | int | None = None
    """As the trainer's."""
    accumulates: bool = False
    """Several forward passes make a step."""
    averages: bool = False
    """A moving average of the weights is kept."""
    ranks: int = 1


class StepMemory(NamedTuple):
    """Bytes of one device."""

    held: int
    """Before a step: weights, average, teacher, state of the optimizer."""
    counted: int
    """The most during a step, what is held included."""

    @property
    def total(self) -> int:
        """With CUDA's own and the margin."""
        return int(self.counted * (1 + MARGIN)) + CONTEXT_BYTES


class CountedStorages(TorchDispatchMode):
    """Counts the bytes of storages that live, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.startswith("_fused_"):
            return None  # an optimizer's update in place, which has no shape function
        found = func(*args, **(kwargs or {}))
        self.add(tree_leaves(found))
        return found

    def add(self, values: Sequence[Any]) -> None:
        """Note tensors among `values` whose storages are not known yet."""
        for value in values:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if (key := storage._cdata) not in self._known:
                    size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
                    self._known.add(key)
                    self.bytes += size
                    self.peak_bytes = max(self.peak_bytes, self.bytes)
                    weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


class FakeCopies(TorchFunctionMode):
    """While it is active, `deepcopy` gives fake tensors on `device` for every tensor."""

    def __init__(self, mode: FakeTensorMode, device: str) -> None:
        super().__init__()
        self.mode, self.device = mode, device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C.TensorBase.clone:  # by which a parameter is copied
            return self.fake(args[0])
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = self.fake(tensor)
        return memo[id(tensor)]

    def fake(self, tensor: Tensor) -> Tensor:
        """A fake tensor of the same shape, strides and type."""
        with self.mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device)


def fake_copy(module: DetectionModule, mode: FakeTensorMode, device: str) -> DetectionModule:
    """A module in training with its shapes and without its values, as if it lay on `device`."""
    with FakeCopies(mode, device):
        copied, distillation = deepcopy((module, module.distillation))
    copied.distillation = distillation
    return copied


def fake_batch(shape: StepShape, device: str) -> tuple[Tensor, Target]:
    """Images (B, 3, H, W) and their boxes (B, G), as the loader gives them."""
    batch, boxes = shape.batch_size, shape.boxes
    images = torch.zeros(batch, 3, *shape.image_size, dtype=torch.uint8, device=device)
    target = Target(
        torch.zeros(batch, boxes, 4, device=device),
        torch.zeros(batch, boxes, dtype=torch.int64, device=device),
        torch.zeros(batch, boxes, dtype=torch.bool, device=device),
    )
    return images, target


def estimate(module: DetectionModule, shape: StepShape) -> StepMemory:
    """Memory of the second training step of a run: the first makes the state of the optimizer.

    Fake tensors of the CPU stand for those of a GPU: shapes, types and lives are the same.

    Args:
        module: anywhere; nothing of it changes.
        shape: of the step.
    """
    if module.distillation is not None:
        module.distillation.match_of(module.net, shape.image_size)
    module.net.anchors_of(shape.image_size)
    mode, counted = FakeTensorMode(), CountedStorages()
    fake = fake_copy(module, mode, "cpu").train()
    with mode, counted:
        counted.add([*fake.parameters(), *fake.buffers()])
        trained = [p for p in fake.parameters() if p.requires_grad]
        kept = [torch.empty_like(p) for p in fake.parameters()] if shape.averages else []
        if shape.ranks > 1:  # the buckets in which DDP sends gradients
            kept += [torch.empty_like(p) for p in trained]
        if fake.distillation is not None:
            teacher = fake.distillation.detector
            counted.add([*teacher.parameters(), *teacher.buffers()])
        optimizer = fake.optimizer_from(parameter_groups(fake.net, fake.parameter_config))
        for _ in range(2):
            _forward_and_backward(fake, shape)
            optimizer.step()
        peak = counted.peak_bytes
        optimizer.zero_grad()
        held = counted.bytes
    del kept
    return StepMemory(held, peak)


def _forward_and_backward(fake: DetectionModule, shape: StepShape) -> None:
    """As Lightning does it: gradients of the step before are freed between the two, unless they add up."""
    images, target = fake_batch(shape, "cpu")
    with _autocast(shape.precision):
        sums = fake.loss_terms(fake.layout(images), target)
    if not shape.accumulates:
        fake.zero_grad()
    sums.total.backward()


def _autocast(precision: str | int | None) -> AbstractContextManager[object]:
    dtype = MIXED.get(str(precision))
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)

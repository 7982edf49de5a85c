"""A GPU without values: code that runs on it has every tensor there, reads none and makes no shape of one.

Torch's fake tensors stand for those of the device `cuda`, on any machine. They let CPU scalars take part;
`OnOneDevice` does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "cuda"
aten = torch.ops.aten


class CpuTensorError(Exception):
    """A tensor of the CPU took part."""


class OnOneDevice(TorchDispatchMode):
    """Refuses every operator that takes or gives a tensor of the CPU, numbers of Python apart.

    Args:
        choosing: operators that give as many rows as values say; they are answered with all rows.
    """

    def __init__(self, *, choosing: bool = False) -> None:
        super().__init__()
        self.choosing = choosing
        self.counting = False
        """An optimizer updates: those that are not fused count their steps by scalars of the CPU."""
        self.chosen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.refuse_cpu((args, kwargs), name)
        if name.startswith("_fused_"):  # an optimizer's update in place: it has no shape function
            return None
        if self.choosing and name in ("nonzero", "nms"):
            self.chosen.add(name)
            rows = args[0].numel() if name == "nonzero" else len(args[0])
            columns = (args[0].dim(),) if name == "nonzero" else ()
            return args[0].new_empty(rows, *columns, dtype=torch.int64)
        found = func(*args, **(kwargs or {}))
        self.refuse_cpu(found, name)
        return found

    def refuse_cpu(self, values: Any, name: str) -> None:
        """Raise `CpuTensorError` for a tensor of the CPU; Python's numbers come as such, not fake."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.device.type != DEVICE:
                if value.dim() or (isinstance(value, FakeTensor) and not self.counting):
                    raise CpuTensorError(f"{name} has a tensor of the {value.device.type}: {value.shape}")


@contextmanager
def autocast_without_gpu() -> Iterator[None]:
    """Let `torch.autocast("cuda")` and GradScaler act where there is no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
        yield


def backward(loss: Tensor) -> None:
    """Gradients of the leaves of `loss`: each node of the graph is called in order.

    Torch's own engine asks the driver for a stream, and there is no driver.
    """
    gradients: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    with torch.no_grad():
        for node in reversed(nodes_of(loss.grad_fn)):
            given = gradients.pop(node, None)
            if given is None:
                continue
            if hasattr(node, "variable"):
                leaf, (gradient,) = node.variable, given
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
                continue
            found = node(*given)
            found = found if isinstance(found, tuple) else (found,)
            for (child, place), gradient in zip(node.next_functions, found, strict=True):
                if child is not None and gradient is not None:
                    metadata = child._input_metadata
                    gradient = gradient.to(metadata[place].dtype).sum_to_size(metadata[place].shape)
                    slots = gradients.setdefault(child, [None] * len(metadata))
                    before = slots[place]
                    slots[place] = gradient if before is None else before + gradient


def nodes_of(root: Any) -> list[Any]:
    """Nodes of a graph of gradients, each behind all that it leads to."""
    order, seen, stack = [], {root}, [(root, iter(root.next_functions))]
    while stack:
        node, children = stack[-1]
        child = next((child for child, _ in children if child is not None and child not in seen), None)
        if child is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(child)
            stack.append((child, iter(child.next_functions)))
    return order


@contextmanager
def fake_gpu(mode: FakeTensorMode, *, choosing: bool = False) -> Iterator[OnOneDevice]:
    """Within the block every tensor is of the GPU, and none has values."""
    with autocast_without_gpu(), mode, OnOneDevice(choosing=choosing) as watch:
        yield watch

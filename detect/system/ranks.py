"""What the processes of one run tell each other; alone, a process hears only itself."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn


def rank_by_environment() -> int:
    """The rank that torchrun, SLURM or Lightning gave this process: known before the processes have met."""
    rank: int = getattr(rank_zero_only, "rank", 0)
    return rank


def several_ranks() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks, on every rank. The host waits for no device."""
    if several_ranks():
        values = values.clone()
        dist.all_reduce(values)
    return values


def max_over_ranks(values: Tensor) -> Tensor:
    """The largest of each of `values` over all ranks, on every rank."""
    if several_ranks():
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def take_statistics_of_rank_0(module: nn.Module) -> None:
    """Give every rank the floating-point buffers of rank 0; BatchNorm's averages drift apart between them."""
    if several_ranks():
        for buffer in module.buffers():
            if torch.is_floating_point(buffer):
                dist.broadcast(buffer, src=0)

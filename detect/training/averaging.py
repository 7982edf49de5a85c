"""A moving average of the weights that is of use from the first epoch on."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from detect.errors import InputError

Average = Callable[[list[Tensor], list[Tensor], Tensor | int], None]
"""Moves averaged weights in place towards the current ones; the last is the number of steps before."""


def ramped_average(decay: float) -> Average:
    """The average whose decay at optimizer step n = 1, 2, ... is min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], steps_before: Tensor | int) -> None:
        n = int(steps_before) + 1
        # In float32, and as a number: a tensor of the CPU would make a GPU multiply weight by weight.
        kept = min(np.float32(1 + n) / np.float32(10 + n), np.float32(decay))
        change = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(change, float(np.float32(1) - kept))
        torch._foreach_add_(averaged, change)

    return update


class AveragedWeights(WeightAveraging):
    """Validates, keeps and exports a moving average (EMA) of the weights.

    The average follows closely at first and slowly later, so that a run of some hundred steps has one too.
    Only weights are averaged: BatchNorm's statistics are recomputed for the average before each validation
    (`model.statistics_images`), and between two validations they are those of the raw weights.

    Args:
        decay: largest share of the average that a step keeps; reached after 9 / (1 - decay) steps.

    Raises:
        InputError: a decay that is no average.

    Source: TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def __init__(self, *, decay: float = 0.9998) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"AveragedWeights has the decay {decay}; give 0 or more, below 1")
        super().__init__(use_buffers=False, multi_avg_fn=ramped_average(decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the module comes there later
        super().setup(trainer, pl_module, stage)
        if (average := self._average_model) is not None:
            # The host asks at every step whether it is 0, and is not to wait for a device.
            average.n_averaged = average.n_averaged.cpu()

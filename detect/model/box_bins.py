"""Box deltas as distributions over bins: what the box heads give with `model.box_bins`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detect.errors import InputError

BIN_RANGE = 8.0
"""Bins reach from -8 to 8, in units of box_deltas: a centre 0.8 anchor sizes away, a size of 1/5 to 5 times
the anchor's. A delta beyond is predicted as the last bin. With anchors that fit the data, under 1 % of the
positives are beyond (measured with three taps on blood cells and chess pieces)."""


class BoxBins(nn.Module):
    """The expectation of distributions over evenly spaced deltas.

    Args:
        count: bins of each delta.

    Raises:
        InputError: fewer than two.

    Source: Generalized Focal Loss (arXiv 2006.04388) eq. 5; there of distances, from 0 on.
    """

    values: Tensor
    """(count,) the delta of each bin."""

    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 2:
            raise InputError(f"model.box_bins is {count}; give null or 2 or more")
        self.count = count
        self.register_buffer("values", torch.linspace(-BIN_RANGE, BIN_RANGE, count), persistent=False)

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., count) logits to (...) deltas in float32, whatever the autocast state."""
        # No matrix product: autocast would round the values of the bins.
        return (box_logits.float().softmax(-1) * self.values).sum(-1)

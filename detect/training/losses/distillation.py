"""What a teacher's outputs say to a student: divergence of class maps and of boxes, no state and no files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detect.types import ScoreActivation

LEAST_LOG_RATIO = 1e-6
"""Below it 1 - p is not told from 0 in float32."""
NOWHERE = -1e4
"""Log-odds of an anchor that is left out of a map: softmax over the others is the same, and no gradient."""


def class_log_odds(cls_logits: Tensor, activation: ScoreActivation) -> Tensor:
    """log(p / (1 - p)) of every object class, the same quantity for softmax and sigmoid heads.

    A sigmoid's logit is that already. Softmax logits are not: a number added to all columns of an anchor
    changes no score, and must change no map.

    Args:
        cls_logits: (..., K + 1) float32; column 0 is background.
        activation: that the logits were trained for.

    Returns:
        (..., K)
    """
    if activation == "sigmoid":
        return cls_logits[..., 1:]
    log_score = cls_logits.log_softmax(-1)[..., 1:]
    return log_score - torch.log(-torch.expm1(log_score.clamp(max=-LEAST_LOG_RATIO)))


def class_maps(values: Tensor, levels: Sequence[int], per_cell: Sequence[int]) -> list[Tensor]:
    """Values of all anchors as maps: one channel for each class of each anchor of a cell.

    Args:
        values: (B, A, K), map by map, the anchors of a cell side by side.
        levels: anchors of each map; their sum is A.
        per_cell: anchors per cell of each map.

    Returns:
        (B, anchors per cell * K, cells), one for each map.
    """
    parts = zip(values.split(list(levels), dim=1), per_cell, strict=True)
    return [part.unflatten(1, (-1, count)).flatten(2).transpose(1, 2) for part, count in parts]


def softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """temperature^2 times KL(teacher || student) of softmax(logits / temperature) over the last dimension.

    Args:
        student: (..., N) logits.
        teacher: (..., N) logits, detached.
        temperature: above 1 the smaller logits count for more; its square keeps the size of the gradient.

    Returns:
        (...), 0 where both are alike.

    Source: "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531) section 2.
    """
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * divergence.sum(-1)


def channel_wise_divergence(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, temperature: float
) -> Tensor:
    """CWD: each channel's softmax over positions, the mean over the channels of a map, summed over maps.

    Args:
        student: (B, C, cells) of each map.
        teacher: likewise, of the same shapes.
        temperature: see `softened_divergence`.

    Returns:
        (B,)

    Source: Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256) eq. 4 and 5.
    """
    maps = zip(student, teacher, strict=True)
    return torch.stack([softened_divergence(s, t, temperature=temperature).mean(1) for s, t in maps]).sum(0)


def bin_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """LD: of the distributions over the bins of `model.box_bins`, the mean of the four deltas.

    Args:
        student: (..., 4, n) logits of the bins.
        teacher: likewise, relative to the same anchors.
        temperature: see `softened_divergence`.

    Returns:
        (...)

    Source: Localization Distillation for Dense Object Detection (arXiv 2102.12252) eq. 3.
    """
    return softened_divergence(student, teacher, temperature=temperature).mean(-1)

"""What losses on sigmoid scores have in common: the prior, and truth as one column per class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detect.errors import InputError
from detect.training.assigners import Assignment
from detect.training.losses.base import DetectionLoss
from detect.types import ScoreActivation


class SigmoidLoss(DetectionLoss):
    """A loss on the K object columns, each a score of its own; the background column gets no weight.

    A subclass sets `prior`, the probability of an object that a fresh head starts from.

    Source: RetinaNet (arXiv 1708.02002) section 4.1 (prior).
    """

    score_activation: ScoreActivation = "sigmoid"
    prior: float

    def prior_bias(self, num_classes: int) -> Tensor:
        bias = torch.full((num_classes + 1,), -math.log((1 - self.prior) / self.prior))
        bias[0] = 0.0
        return bias


def checked_prior(prior: float) -> float:
    """`prior`, where it is one.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise InputError(f"loss.prior is {prior}; give a probability between 0 and 1")
    return prior


def is_label(assignment: Assignment, num_classes: int) -> Tensor:
    """(B, A, K) bool: whether a class is the label of an anchor; all false where it is not positive."""
    labels = assignment.labels
    classes = torch.arange(1, num_classes + 1, device=labels.device)
    return labels.unsqueeze(-1) == classes


def sum_of_counted(loss: Tensor, assignment: Assignment) -> Tensor:
    """The sum of (B, A, K) losses over classes and anchors, weighted; without anchors that are ignored."""
    by_anchor = loss.sum(-1) * assignment.weights
    return torch.where(assignment.foreground | assignment.background, by_anchor, 0.0).sum()

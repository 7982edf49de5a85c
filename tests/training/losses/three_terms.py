"""A loss with a third term, as somebody who adds one would write it."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from detect.training import losses
from detect.training.assigners import Assignment
from detect.training.losses import MultiBoxLoss
from detect.types import HeadOutputs


class ThreeTermLoss(MultiBoxLoss):
    """Keeps logits small as well."""

    term_names = (*MultiBoxLoss.term_names, "loss_size")

    def terms(self, head_outputs: HeadOutputs, anchors: Tensor, assignment: Assignment) -> dict[str, Tensor]:
        size = 1e-4 * head_outputs.cls_logits.square().sum()
        return {**super().terms(head_outputs, anchors, assignment), "loss_size": size}


def name_it(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let a configuration name the loss among our own; its settings."""
    monkeypatch.setattr(ThreeTermLoss, "__module__", losses.__name__)
    monkeypatch.setattr(losses, "ThreeTermLoss", ThreeTermLoss, raising=False)
    return {"class_path": "detect.training.losses.ThreeTermLoss"}

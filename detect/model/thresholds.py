"""Settings and constants of post-processing, apart from torch: prediction from files needs none of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detect.errors import InputError

# SSD's Caffe release; not in the paper.
CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
# A box never grows beyond 1000/16 of its anchor, so that exp() cannot overflow. Source: detectron.
MAX_LOG_RATIO = math.log(1000 / 16)

LOGIT_SLACK = 1e-3
"""Slack for rounding when anchors are ruled out by logits alone, far above what float32 loses."""


Threshold = float | tuple[float, ...]
"""A score that detections exceed: of all classes, or one for each class, label 1 first."""


@dataclass(frozen=True)
class PostProcessConfig:
    """Thresholds; all of them travel in checkpoints and exported files."""

    score_threshold: Threshold = 0.01
    """Detections score more. Low for mAP; people want 0.3 or so, as `detect predict` has it. A list has one
    for each class."""
    nms_threshold: float = 0.55
    """IoU above which the lower of two scores of one class is suppressed. torchvision's value for SSDLite."""
    max_detections: int = 100
    """Detections kept per image, the best ones; COCO counts 100 at most."""
    topk_candidates: int | None = 1000
    """Candidates kept per image before NMS, over all classes; null: all."""
    topk_per_class: int | None = None
    """Candidates kept per image and class before NMS (torchvision: 300); null: all."""
    class_thresholds: tuple[float, ...] | None = None
    """Score threshold of each class in predictions, as `detect thresholds` finds them; null: 0.3 for all."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "class_thresholds"):
            value = getattr(self, name)
            if isinstance(value, list):  # as files hold it
                object.__setattr__(self, name, tuple(value))
            if value is not None:
                check_score_threshold(getattr(self, name), f"postprocess.{name}")
        if not 0 < self.nms_threshold <= 1:
            raise InputError(
                f"postprocess.nms_threshold is {self.nms_threshold}; give an IoU above 0, at most 1"
            )
        for name in ("max_detections", "topk_candidates", "topk_per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"postprocess.{name} is {value}; give 1 or more")

    def check_classes(self, num_classes: int) -> None:
        """Stop where thresholds are not one for each class.

        Raises:
            InputError: names the setting and both numbers.
        """
        for name in ("score_threshold", "class_thresholds"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_classes:
                raise InputError(
                    f"postprocess.{name} has {len(value)} thresholds for {num_classes} classes; give one each"
                )


def lowest(threshold: Threshold) -> float:
    """What a detection of any class must exceed."""
    return min(threshold) if isinstance(threshold, tuple) else threshold


def higher(one: Threshold, other: Threshold) -> Threshold:
    """The higher of two thresholds, class by class where one of them has classes."""
    if isinstance(one, tuple):
        others = other if isinstance(other, tuple) else (other,) * len(one)
        return tuple(map(max, one, others))
    return higher(other, one) if isinstance(other, tuple) else max(one, other)


def check_score_threshold(value: Threshold, name: str) -> None:
    """Stop at a threshold out of range. A detection scores more than it, so that 1 would leave none.

    Args:
        value: the threshold.
        name: of the setting, for the message.

    Raises:
        InputError: names both.
    """
    for one in value if isinstance(value, tuple) else (value,):
        if not 0 <= one < 1:
            raise InputError(f"{name} is {one}; give a value from 0 to below 1")


def logit(score: float) -> float:
    """The inverse of the sigmoid, in plain numbers: a tensor would cost more than all that it decides."""
    if not 0 < score < 1:
        return math.inf if score >= 1 else -math.inf
    return math.log(score / (1 - score))

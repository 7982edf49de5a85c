"""What a caller must know to use a network: its input, what its outputs mean, and the way to detections.

A checkpoint's description (`TorchDetector.describe`) and an exported file's hold the same plain values;
here they become one object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from detect.errors import InputError
from detect.model.thresholds import PostProcessConfig, Threshold, check_score_threshold, higher
from detect.types import ClassMap, Detections, HeadOutputs, ResizeRule, ScoreActivation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from detect.model.detector import TorchDetector
    from detect.model.postprocess import PostProcess

Form = Literal["raw", "decoded", "nms"]
"""How far a graph goes: head outputs, scores and boxes of every anchor, or detections."""

OUTPUTS: dict[Form, tuple[str, ...]] = {
    "raw": ("cls_logits", "box_deltas"),
    "decoded": ("scores", "boxes"),
    "nms": ("boxes", "scores", "labels", "counts"),
}
"""Names of a graph's outputs, in order: (B, A, K + 1), (B, A, 4) | (B, A, K), (B, A, 4) | (B, D, 4), (B, D),
(B, D), (B,). Boxes are xyxy px of the input; padded rows are zero; labels are 1..K."""


PREDICTION_THRESHOLD = 0.3
"""Score threshold of predictions for people, where none is given. A model's own is lower, for mAP."""


@dataclass(frozen=True)
class ModelSpec:
    """The plain facts of one network, whatever runs it."""

    classes: ClassMap
    image_size: tuple[int, int]
    """(H, W) of the input in px."""
    resize_rule: ResizeRule
    form: Form
    thresholds: PostProcessConfig
    """Of what is still to be done after a raw or decoded graph. One with NMS has done it, by these."""
    activation: ScoreActivation
    """Of the loss that the network was trained with."""
    anchors: NDArray[np.float32] | None
    """(A, 4) xyxy px of the input; raw form alone."""
    checkpoint_sha256: str | None = None
    """Hash of the checkpoint that an exported file was made from; None for random weights and in torch."""

    @classmethod
    def of_detector(cls, detector: TorchDetector) -> ModelSpec:
        """The spec of a detector in torch.

        Raises:
            InputError: it knows no classes.
        """
        if detector.classes is None:
            raise InputError("this detector knows no classes: load it from a checkpoint")
        return cls(
            detector.classes,
            detector.net.image_size,
            detector.resize_rule,
            "raw",
            detector.postprocess.config,
            detector.postprocess.activation,
            detector.net.anchors.numpy(force=True),
        )

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> ModelSpec:
        """The spec of an exported file; `description` was checked by `exported_file.read_description`."""
        height, width = description["input"]["image_size"]
        thresholds = dict(description["postprocess"])
        activation = thresholds.pop("score_activation")
        anchors = description["export"]["anchors"]
        return cls(
            ClassMap.from_list(description["classes"]),
            (height, width),
            description["input"]["resize_rule"],
            description["export"]["form"],
            PostProcessConfig(**thresholds),
            activation,
            None if anchors is None else np.array(anchors, dtype=np.float32),
            (description["export"].get("checkpoint") or {}).get("sha256"),
        )

    @property
    def array_dtype(self) -> np.dtype[Any]:
        """uint8, or float32 in 0..255 units where the resize rule does not round to whole values."""
        return np.dtype(np.uint8 if self.resize_rule == "antialias" else np.float32)

    @property
    def input_dtype(self) -> torch.dtype:
        """`array_dtype` in torch."""
        import torch

        return torch.uint8 if self.resize_rule == "antialias" else torch.float32

    @cached_property
    def postprocess(self) -> PostProcess:
        """What is still to be done after a raw or decoded graph, in torch."""
        from detect.model.postprocess import PostProcess

        return PostProcess(self.thresholds, activation=self.activation, image_size=self.image_size)

    @cached_property
    def _anchors_on(self) -> dict[torch.device, Tensor]:
        """The anchors on each device that asked for them."""
        return {}

    def at_threshold(self, score_threshold: float | None) -> ModelSpec:
        """The spec with another score threshold in post-processing.

        Args:
            score_threshold: detections score more; null: the thresholds of the classes where the detector has
                them, else `PREDICTION_THRESHOLD`; or that of a graph with NMS where it is higher.

        Raises:
            InputError: not from 0 to below 1, or lower than that of a graph with NMS.
        """
        built_in = self.thresholds.score_threshold if self.form == "nms" else 0.0
        threshold: Threshold
        if score_threshold is None:
            threshold = higher(self.thresholds.class_thresholds or PREDICTION_THRESHOLD, built_in)
        else:
            threshold = score_threshold
            check_score_threshold(threshold, "score_threshold")
            if (highest := max(built_in) if isinstance(built_in, tuple) else built_in) > threshold:
                raise InputError(
                    f"score_threshold is {threshold}, but the file was exported with {highest} in its "
                    f"graph: export again with --score_threshold {threshold}, or without NMS "
                    "(--form decoded)"
                )
        return replace(self, thresholds=replace(self.thresholds, score_threshold=threshold))

    def detections(self, outputs: tuple[Tensor, ...]) -> Detections:
        """What a graph of this form gave, to detections in px of the input, by torch.

        Args:
            outputs: in the order of `OUTPUTS[self.form]`.
        """
        import torch

        device = outputs[0].device
        postprocess = self.postprocess.to(device)  # copies once
        if self.anchors is not None:  # raw form
            if device not in self._anchors_on:
                self._anchors_on[device] = torch.as_tensor(self.anchors, device=device)
            return postprocess(HeadOutputs(*outputs), self._anchors_on[device])
        if self.form == "decoded":
            return postprocess.from_decoded(*outputs)
        boxes, scores, labels, _ = outputs
        least = postprocess.least_scores  # may be higher than the graph's
        kept = scores > (least if isinstance(least, float) else least[labels - 1])
        return Detections(
            torch.where(kept.unsqueeze(-1), boxes, 0.0),
            torch.where(kept, scores, 0.0),
            torch.where(kept, labels, 0),
        )

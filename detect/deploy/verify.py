"""An exported file compared with PyTorch: the same numbers on the same images, or the difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detect.boxes import box_iou
from detect.deploy.graphs import Decode
from detect.deploy.runtimes.base import Runtime
from detect.deploy.runtimes.eager import EagerRuntime
from detect.deploy.spec import OUTPUTS
from detect.model.detector import TorchDetector
from detect.model.thresholds import PostProcessConfig
from detect.types import Detections

BATCHES = (1, 3)
LOGIT_TOLERANCE = 1e-4
"""Tolerance of logits and deltas, and of scores, which move less than their logits."""
RELATIVE_TOLERANCE = 1e-5
"""Tolerance as a share of the largest logit or delta of the batch, where that is more: float32 rounds
relatively."""
BOX_TOLERANCE_PX = 0.05
"""A delta off by 1e-4 moves the edge of a box of 320 px by 0.006 px; of one 62.5 times its anchor by more."""
IOU_TOLERANCE = 1e-3


class Verification(NamedTuple):
    """What was compared and how far it was off."""

    batches: tuple[int, ...]
    largest_difference: dict[str, float]
    """Largest difference of each output that every anchor has; empty for a graph with NMS."""
    detections: int
    """Number of detections that agree."""
    faults: list[str]
    """What is beyond tolerance; empty for a good file."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for FILE.json."""
        return {**self._asdict(), "tolerance": {"logits": LOGIT_TOLERANCE, "boxes_px": BOX_TOLERANCE_PX}}


class Reference(NamedTuple):
    """What torch gives for a batch."""

    outputs: dict[str, Tensor]
    """Every output that every anchor has, by its name in `model_spec.OUTPUTS`."""
    scores: Tensor
    """(B, A, K)"""
    boxes: Tensor
    """(B, A, 4) xyxy px of the input."""


def verify(runtime: Runtime, detector: TorchDetector, images: Tensor) -> Verification:
    """Run a file on images at several batch sizes and compare it with the detector that it was made from.

    Args:
        runtime: the file, loaded.
        detector: the detector in torch.
        images: (B, 3, H, W) of the input's type, at least `max(BATCHES)`.
    """
    differences: dict[str, float] = {}
    faults: list[str] = []
    kept = 0
    config = detector.postprocess.config
    for batch in BATCHES:
        reference = reference_of(detector, images[:batch])
        outputs = runtime.run(images[:batch])
        for name, output in zip(OUTPUTS[runtime.spec.form], outputs, strict=True):
            if runtime.spec.form == "nms":
                break
            wanted = reference.outputs[name]
            difference = (output - wanted).abs().max().item()
            differences[name] = max(difference, differences.get(name, 0.0))
            tolerance = tolerance_of(name, wanted)
            if not difference <= tolerance:  # a NaN is beyond any tolerance
                faults.append(f"batch {batch}: {name} differ by {difference:.2g}, allowed {tolerance:.2g}")
        detections = runtime.spec.detections(outputs)
        kept += int((detections.labels > 0).sum())
        for image in range(batch):
            found = Detections(*(part[image] for part in detections))
            faults += [
                f"batch {batch}, image {image}: {fault}"
                for fault in nms_faults(found, reference.scores[image], reference.boxes[image], config)
            ]
    return Verification(BATCHES, differences, kept, faults)


def tolerance_of(name: str, wanted: Tensor) -> float:
    """How far an output may be off, in its own unit."""
    if name == "boxes":
        return BOX_TOLERANCE_PX
    return max(LOGIT_TOLERANCE, RELATIVE_TOLERANCE * wanted.abs().max().item())


def reference_of(detector: TorchDetector, images: Tensor) -> Reference:
    """Head outputs, scores and boxes of every anchor by torch."""
    cls_logits, box_deltas = EagerRuntime(detector, device="cpu").run(images)
    scores, boxes = Decode(detector.postprocess, detector.net.anchors)(cls_logits, box_deltas)
    outputs = {"cls_logits": cls_logits, "box_deltas": box_deltas, "scores": scores, "boxes": boxes}
    return Reference(outputs, scores, boxes)


def nms_faults(found: Detections, scores: Tensor, boxes: Tensor, config: PostProcessConfig) -> Iterator[str]:
    """Why `found` is not what NMS leaves of the candidates, up to rounding; nothing where it is.

    The law is checked instead of a list, because near-tied scores may swap: every detection is a candidate,
    no two of a class overlap beyond the threshold, and every candidate that is missing is overlapped by one
    that scores as much or more.

    Args:
        found: (D,) of one image, padded rows with label 0.
        scores: (A, K) of the candidates.
        boxes: (A, 4) xyxy px of the input.
        config: thresholds.
    """
    rows = found.labels > 0
    kept = Detections(found.boxes[rows], found.scores[rows], found.labels[rows])
    least = lowest_candidates(scores, config)  # (K,)
    candidate_idx, class_idx = (scores > least - LOGIT_TOLERANCE).nonzero(as_tuple=True)
    candidates = Detections(boxes[candidate_idx], scores[candidate_idx, class_idx], class_idx + 1)

    same_class = kept.labels.unsqueeze(1) == candidates.labels  # (D, N)
    near_score = (kept.scores.unsqueeze(1) - candidates.scores).abs() <= LOGIT_TOLERANCE
    near_box = (kept.boxes.unsqueeze(1) - candidates.boxes).abs().amax(-1) <= BOX_TOLERANCE_PX
    is_candidate = same_class & near_score & near_box
    for row in (~is_candidate.any(1)).nonzero().flatten().tolist():
        yield f"{_describe(kept, row)} is none of PyTorch's candidates"

    limit = config.nms_threshold
    overlap = box_iou(kept.boxes, kept.boxes) * (kept.labels.unsqueeze(1) == kept.labels)
    for row, other in (overlap.triu(1) > limit + IOU_TOLERANCE).nonzero().tolist():
        yield f"{_describe(kept, row)} and {_describe(kept, other)} overlap by more than {limit}"

    weakest = kept.scores.min().item() if len(kept.scores) >= config.max_detections else -1.0
    must_be_there = (
        candidates.scores > torch.maximum(least[class_idx], least.new_tensor(weakest)) + LOGIT_TOLERANCE
    )
    overlapped = same_class & (box_iou(kept.boxes, candidates.boxes) > limit - IOU_TOLERANCE)
    suppressed = overlapped & (kept.scores.unsqueeze(1) >= candidates.scores - LOGIT_TOLERANCE)
    for row in (must_be_there & ~(is_candidate | suppressed).any(0)).nonzero().flatten().tolist():
        yield f"{_describe(candidates, row)} is missing"


def lowest_candidates(scores: Tensor, config: PostProcessConfig) -> Tensor:
    """(A, K) scores to (K,): what a candidate of each class must score, by threshold and top-k."""
    num_anchors, num_classes = scores.shape
    least = scores.new_tensor(config.score_threshold).expand(num_classes)
    if config.topk_per_class is not None and config.topk_per_class < num_anchors:
        least = torch.maximum(least, scores.topk(config.topk_per_class, dim=0).values[-1])
    if config.topk_candidates is not None and config.topk_candidates < scores.numel():
        passing = torch.where(scores >= least, scores, 0.0)
        least = torch.maximum(least, passing.flatten().topk(config.topk_candidates).values[-1])
    return least


def _describe(detections: Detections, row: int) -> str:
    box = ", ".join(f"{value:.1f}" for value in detections.boxes[row].tolist())
    return f"label {int(detections.labels[row])} at ({box}) with score {float(detections.scores[row]):.4f}"

"""From head outputs to detections: score, top-k, decode, per-class NMS, for a batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detect.box_coder import decode
from detect.boxes import clip_boxes
from detect.types import Detections, HeadOutputs, ScoreActivation


@dataclass(frozen=True)
class PostProcessConfig:
    """Thresholds; all of them travel in checkpoints and exported files."""

    score_threshold: float = 0.01
    """Candidates must score more. Low for mAP; a picture for a person wants 0.3 or so."""
    nms_threshold: float = 0.55
    """Of two boxes of one class with a larger IoU, the lower score goes. torchvision's value for SSDLite."""
    max_detections: int = 100
    """Kept an image, as COCO counts at most."""
    topk_candidates: int | None = 1000
    """Candidates kept an image before NMS, over all classes; null: all."""
    topk_per_class: int | None = None
    """Candidates kept an image and class before NMS (torchvision: 300); null: all."""


def class_scores(cls_logits: Tensor, activation: ScoreActivation) -> Tensor:
    """(..., K + 1) logits to (..., K) float32 scores of the object classes."""
    if activation == "softmax":
        return cls_logits.float().softmax(-1)[..., 1:]
    return cls_logits[..., 1:].float().sigmoid()


class PostProcess(nn.Module):
    """Turn head outputs into detections.

    Args:
        config: thresholds.
        activation: of the loss that the network was trained with.
        image_size: (H, W) of the input in px; boxes are cut to it.
    """

    def __init__(
        self, config: PostProcessConfig, *, activation: ScoreActivation, image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.config = config
        self.activation: ScoreActivation = activation
        self.image_size = image_size

    def forward(self, head_outputs: HeadOutputs, anchors: Tensor) -> Detections:
        """Detections of each image, padded to the largest number in the batch.

        Args:
            head_outputs: logits (B, A, K + 1) and box_deltas (B, A, 4).
            anchors: (A, 4) xyxy, px of the input.
        """
        scores, anchor_idx, labels = self._candidates(class_scores(head_outputs.cls_logits, self.activation))
        deltas = head_outputs.box_deltas.gather(1, anchor_idx.unsqueeze(-1).expand(-1, -1, 4))
        boxes = clip_boxes(decode(deltas, anchors[anchor_idx]), self.image_size)
        return self._suppress(boxes, scores, labels)

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, A, K) scores to the best (B, N) with anchor and label, by falling score, ties by index."""
        batch, num_anchors, num_classes = scores.shape
        if self.config.topk_per_class is not None:
            scores, anchor_idx = scores.topk(min(self.config.topk_per_class, num_anchors), dim=1)
        else:
            anchor_idx = torch.arange(num_anchors, device=scores.device).view(1, -1, 1).expand_as(scores)
        flat = scores.reshape(batch, -1)
        if self.config.topk_candidates is not None and self.config.topk_candidates < flat.shape[1]:
            best, flat_idx = flat.topk(self.config.topk_candidates, dim=1)
        else:
            best, flat_idx = flat, torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
        flat_idx, order = flat_idx.sort(dim=1)  # then a stable sort by score: ties keep their index order
        best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
        flat_idx = flat_idx.gather(1, order)
        return best, anchor_idx.reshape(batch, -1).gather(1, flat_idx), flat_idx % num_classes + 1

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """NMS within each class of each image; (B, N) candidates by falling score to (B, D) detections.

        Classes are kept apart by shifting their boxes in float64, where the shift costs no digit of a
        float32 box (2^-36 px at worst): the result is that of NMS on each class's unshifted boxes.
        """
        shift = 2.0 * max(self.image_size)
        shifted = boxes.double() + shift * labels.double().unsqueeze(-1)
        counts = (scores > self.config.score_threshold).sum(1).tolist()
        kept = [
            nms(shifted[i, :count], scores[i, :count].double(), self.config.nms_threshold)
            for i, count in enumerate(counts)
        ]
        kept = [keep[: self.config.max_detections] for keep in kept]
        padded = max((len(keep) for keep in kept), default=0)
        detections = Detections(
            boxes.new_zeros(len(kept), padded, 4),
            scores.new_zeros(len(kept), padded),
            labels.new_zeros(len(kept), padded),
        )
        for i, keep in enumerate(kept):
            detections.boxes[i, : len(keep)] = boxes[i, keep]
            detections.scores[i, : len(keep)] = scores[i, keep]
            detections.labels[i, : len(keep)] = labels[i, keep]
        return detections

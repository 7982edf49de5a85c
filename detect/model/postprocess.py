"""From head outputs to detections: score, top-k, decode, per-class NMS, for a batch at once."""

from __future__ import annotations

from dataclasses import replace

import torch
import torchvision  # noqa: F401  (its operators register themselves)
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detect.boxes import clip_boxes, rescale_boxes
from detect.model.box_coder import decode
from detect.model.thresholds import LOGIT_SLACK, PostProcessConfig, Threshold, logit, lowest
from detect.types import Detections, HeadOutputs, ScoreActivation


def class_scores(cls_logits: Tensor, activation: ScoreActivation) -> Tensor:
    """(..., K + 1) logits to (..., K) float32 scores of the object classes."""
    if activation == "softmax":
        return cls_logits.float().softmax(-1)[..., 1:]
    return cls_logits[..., 1:].float().sigmoid()


# torchvision.ops.nms without the log of its use, which takes a quarter of the time of a call.
nms = torch.ops.torchvision.nms


class PostProcess(nn.Module):
    """Turn head outputs into detections.

    Anchors that cannot pass the threshold are ruled out before a score or a box is computed: of a trained
    detector few are left, and the rest costs next to nothing beside the network.

    Args:
        config: thresholds.
        activation: of the loss that the network was trained with.
        image_size: (H, W) of the input in px; boxes are cut to it.
    """

    class_thresholds: Tensor | None
    """(K,) where each class has a score threshold of its own; it moves to a device with the module."""

    def __init__(
        self, config: PostProcessConfig, *, activation: ScoreActivation, image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.config = config
        self.activation: ScoreActivation = activation
        self.image_size = image_size
        threshold = config.score_threshold
        by_class = torch.tensor(threshold) if isinstance(threshold, tuple) else None
        self.register_buffer("class_thresholds", by_class, persistent=False)

    @property
    def least_scores(self) -> Tensor | float:
        """What a detection must exceed: of all classes, or (K,)."""
        return lowest(self.config.score_threshold) if self.class_thresholds is None else self.class_thresholds

    def at_threshold(self, score_threshold: Threshold) -> PostProcess:
        """The same with another score threshold, or one for each class; on the CPU.

        Raises:
            InputError: it is not from 0 to below 1.
        """
        config = replace(self.config, score_threshold=score_threshold)
        return PostProcess(config, activation=self.activation, image_size=self.image_size)

    def forward(self, head_outputs: HeadOutputs, anchors: Tensor) -> Detections:
        """Detections of each image, padded to the largest number in the batch.

        Args:
            head_outputs: logits (B, A, K + 1) and box_deltas (B, A, 4).
            anchors: (A, 4) xyxy, px of the input.
        """
        found = []
        for logits, deltas in zip(head_outputs.cls_logits, head_outputs.box_deltas, strict=True):
            rows = self._promising(logits).nonzero().squeeze(1)  # (R,) anchors
            scores = class_scores(logits[rows], self.activation)
            found.append(self._suppress(scores, decode_boxes(deltas[rows], anchors[rows], self.image_size)))
        return pad_detections(found)

    def from_decoded(self, scores: Tensor, boxes: Tensor) -> Detections:
        """As `forward`, where scoring and decoding were part of an exported graph.

        Args:
            scores: (B, A, K) of the object classes.
            boxes: (B, A, 4) xyxy, px of the input.
        """
        found = []
        for image_scores, image_boxes in zip(scores, boxes, strict=True):
            rows = (image_scores.amax(1) > lowest(self.config.score_threshold)).nonzero().squeeze(1)
            found.append(self._suppress(image_scores[rows], image_boxes[rows]))
        return pad_detections(found)

    def in_files(self, detections: Detections, orig_size: Tensor) -> Detections:
        """Detections in px of the input to px of the files.

        Args:
            detections: (B, D) of the input.
            orig_size: (B, 2) height and width of each file in px.
        """
        boxes = rescale_boxes(detections.boxes, self.image_size, orig_size.to(detections.boxes.device))
        return detections._replace(boxes=boxes)

    def _promising(self, logits: Tensor) -> Tensor:
        """(A, K + 1) logits to (A,) bool: a class may score above the threshold.

        A softmax score is at most the sigmoid of its logit's lead over the background.
        """
        best = logits[:, 1:].amax(1)
        if self.activation == "softmax":
            best = best - logits[:, 0]
        return best.float() > logit(lowest(self.config.score_threshold)) - LOGIT_SLACK

    def _suppress(self, scores: Tensor, boxes: Tensor) -> Detections:
        """NMS within each class of one image; (R, K) scores and (R, 4) boxes to (D,) detections.

        Classes are kept apart by shifting their boxes in float64, where the shift costs no digit of a
        float32 box (2^-36 px at worst): the result is that of NMS on each class's unshifted boxes.
        """
        best, rows, labels = self._candidates(scores)
        boxes = boxes[rows]
        shift = 2.0 * max(self.image_size)
        shifted = boxes.double() + shift * labels.double().unsqueeze(1)
        # By falling score; of equal ones the first stays first.
        kept = nms(shifted, best.double(), self.config.nms_threshold)[: self.config.max_detections]
        return Detections(boxes[kept], best[kept], labels[kept])

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(R, K) scores to the best (N,) with row and label, in the order of `scores`."""
        per_class, in_all = self.config.topk_per_class, self.config.topk_candidates
        best_rows: Tensor | None = None
        if per_class is not None and per_class < len(scores):
            scores, best_rows = scores.topk(per_class, dim=0)
        rows, columns = (scores > self.least_scores).nonzero(as_tuple=True)
        best = scores[rows, columns]
        if in_all is not None and in_all < len(best):
            idx = best.topk(in_all).indices.sort().values
            best, rows, columns = best[idx], rows[idx], columns[idx]
        return best, rows if best_rows is None else best_rows[rows, columns], columns + 1


def decode_boxes(box_deltas: Tensor, anchors: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(..., 4) deltas to boxes in px of the input, cut to it; see `box_coder.decode`."""
    return clip_boxes(decode(box_deltas, anchors), image_size)


def pad_detections(found: list[Detections]) -> Detections:
    """Detections (D_i,) of single images to one (B, D), padded with zeros to the largest number."""
    if len(found) == 1:  # padding takes a tenth of the time of all the rest
        return Detections(*(part.unsqueeze(0) for part in found[0]))
    columns = zip(*found, strict=True)
    return Detections(*(pad_sequence(list(column), batch_first=True) for column in columns))

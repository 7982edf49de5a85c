"""Three graphs of one detector for export: network; network and decoding; network, decoding and NMS.

The three stages stay three modules, so that a runtime without NMS takes the first two and a caller can time
each. Shape letters as in `types`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detect.deploy.spec import Form
from detect.model.blocks import ConvNormAct
from detect.model.detector import TorchDetector
from detect.model.postprocess import PostProcess, class_scores, decode_boxes
from detect.model.thresholds import lowest


@torch.library.custom_op("detect::class_nms", mutates_args=())
def class_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """NMS within each class of each image, with the meaning of ONNX's NonMaxSuppression.

    Args:
        boxes: (B, A, 4) xyxy.
        scores: (B, K, A).
        iou_threshold: of two boxes of a class with a larger IoU, the lower score goes.
        score_threshold: only larger scores take part.
        max_per_class: kept per image and class.

    Returns:
        (M, 3) int64 rows of (image, class index from 0, anchor).
    """
    selected = [boxes.new_zeros(0, 3, dtype=torch.int64)]
    for image in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            rows = (scores[image, column] > score_threshold).nonzero().squeeze(1)
            kept = nms(boxes[image, rows].double(), scores[image, column, rows].double(), iou_threshold)
            kept = rows[kept[:max_per_class]]
            place = kept.new_tensor([image, column]).expand(len(kept), 2)
            selected.append(torch.cat([place, kept.unsqueeze(1)], dim=1))
    return torch.cat(selected)


@class_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    # How many boxes survive is known only when the graph runs.
    selected = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(selected, 3, dtype=torch.int64)


class Decode(nn.Module):
    """Head outputs to (B, A, K) scores and (B, A, 4) boxes in px of the input."""

    anchors: Tensor

    def __init__(self, postprocess: PostProcess, anchors: Tensor) -> None:
        super().__init__()
        self.activation = postprocess.activation
        self.image_size = postprocess.image_size
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, cls_logits: Tensor, box_deltas: Tensor) -> tuple[Tensor, Tensor]:
        scores = class_scores(cls_logits, self.activation)
        return scores, decode_boxes(box_deltas, self.anchors, self.image_size)


class DenseNms(nn.Module):
    """(B, A, K) scores and (B, A, 4) boxes to detections in D = max_detections rows per image.

    Gives boxes (B, D, 4), scores (B, D), labels (B, D) and counts (B,): the first `counts` rows of an image
    are detections by falling score, the others zero. Equal to `PostProcess` but where scores tie.
    """

    class_thresholds: Tensor | None

    def __init__(self, postprocess: PostProcess) -> None:
        super().__init__()
        self.config = postprocess.config
        self.register_buffer("class_thresholds", postprocess.class_thresholds, persistent=False)

    def forward(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, rows = scores.shape[0], self.config.max_detections
        if self.class_thresholds is not None:
            scores = torch.where(scores > self.class_thresholds, scores, 0.0)
        by_class = self._cut(scores).transpose(1, 2)  # (B, K, A)
        least = lowest(self.config.score_threshold)
        selected = class_nms(boxes, by_class, self.config.nms_threshold, least, rows)
        image_idx, class_idx, anchor_idx = selected.unbind(1)  # each (M,)
        # A row of candidates per image, 0 where the box is another image's; then `rows` zeros as filler.
        own = image_idx == torch.arange(batch, device=scores.device).unsqueeze(1)
        candidates = torch.where(own, by_class[image_idx, class_idx, anchor_idx], 0.0)
        padding = scores.new_zeros(batch, rows)
        best, idx = torch.cat([candidates, padding], dim=1).topk(rows, dim=1)  # (B, D)
        filler = class_idx.new_zeros(rows)
        labels = torch.cat([class_idx + 1, filler])[idx]
        anchor_idx = torch.cat([anchor_idx, filler])[idx]
        kept = best > 0
        best_boxes = boxes.gather(1, anchor_idx.unsqueeze(-1).expand(-1, -1, 4))
        return (
            torch.where(kept.unsqueeze(-1), best_boxes, 0.0),
            best,
            torch.where(kept, labels, 0),
            kept.sum(1),
        )

    def _cut(self, scores: Tensor) -> Tensor:
        """Scores below the best of `topk_per_class` and `topk_candidates` become 0."""
        _, num_anchors, num_classes = scores.shape
        per_class, in_all = self.config.topk_per_class, self.config.topk_candidates
        if per_class is not None and per_class < num_anchors:
            least = scores.topk(per_class, dim=1).values[:, -1:]  # (B, 1, K)
            scores = torch.where(scores >= least, scores, 0.0)
        if in_all is not None and in_all < num_anchors * num_classes:
            least = scores.flatten(1).topk(in_all, dim=1).values[:, -1:]  # (B, 1)
            scores = torch.where(scores >= least.unsqueeze(-1), scores, 0.0)
        return scores


class DetectorGraph(nn.Module):
    """(B, 3, H, W) images to the outputs of a form; see `model_spec.OUTPUTS`.

    Args:
        net: the network, `SSDLite` or what a quantiser made of it.
        stages: what follows: nothing, decoding, or decoding and NMS.
    """

    def __init__(self, net: nn.Module, stages: list[nn.Module]) -> None:
        super().__init__()
        self.net = net
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = tuple(self.net(images)[:2])  # bins are for losses
        for stage in self.stages:
            outputs = stage(*outputs)
        return outputs


class ChannelsLastInput(nn.Module):
    """A graph that takes (B, H, W, 3): the layout of cameras and of some runtimes' kernels."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.detector = graph  # torch.fx keeps the name `graph` for itself

    def forward(self, images: Tensor) -> Any:
        return self.detector(images.permute(0, 3, 1, 2))


def build_graph(detector: TorchDetector, form: Form) -> DetectorGraph:
    """The graph of a form on the CPU, in evaluation mode; its weights are copies, BatchNorm is folded in."""
    # Weights in the order that their shape says: ExecuTorch refuses those of channels_last.
    net = deepcopy(detector.net).cpu().to(memory_format=torch.contiguous_format).eval()
    fold_batch_norm(net)
    stages: list[nn.Module] = []
    if form != "raw":
        stages.append(Decode(detector.postprocess, net.anchors))
    if form == "nms":
        stages.append(DenseNms(detector.postprocess))
    return DetectorGraph(net, stages).eval()


@torch.no_grad()
def fold_batch_norm(net: nn.Module) -> None:
    """Fold each BatchNorm into the convolution before it.

    Torch's exporter does so at its end, and writes the same file, bit for bit; done before, there is less to
    trace.

    Args:
        net: in evaluation mode; changed in place.
    """
    for block in [module for module in net.modules() if isinstance(module, ConvNormAct)]:
        conv, norm = cast(nn.Conv2d, block[0]), cast(nn.BatchNorm2d, block[1])
        # Rounded once, as NumPy's root there; torch's own of float32 may be off by a unit.
        scale = norm.weight / (norm.get_buffer("running_var") + norm.eps).double().sqrt().float()
        conv.weight *= scale.view(-1, 1, 1, 1)
        conv.bias = nn.Parameter(-norm.get_buffer("running_mean") * scale + norm.bias)
        block[1] = nn.Identity()


def onnx_translations() -> dict[Any, Any]:
    """How `torch.onnx.export` writes our operators."""
    from onnxscript import opset20

    op: Any = opset20

    def write_class_nms(
        boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, max_per_class: int
    ) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[max_per_class]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )

    return {torch.ops.detect.class_nms.default: write_class_nms}

"""Box losses on the overlap itself: they weigh the four coordinates as the metric does."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detect.model.box_coder import decode
from detect.training.losses.box import BoxLoss
from detect.types import HeadOutputs


class GIoULoss(BoxLoss):
    """1 - generalized IoU, from 0 to 2.

    Source: arXiv 1902.09630 eq. 1 and algorithm 1.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        return generalized_box_iou_loss(decode(head_outputs.box_deltas, anchors), boxes)


class DIoULoss(BoxLoss):
    """1 - IoU, and the squared distance of the centres in diagonals of the smallest box around both.

    Source: arXiv 1911.08287 eq. 7.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        return distance_box_iou_loss(decode(head_outputs.box_deltas, anchors), boxes)


class CIoULoss(BoxLoss):
    """DIoU, and the difference of the aspect ratios.

    Source: arXiv 1911.08287 eq. 10.
    """

    def forward(self, head_outputs: HeadOutputs, boxes: Tensor, anchors: Tensor) -> Tensor:
        return complete_box_iou_loss(decode(head_outputs.box_deltas, anchors), boxes)

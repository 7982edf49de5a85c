"""What the network is taught: classes and boxes of positive anchors, for a batch at once."""

from detect.training.losses.base import TOTAL, DetectionLoss, LossTerms
from detect.training.losses.box import BoxLoss, SmoothL1Loss
from detect.training.losses.distribution import DistributionFocalLoss
from detect.training.losses.focal import FocalLoss
from detect.training.losses.iou import CIoULoss, DIoULoss, GIoULoss
from detect.training.losses.multibox import MultiBoxLoss
from detect.training.losses.quality import QualityFocalLoss, VarifocalLoss

__all__ = [
    "TOTAL",
    "BoxLoss",
    "CIoULoss",
    "DIoULoss",
    "DetectionLoss",
    "DistributionFocalLoss",
    "FocalLoss",
    "GIoULoss",
    "LossTerms",
    "MultiBoxLoss",
    "QualityFocalLoss",
    "SmoothL1Loss",
    "VarifocalLoss",
]

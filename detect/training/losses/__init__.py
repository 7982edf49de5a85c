"""What the network is taught: classes and boxes of positive anchors, for a batch at once."""

from detect.training.losses.base import TOTAL, DetectionLoss, LossTerms
from detect.training.losses.box import BoxLoss, SmoothL1Loss
from detect.training.losses.focal import FocalLoss
from detect.training.losses.multibox import MultiBoxLoss

__all__ = ["TOTAL", "BoxLoss", "DetectionLoss", "FocalLoss", "LossTerms", "MultiBoxLoss", "SmoothL1Loss"]

"""Which anchor is positive for which ground-truth box: classes that a configuration names."""

from detect.training.assigners.base import BACKGROUND, IGNORED, Assigner, Assignment
from detect.training.assigners.max_iou import MaxIoUAssigner

__all__ = ["BACKGROUND", "IGNORED", "Assigner", "Assignment", "MaxIoUAssigner"]

"""Which anchor is positive for which ground-truth box: classes that a configuration names."""

from detect.training.assigners.atss import ATSSAssigner
from detect.training.assigners.base import BACKGROUND, IGNORED, Assigner, Assignment
from detect.training.assigners.max_iou import MaxIoUAssigner
from detect.training.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "ATSSAssigner",
    "Assigner",
    "Assignment",
    "MaxIoUAssigner",
    "TaskAlignedAssigner",
]

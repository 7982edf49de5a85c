"""Necks: one file each, between the taps of a backbone and the heads (see `base`)."""

from detect.model.necks.base import Neck
from detect.model.necks.fpn import FPN
from detect.model.necks.lcpan import LCPAN
from detect.model.necks.top_down import TopDown

__all__ = ["FPN", "LCPAN", "Neck", "TopDown"]

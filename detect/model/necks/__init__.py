"""Necks: one file each, between the taps of a backbone and the heads (see `base`)."""

from detect.model.necks.base import Neck
from detect.model.necks.fpn import FPN

__all__ = ["FPN", "Neck"]

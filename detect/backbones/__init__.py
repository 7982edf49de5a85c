"""Backbones: one file a family, all tapped at C4 and C5 (see `base`)."""

from detect.backbones.base import Backbone
from detect.backbones.mobilenet_v3 import MobileNetV3

__all__ = ["Backbone", "MobileNetV3"]

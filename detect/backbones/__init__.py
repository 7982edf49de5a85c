"""Backbones: one file a family, all tapped at C4 and C5 (see `base`)."""

from detect.backbones.base import Backbone
from detect.backbones.mnasnet import MnasNetA1
from detect.backbones.mobilenet_v1 import MobileNetV1
from detect.backbones.mobilenet_v2 import MobileNetV2
from detect.backbones.mobilenet_v3 import MobileNetV3
from detect.backbones.timm_backbone import Timm

__all__ = ["Backbone", "MnasNetA1", "MobileNetV1", "MobileNetV2", "MobileNetV3", "Timm"]

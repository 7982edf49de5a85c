"""Backbones: one file a family, all tapped at C4 and C5 (see `base`)."""

from detect.model.backbones.base import Backbone
from detect.model.backbones.mnasnet import MnasNetA1
from detect.model.backbones.mobilenet_v1 import MobileNetV1
from detect.model.backbones.mobilenet_v2 import MobileNetV2
from detect.model.backbones.mobilenet_v3 import MobileNetV3
from detect.model.backbones.timm_backbone import Timm

__all__ = ["Backbone", "MnasNetA1", "MobileNetV1", "MobileNetV2", "MobileNetV3", "Timm"]

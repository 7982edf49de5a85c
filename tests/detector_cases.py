"""A small detector with random weights and lively scores, its checkpoint, and files exported from it."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detect.deploy.export import ExportOptions, export
from detect.deploy.random_weights import set_statistics
from detect.deploy.runtimes.table import FORMATS
from detect.deploy.spec import Form
from detect.model.blocks import PredictionHead
from detect.model.checkpoint import build_detector, checkpoint_content, write_checkpoint
from detect.model.detector import TorchDetector
from detect.types import ClassMap

IMAGE_SIZE = (96, 128)  # not square, so that a swap of height and width shows
CLASSES = ClassMap(("square", "disc", "bar"), (3, 7, 11))  # those of the generated COCO folder
SETTINGS = {
    "backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}},
    "num_classes": CLASSES.num_classes,
    "image_size": list(IMAGE_SIZE),
}


def lively_detector(**settings: object) -> TorchDetector:
    """Random weights whose scores spread from 0 to 1, so that few of them tie."""
    torch.manual_seed(0)
    detector = build_detector({**SETTINGS, **settings})
    set_statistics(detector.net)
    for head in detector.net.cls_heads:
        assert isinstance(head, PredictionHead)
        torch.nn.init.normal_(head.predictor.weight, std=0.05)
    detector.classes = CLASSES
    return detector.eval()


def save_checkpoint(detector: TorchDetector, path: Path) -> Path:
    write_checkpoint(path, checkpoint_content(detector))
    return path


@functools.cache
def case_folder() -> Path:
    """A folder that lives as long as the process: exporting takes seconds, so tests share files."""
    folder = tempfile.TemporaryDirectory(prefix="detect-cases-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def checkpoint() -> Path:
    return save_checkpoint(lively_detector(), case_folder() / "small.ckpt")


@functools.cache
def exported(format: str = "onnx", form: Form = "nms") -> Path:
    path = case_folder() / f"{form}{FORMATS[format].suffix}"
    assert export(checkpoint(), path, ExportOptions(format=format, form=form)) == 0
    return path


def photo(width: int = 200, height: int = 150, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels: NDArray[np.uint8] = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    ImageDraw.Draw(picture).rectangle((width // 4, height // 4, width // 2, height // 2), fill=(200, 60, 50))
    return picture

"""A detector for notebooks and programs: load a file, give it pictures, get detections in their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detect.boxes import rescale_boxes
from detect.checkpoint import build_from_checkpoint, read_checkpoint
from detect.data.image import load_image, upright_rgb
from detect.data.labels import ClassMap
from detect.data.transforms import resize_whole
from detect.errors import InputError
from detect.module import DetectionModule
from detect.types import Detections


class Prediction(NamedTuple):
    """Detections of one picture, best first."""

    boxes: NDArray[np.float32]
    """(D, 4) xyxy, px of the upright picture."""
    scores: NDArray[np.float32]
    """(D,) in 0..1."""
    labels: NDArray[np.int64]
    """(D,) 1..K."""
    names: list[str]
    """Class name of each."""


class Detector:
    """A trained detector.

    Example:
        detector = Detector.load("runs/a/checkpoints/best.ckpt")
        for name, score, box in zip(*detector.predict("photo.jpg")[:3]): ...
    """

    def __init__(self, module: DetectionModule, *, device: torch.device | str | None = None) -> None:
        if module.classes is None:
            raise InputError("this module knows no classes: load it from a checkpoint")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module = module.eval().to(self.device)
        self.classes: ClassMap = module.classes

    @classmethod
    def load(cls, path: Path | str, *, device: torch.device | str | None = None) -> Detector:
        """Load a checkpoint.

        Raises:
            InputError: not a checkpoint of detect; see `checkpoint.read_checkpoint`.
        """
        return cls(build_from_checkpoint(read_checkpoint(Path(path))), device=device)

    def predict(self, image: Image.Image | Path | str, *, score_threshold: float = 0.3) -> Prediction:
        """Detect objects in one picture.

        Args:
            image: a file, or a Pillow image of any mode.
            score_threshold: keep only detections that score at least this.

        Raises:
            InputError: the file is missing or cannot be decoded.
        """
        return self.predict_batch([image], score_threshold=score_threshold)[0]

    def predict_batch(
        self, images: list[Image.Image | Path | str], *, score_threshold: float = 0.3
    ) -> list[Prediction]:
        """As `predict`, for several pictures in one pass of the network."""
        pictures = [
            upright_rgb(image) if isinstance(image, Image.Image) else load_image(Path(image))
            for image in images
        ]
        size, rule = self.module.net.image_size, self.module.resize_rule
        inputs = torch.from_numpy(np.stack([resize_whole(picture, size, rule) for picture in pictures]))
        orig_size = torch.tensor([[picture.height, picture.width] for picture in pictures])
        detections = self.detect(inputs, orig_size)
        return [self._prediction(detections, i, score_threshold) for i in range(len(pictures))]

    @torch.inference_mode()
    def detect(self, images: Tensor, orig_size: Tensor) -> Detections:
        """Detections in px of the files, on the CPU.

        Args:
            images: (B, 3, H, W) of the network input, uint8 or float32 in 0..255 units.
            orig_size: (B, 2) height and width of each file in px.
        """
        detections: Detections = self.module(images.to(self.device))
        boxes = rescale_boxes(detections.boxes, self.module.net.image_size, orig_size.to(self.device))
        return Detections(boxes.cpu(), detections.scores.cpu(), detections.labels.cpu())

    def _prediction(self, detections: Detections, row: int, score_threshold: float) -> Prediction:
        scores, labels = detections.scores[row], detections.labels[row]
        keep = (labels > 0) & (scores >= score_threshold)
        kept_labels = labels[keep].numpy()
        return Prediction(
            detections.boxes[row][keep].numpy(),
            scores[keep].numpy(),
            kept_labels,
            [self.classes.name(int(label)) for label in kept_labels],
        )

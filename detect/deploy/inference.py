"""From images to detections in their pixels, whatever runs the network."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from detect.data.images.resize import input_array
from detect.deploy.array_postprocess import find
from detect.deploy.image_input import ImageInput, input_pixels
from detect.deploy.load import open_model
from detect.deploy.prediction import Prediction
from detect.deploy.runtimes.base import ArrayRuntime, Runtime, RuntimeOptions
from detect.model.thresholds import Threshold
from detect.types import ClassMap, Detections

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from detect.model.detector import TorchDetector

LIST_BATCH = 8
"""Images of a list that `Detector.predict` decodes and hands to the network at once."""


class Inputs(NamedTuple):
    """Images as the network takes them."""

    images: Tensor
    """(B, 3, H, W) uint8, or float32 in 0..255, by the resize rule."""
    orig_size: Tensor
    """(B, 2) height and width of each upright image in px."""


class Detector:
    """A trained detector, whatever runs it.

    Example:
        detector = Detector.load("model.onnx")  # or "runs/a/checkpoints/best.ckpt"
        prediction = detector.predict("photo.jpg")
        for name, score, box in zip(prediction.names, prediction.scores, prediction.boxes): ...

    Args:
        model: a loaded network, or a detector that torch will run.
        device: for torch; null: a GPU where there is one.
    """

    def __init__(self, model: Runtime | TorchDetector, *, device: torch.device | str | None = None) -> None:
        if not isinstance(model, Runtime):
            from detect.deploy.runtimes.eager import EagerRuntime

            model = EagerRuntime(model, device=device)
        self.runtime: Runtime = model
        self.spec = model.spec
        self.classes = model.spec.classes

    @classmethod
    def load(cls, path: Path | str, *, device: str | None = None, threads: int | None = None) -> Detector:
        """Load a checkpoint, an exported file of any format, or a config.

        Args:
            path: the file; a config gives random weights.
            device: for a checkpoint; null: a GPU where there is one.
            threads: of the network; null leaves the choice to the runtime.

        Raises:
            InputError: not written by detect, or its runtime is not installed; see `load.open_model`.
        """
        return cls(open_model(Path(path), options=RuntimeOptions(threads), device=device))

    @property
    def score_threshold(self) -> Threshold:
        """What detections score more than, or one for each class."""
        return self.spec.thresholds.score_threshold

    def at_threshold(self, score_threshold: float | None) -> Detector:
        """This detector with another score threshold; see `ModelSpec.at_threshold`."""
        changed = copy(self)
        changed.spec = self.runtime.spec.at_threshold(score_threshold)
        return changed

    @overload
    def predict(
        self, image: ImageInput, *, bgr: bool = False, score_threshold: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, image: list[ImageInput], *, bgr: bool = False, score_threshold: float | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, image: ImageInput | list[ImageInput], *, bgr: bool = False, score_threshold: float | None = None
    ) -> Prediction | list[Prediction]:
        """Detect objects in one image, or in each of a list.

        Args:
            image: a file, the content of one (bytes), a Pillow image of any mode, (H, W, 3) uint8 pixels, or
                a list of those.
            bgr: the channels of an array are blue, green, red, as OpenCV has them; else red, green, blue.
            score_threshold: detections score more; it replaces the model's own, which is low, for mAP. null:
                those of the classes (`detect thresholds`) or 0.3, or the threshold of an exported file with
                NMS where that is higher.

        Raises:
            InputError: the file is missing or cannot be decoded, an array has another shape or type; the
                threshold is not from 0 to below 1, or lower than that of an exported file with NMS.
        """
        if not isinstance(image, list):
            return self.predict_batch([image], bgr=bgr, score_threshold=score_threshold)[0]
        detector = self.at_threshold(score_threshold)
        found: list[Prediction] = []
        for start in range(0, len(image), LIST_BATCH):
            some = image[start : start + LIST_BATCH]
            found += detector.predict_pixels([input_pixels(one, bgr=bgr) for one in some])
        return found

    def predict_batch(
        self, images: list[ImageInput], *, bgr: bool = False, score_threshold: float | None = None
    ) -> list[Prediction]:
        """As `predict`, for several images in one pass of the network."""
        detector = self.at_threshold(score_threshold)
        return detector.predict_pixels([input_pixels(image, bgr=bgr) for image in images])

    def predict_pixels(self, pixels: list[NDArray[np.uint8]]) -> list[Prediction]:
        """(h, w, 3) upright RGB images to what is found in each, by this detector's threshold.

        An exported file is used without torch where its runtime takes arrays.
        """
        if not isinstance(self.runtime, ArrayRuntime):
            return self.predictions(self.detect(*self.prepare(pixels)))
        images = input_array(pixels, self.spec.image_size, self.spec.resize_rule)
        sizes = [(image.shape[0], image.shape[1]) for image in pixels]
        found = find(self.spec, self.runtime.run_arrays(images), sizes)
        return [Prediction(*one, class_names(one.labels, self.classes)) for one in found]

    def prepare(self, pixels: list[NDArray[np.uint8]]) -> Inputs:
        """(h, w, 3) upright RGB images to the network's input, stretched by the model's resize rule."""
        import torch

        from detect.data.augment.view import input_batch

        orig_size = torch.tensor([image.shape[:2] for image in pixels])
        return Inputs(input_batch(pixels, self.spec.image_size, self.spec.resize_rule), orig_size)

    def detect(self, images: Tensor, orig_size: Tensor) -> Detections:
        """Detections in px of the files, on the CPU.

        Args:
            images: (B, 3, H, W) of the network input, uint8 or float32 in 0..255 units.
            orig_size: (B, 2) height and width of each file in px.
        """
        return self.finish(self.runtime.run(images), orig_size)

    def finish(self, outputs: tuple[Tensor, ...], orig_size: Tensor) -> Detections:
        """What is left to do after the network: decoding and NMS where the graph lacks them, px of the files.

        Args:
            outputs: of `runtime.run`.
            orig_size: (B, 2) height and width of each file in px.
        """
        import torch

        with torch.inference_mode():
            detections = self.spec.postprocess.in_files(self.spec.detections(outputs), orig_size)
            return Detections(*(part.cpu() for part in detections))

    def predictions(self, detections: Detections) -> list[Prediction]:
        """Padded detections to one `Prediction` per image."""
        found = []
        for boxes, scores, labels in zip(*detections, strict=True):
            keep = labels > 0
            kept = labels[keep].numpy()
            names = class_names(kept, self.classes)
            found.append(Prediction(boxes[keep].numpy(), scores[keep].numpy(), kept, names))
        return found


def class_names(labels: NDArray[np.int64], classes: ClassMap) -> list[str]:
    """The name of each of (D,) labels."""
    return [classes.name(int(label)) for label in labels]

"""int8: take ranges from images of a data set, write the file, and let it pass only if its mAP holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from detect.data.datamodule import DetectionData
from detect.deploy.calibration import Calibration, calibration_of
from detect.deploy.inference import Detector
from detect.deploy.load import open_exported
from detect.deploy.sensitivity import layer_errors
from detect.deploy.spec import ModelSpec
from detect.deploy.validate import open_validation, validate_detector
from detect.errors import InputError
from detect.model.detector import TorchDetector

SENSITIVITY_IMAGES = 8
WORST_LAYERS = 5


@dataclass(frozen=True)
class Int8Options:
    """Where ranges and the gate come from."""

    data: dict[str, Any]
    """What `--data.*` would set: ranges are taken on its training split, mAP on its validation split."""
    images: int = 200
    """Images to take ranges from."""
    max_drop: float = 0.01
    """Maximum mAP drop (0.01 = 1 point)."""
    keep_fp32: tuple[str, ...] = ()
    """Paths of layers below the network that stay in float32."""


class Gate(NamedTuple):
    """mAP of two files on one split."""

    mAP_fp32: float
    mAP_int8: float
    images: int
    max_drop: float

    @property
    def drop(self) -> float:
        """How much mAP falls."""
        return self.mAP_fp32 - self.mAP_int8

    @property
    def passes(self) -> bool:
        """Whether it falls by no more than it may."""
        return self.drop <= self.max_drop

    def to_json(self) -> dict[str, Any]:
        """Plain values for FILE.json."""
        return {**self._asdict(), "drop": round(self.drop, 5)}

    def __str__(self) -> str:
        return (
            f"mAP {self.mAP_int8:.4f} in int8, {self.mAP_fp32:.4f} in fp32 on {self.images} images: "
            f"a drop of {self.drop:.4f}, allowed {self.max_drop}"
        )


def calibrate(detector: TorchDetector, options: Int8Options) -> Calibration:
    """The images to take ranges from.

    Raises:
        InputError: the data cannot be read.
    """
    spec = ModelSpec.of_detector(detector)
    data = DetectionData(**options.data, image_size=spec.image_size)
    data.open(("train",))
    return calibration_of(data.train, spec, options.images)


def gate(fp32_file: Path, int8_file: Path, options: Int8Options) -> Gate:
    """MAP of both files, run by the runtime that they are for, on the validation split.

    Raises:
        InputError: the split cannot be read.
    """
    found = []
    for file in (fp32_file, int8_file):
        with open_exported(file) as runtime:
            detector = Detector(runtime)
            data = open_validation(detector, options.data)
            found.append(validate_detector(detector, data))
    fp32, int8 = found
    return Gate(fp32.mAP, int8.mAP, fp32.images, options.max_drop)


def refuse(gate: Gate, detector: TorchDetector, calibration: Calibration) -> InputError:
    """The error of a gate that does not pass, with the layers that lose most in 8 bits."""
    Console().print("the drop is too large; looking for the layers that lose most", highlight=False)
    worst = layer_errors(detector.net.cpu(), calibration.images[:SENSITIVITY_IMAGES])[:WORST_LAYERS]
    lines = "\n".join(f"  {layer.layer}: {layer.error:.3f}" for layer in worst)
    names = " ".join(layer.layer for layer in worst[:2])
    return InputError(
        f"{gate}; no file was written. Layers whose 8 bits alone change the outputs most (rms change over "
        f"spread):\n{lines}\nkeep some in float32 (--keep_fp32 {names}), or allow more (--max_drop)"
    )

"""int8: take ranges from images of a data set, write the file, and let it pass only if its mAP holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from detect.deploy.calibration import Calibration, calibration_of
from detect.deploy.inference import Detector
from detect.deploy.load import open_exported
from detect.deploy.sensitivity import LayerError, block_errors
from detect.deploy.spec import ModelSpec
from detect.deploy.validate import run_detector
from detect.errors import InputError
from detect.evaluation.average_precision import WeightedAp
from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.bootstrap import compare_groups, draw_weights, resampled_map
from detect.model.detector import TorchDetector

if TYPE_CHECKING:
    from detect.data.datamodule import DetectionData

SENSITIVITY_IMAGES = 8
WORST_BLOCKS = 5
TRIED_SHARES = (0.5, 0.8, 0.95)
"""Of the squared errors of all blocks: so much is taken away by the blocks that are tried in float32."""


@dataclass(frozen=True)
class Int8Options:
    """Where ranges and the gate come from."""

    data: dict[str, Any]
    """What `--data.*` would set: ranges are taken on its training split, mAP on its validation split."""
    images: int = 200
    """Images to take ranges from."""
    max_drop: float = 0.01
    """Maximum mAP drop, a fraction of one: refused where the paired bootstrap is certain of more."""
    keep_fp32: tuple[str, ...] = ()
    """Paths of layers below the network that stay in float32."""


class Gate(NamedTuple):
    """mAP of two files on one split."""

    mAP_fp32: float
    mAP_int8: float
    images: int
    max_drop: float
    interval: tuple[float, float] | None = None
    """Of the drop: 95 % of the resamples of the images, both files on the same; None: not resampled."""

    @property
    def drop(self) -> float:
        """How much mAP falls."""
        return self.mAP_fp32 - self.mAP_int8

    @property
    def passes(self) -> bool:
        """Whether it falls by no more than it may, as far as so many images can tell."""
        return self.drop <= self.max_drop or (self.interval is not None and self.interval[0] <= self.max_drop)

    def to_json(self) -> dict[str, Any]:
        """Plain values for FILE.json."""
        values = {**self._asdict(), "drop": round(self.drop, 5)}
        interval = values.pop("interval")
        return values if interval is None else {**values, "interval": [round(end, 5) for end in interval]}

    def __str__(self) -> str:
        text = (
            f"mAP {self.mAP_int8:.4f} in int8, {self.mAP_fp32:.4f} in fp32 on {self.images} images: "
            f"a drop of {self.drop:.4f}, allowed {self.max_drop}"
        )
        if self.interval is None:
            return text
        low, high = self.interval
        text += f" (95 % of resamples of the images: {low:.4f} to {high:.4f})"
        if self.drop > self.max_drop and self.passes:
            text += "; so few images cannot tell whether it is too large"
        return text


def calibrate(detector: TorchDetector, options: Int8Options) -> Calibration:
    """The images to take ranges from.

    Raises:
        InputError: the data cannot be read.
    """
    from detect.data.datamodule import DetectionData  # brings Lightning, of no use to float32

    spec = ModelSpec.of_detector(detector)
    data = DetectionData(**options.data, image_size=spec.image_size)
    data.open(("train",))
    return calibration_of(data.train, spec, options.images)


def gate(fp32_file: Path, int8_file: Path, data: DetectionData, *, max_drop: float) -> Gate:
    """MAP of both files, run by the runtime that they are for, on `data.val`."""
    found, resampled = [], []
    for file in (fp32_file, int8_file):
        with open_exported(file) as runtime:
            evaluator = run_detector(Detector(runtime), data)
        found.append(evaluator.compute())
        ap = WeightedAp(data.val, ground_truth_rows(data.val), evaluator.detections)
        resampled.append(resampled_map(ap, draw_weights(len(data.val))))
    fp32, int8 = found
    rise = compare_groups(resampled[:1], resampled[1:], full=([fp32.mAP], [int8.mAP]))
    return Gate(fp32.mAP, int8.mAP, fp32.images, max_drop, (-rise.high, -rise.low))


def refuse(
    gate: Gate,
    detector: TorchDetector,
    calibration: Calibration,
    *,
    kept: Sequence[str] = (),
    attempt: Callable[[tuple[str, ...]], Gate] | None = None,
) -> InputError:
    """The error of a gate that does not pass: the blocks that lose most in 8 bits, and which to keep.

    Args:
        gate: of the file that was written.
        detector: in torch.
        calibration: its images.
        kept: layers that were in float32 already.
        attempt: writes a file with these layers in float32 and gates it, so that only what works is advised.
    """
    print_line("the drop is too large; looking for the blocks that lose most")
    blocks = block_errors(detector.net.cpu(), calibration.images[:SENSITIVITY_IMAGES], kept=kept)
    lines = "\n".join(f"  {block.layer}: {block.error:.3f}" for block in blocks[:WORST_BLOCKS])
    head = (
        f"{gate}; no file was written. Blocks whose 8 bits alone change the outputs most (rms change over "
        f"spread):\n{lines}\n"
    )
    return InputError(head + _advice(blocks, tuple(kept), attempt))


def _advice(
    blocks: list[LayerError], kept: tuple[str, ...], attempt: Callable[[tuple[str, ...]], Gate] | None
) -> str:
    """What makes the file pass: blocks in float32, tried from few to many."""
    total = np.cumsum([block.error**2 for block in blocks])
    best: Gate | None = None
    for share in TRIED_SHARES:
        count = int(np.searchsorted(total, share * total[-1])) + 1 if len(blocks) else 0
        keep = kept + tuple(block.layer for block in blocks[:count])
        if attempt is None:
            break
        print_line(f"trying {count} of {len(blocks)} blocks in float32")
        best = attempt(keep)
        if best.passes:
            flag = f"--keep_fp32 {' '.join(keep)}"
            return f"this passes, with a drop of {best.drop:.4f}: {flag}; or allow more (--max_drop)"
    if best is None:
        return f"keep some in float32 (--keep_fp32 {' '.join(keep)}), or allow more (--max_drop)"
    return (
        f"with the {count} worst of {len(blocks)} blocks in float32 the drop is still {best.drop:.4f}: "
        "use the float32 file, or allow more (--max_drop)"
    )


def print_line(text: str) -> None:
    """A line of progress, at once also where the output is a pipe."""
    Console(soft_wrap=True, highlight=False, markup=False).print(text)

"""A small table of rows, and latencies that follow from its widths without a clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.search.latency_table import Setting
from detect.search.measure import Bench

ROWS = [
    [3, 16, 16, True, "RE", 2],
    [3, 32, 24, False, "RE", 2],
    [5, 48, 24, False, "HS", 1],
    [5, 48, 32, True, "HS", 2],
    [3, 64, 40, False, "HS", 2],
]
SETTINGS: dict[str, Any] = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "rows": ROWS},
    },
    "num_classes": 2,
    "image_size": [64, 64],
    "extra_levels": [[16, 32], [8, 16]],
}
SETTING = Setting("a processor", 2, "Linux x86_64", "onnxruntime", "1.0", "fp32", 1, (64, 64), "wall")
FIXED_MS = 2.0
MS_PER_CHANNEL = 0.01


def latency_ms(stated: dict[str, Any]) -> float:
    """Of a network whose channels cost each for itself."""
    arguments = stated["backbone"]["init_args"]
    channels = arguments["last"] + sum(row[1] + row[2] for row in arguments["rows"])
    return FIXED_MS + MS_PER_CHANNEL * (channels + sum(map(sum, stated["extra_levels"])))


class SteadyBench(Bench):
    """In place of `Bench`: `latency_ms` with a machine that slows down from round to round."""

    def __init__(self) -> None:
        self.measured: list[dict[str, Any]] = []

    def measure(self, networks: Sequence[dict[str, Any]]) -> list[NDArray[np.float64]]:
        """As `Bench.measure`."""
        self.measured += networks
        return [latency_ms(stated) * np.array([1.0, 1.5, 2.0]) for stated in networks]

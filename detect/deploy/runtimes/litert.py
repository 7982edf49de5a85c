"""LiteRT (TensorFlow Lite): converting a graph, and running the file. No NMS, no free batch."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from detect.deploy.exported_file import read_description
from detect.deploy.runtimes.base import (
    Array,
    ArrayRuntime,
    FileFormat,
    RuntimeOptions,
    RuntimeRecord,
    require,
)
from detect.deploy.runtimes.torch_export import torch_export_errors
from detect.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detect.deploy.graphs import DetectorGraph


def write_litert(graph: DetectorGraph, images: Tensor, path: Path, *, description: dict[str, Any]) -> None:
    """Write a raw or decoded graph for a batch of 1; the input is (1, H, W, 3). See `base.Writer`."""
    litert_torch = require("litert_torch", extra=RECORD.extra, path=path)
    from detect.deploy.graphs import ChannelsLastInput

    image = images[:1].permute(0, 2, 3, 1).contiguous()
    with torch_export_errors("LiteRT"):
        converted = litert_torch.convert(ChannelsLastInput(graph).eval(), (image,))
        converted.export(str(path))


class LiteRtRuntime(ArrayRuntime):
    """A .tflite file in LiteRT on the CPU, through XNNPACK.

    Raises:
        InputError: ai-edge-litert is missing, the file cannot be read, or has no FILE.json beside it.
    """

    name: ClassVar[str] = "litert"

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        interpreter = require("ai_edge_litert.interpreter", extra=RECORD.extra, path=path)
        description = read_description(path, None)  # the format has no place for it
        try:
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=options.threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: LiteRT cannot load it: {str(error).splitlines()[0]}") from error
        self.describe(description, options, version=version("ai-edge-litert"))
        self.fixed_batch = 1
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        # The converter numbers outputs in the order that the graph gave them.
        details = sorted(self._interpreter.get_output_details(), key=lambda detail: str(detail["name"]))
        self._outputs = [detail["index"] for detail in details]

    def run_array_batch(self, images: Array) -> tuple[Array, ...]:
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)

    def close(self) -> None:
        del self._interpreter


RECORD = RuntimeRecord(
    name=LiteRtRuntime.name,
    title="LiteRT",
    package="ai-edge-litert",
    extra="litert",
    load=LiteRtRuntime,
    reads=("litert",),
    writes=FileFormat(
        "litert",
        ".tflite",
        ("decoded", "raw"),
        write_litert,
        why_no_int8="LiteRT would run it slower than fp32 (h-swish stays outside XNNPACK)",
    ),
)

"""OpenVINO: converting a graph from ONNX, and running either file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from detect.deploy.exported_file import METADATA_KEY, Precision, check_graph, read_description
from detect.deploy.runtimes.base import (
    Array,
    ArrayRuntime,
    FileFormat,
    Int8Source,
    RuntimeOptions,
    RuntimeRecord,
    require,
)
from detect.deploy.runtimes.onnx_layers import nodes_left_in_fp32
from detect.deploy.runtimes.onnxruntime import write_onnx
from detect.deploy.runtimes.torch_export import quiet_logging
from detect.deploy.spec import OUTPUTS
from detect.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detect.deploy.graphs import DetectorGraph

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of what is not quantised. Left alone, OpenVINO takes bf16 where the processor has it, and logits
are off by 0.3."""


def write_openvino(graph: DetectorGraph, images: Tensor, path: Path, *, description: dict[str, Any]) -> None:
    """Write .xml and .bin, weights in float32, through an ONNX file that is left there. See `base.Writer`."""
    ov = require("openvino", extra=RECORD.extra, path=path)
    write_onnx(graph, images, onnx_beside(path), description=description)
    model = ov.convert_model(onnx_beside(path))
    model.set_rt_info(json.dumps(description), [METADATA_KEY])
    ov.save_model(model, path, compress_to_fp16=False)


def onnx_beside(path: Path) -> Path:
    """The ONNX file that `write_openvino` converts."""
    return path.with_suffix(".onnx")


def quantize_openvino(source: Int8Source, path: Path) -> None:
    """Write the network in 8 bits by NNCF, from the ONNX file beside `fp32_file`; see `base.Int8Source`."""
    ov = require("openvino", extra=RECORD.extra, path=path)
    nncf = require("nncf", extra=RECORD.extra, path=path)
    onnx = require("onnx", extra="export", path=path)
    onnx_file = onnx_beside(source.fp32_file)
    left = nodes_left_in_fp32(onnx.load(onnx_file), source.keep_fp32)
    model = ov.convert_model(onnx_file)
    # OpenVINO keeps the names of ONNX nodes, with a suffix where one node became several.
    names = [op.get_friendly_name() for op in model.get_ordered_ops()]
    ignored = [name for name in names if name.partition("/")[0] in left]
    with quiet_logging("nncf"):
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(source.images.split(1)), lambda image: image.contiguous().numpy()),
            preset=nncf.QuantizationPreset.MIXED,  # symmetric weights, asymmetric activations: for h-swish
            subset_size=len(source.images),
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )
    quantised.set_rt_info(json.dumps(source.description), [METADATA_KEY])
    ov.save_model(quantised, path, compress_to_fp16=False)


class OpenVinoRuntime(ArrayRuntime):
    """A file of OpenVINO or ONNX in OpenVINO on the CPU.

    Raises:
        InputError: openvino is missing, the file cannot be read, is not ours, or is not int8 as asked for.
    """

    name: ClassVar[str] = "openvino"
    lower_precisions: ClassVar[tuple[Precision, ...]] = ("bf16",)

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        ov = require("openvino", extra=RECORD.extra, path=path)
        core = ov.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{path}: OpenVINO cannot load it: {reason}") from error
        description = read_description(path, self._description(model))
        ends = [*model.inputs, *model.outputs]
        check_graph(path, description, {end.get_any_name(): _shape(end) for end in ends})
        self.describe(description, options, version=ov.get_version())
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if options.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = options.threads
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    @staticmethod
    def _description(model: Any) -> str | None:
        """What `write_openvino`, or `write_onnx` before it, put into the file."""
        for key in ([METADATA_KEY], ["framework", METADATA_KEY]):
            if model.has_rt_info(key):
                return str(model.get_rt_info(key).astype(str))
        return None

    def run_array_batch(self, images: Array) -> tuple[Array, ...]:
        self._request.infer({"images": images}, share_inputs=True)
        names = OUTPUTS[self.spec.form]
        return tuple(self._request.get_tensor(name).data.copy() for name in names)

    def close(self) -> None:
        del self._request


def _shape(end: Any) -> list[int | None]:
    """Shape of an input or output; None for a side that varies."""
    return [side.get_length() if side.is_static else None for side in end.get_partial_shape()]


RECORD = RuntimeRecord(
    name=OpenVinoRuntime.name,
    title="OpenVINO",
    package="openvino",
    extra="openvino",
    load=OpenVinoRuntime,
    reads=("onnx", "openvino"),
    writes=FileFormat("openvino", ".xml", ("nms", "decoded", "raw"), write_openvino, quantize_openvino),
)

"""ONNX Runtime: writing the graph of a detector as ONNX, and running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from detect.deploy.exported_file import METADATA_KEY, check_graph, read_description
from detect.deploy.runtimes.base import (
    Array,
    ArrayRuntime,
    FileFormat,
    Provider,
    RuntimeOptions,
    RuntimeRecord,
    require,
)
from detect.deploy.runtimes.onnx_int8 import quantize_onnx
from detect.deploy.runtimes.torch_export import torch_export_errors
from detect.deploy.spec import OUTPUTS
from detect.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detect.deploy.graphs import DetectorGraph

OPSET = 20
PROVIDERS: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""What one cannot compute, the next below it does."""
EXAMPLE_BATCH = 2
"""The batch that a graph is traced with; 1 would be taken for a constant."""


def write_onnx(graph: DetectorGraph, images: Tensor, path: Path, *, description: dict[str, Any]) -> None:
    """Write a graph with its description inside; batch is free. See `base.Writer`."""
    import torch

    from detect.deploy.graphs import onnx_translations

    require("onnxscript", extra=RECORD.extra)
    onnx = require("onnx", extra=RECORD.extra)
    batch = torch.export.Dim("batch")
    with torch_export_errors("ONNX"):
        program: Any = torch.onnx.export(
            graph,
            (images.new_zeros(EXAMPLE_BATCH, *images.shape[1:]),),
            input_names=["images"],
            output_names=description["export"]["outputs"],
            dynamic_shapes={"images": {0: batch}},
            custom_translation_table=onnx_translations(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(description)})
    onnx.save(model, path)


class OnnxRuntime(ArrayRuntime):
    """A file of ONNX in ONNX Runtime, on the CPU unless the options say otherwise.

    Raises:
        InputError: onnxruntime is missing or lacks the provider, the file is not ONNX, not ours, or asked for
            in another precision.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        ort = require("onnxruntime", extra=RECORD.extra, path=path)
        session_options = ort.SessionOptions()
        session_options.log_severity_level = 3  # errors alone
        if options.threads is not None:
            session_options.intra_op_num_threads = options.threads
            session_options.inter_op_num_threads = 1
        chosen = list(PROVIDERS)[list(PROVIDERS).index(options.provider) :]
        refuse_absent_provider(options.provider, ort.get_available_providers())
        try:
            session = ort.InferenceSession(
                str(path), session_options, providers=[PROVIDERS[name] for name in chosen]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise InputError(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        refuse_absent_provider(options.provider, session.get_providers())
        description = read_description(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
        ends = [*session.get_inputs(), *session.get_outputs()]
        shapes = {end.name: [side if isinstance(side, int) else None for side in end.shape] for end in ends}
        check_graph(path, description, shapes)
        self.describe(description, options, version=ort.__version__)
        self._outputs = list(OUTPUTS[self.spec.form])
        self._session = session

    def run_array_batch(self, images: Array) -> tuple[Array, ...]:
        return tuple(self._session.run(self._outputs, {"images": images}))

    def close(self) -> None:
        del self._session


def refuse_absent_provider(provider: Provider, present: list[str]) -> None:
    """ONNX Runtime itself would compute on the CPU without a word.

    Raises:
        InputError: `provider` is not among those that are present.
    """
    if PROVIDERS[provider] not in present:
        raise InputError(
            f"--provider {provider}: ONNX Runtime has no {PROVIDERS[provider]} here, only "
            f"{', '.join(present)}: it needs a GPU with its driver, and the package onnxruntime-gpu in place "
            "of onnxruntime"
        )


RECORD = RuntimeRecord(
    name=OnnxRuntime.name,
    title="ONNX Runtime",
    package="onnxruntime",
    extra="export",
    load=OnnxRuntime,
    reads=("onnx",),
    writes=FileFormat("onnx", ".onnx", ("nms", "decoded", "raw"), write_onnx, quantize_onnx),
)

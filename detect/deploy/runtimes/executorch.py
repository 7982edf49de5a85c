"""ExecuTorch: lowering a graph to XNNPACK, and running the file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from detect.deploy.exported_file import read_description
from detect.deploy.runtimes.base import (
    FileFormat,
    Int8Source,
    Runtime,
    RuntimeOptions,
    RuntimeRecord,
    require,
)
from detect.deploy.runtimes.torch_export import torch_export_errors
from detect.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detect.deploy.graphs import DetectorGraph

LARGEST_BATCH = 8
"""ExecuTorch plans its memory when the file is written."""


def write_executorch(
    graph: DetectorGraph, images: Tensor, path: Path, *, description: dict[str, Any]
) -> None:
    """Write a raw or decoded graph for batches of 1 to `LARGEST_BATCH`. See `base.Writer`."""
    _write(graph, images, path, int8=False)


def quantize_executorch(source: Int8Source, path: Path) -> None:
    """Write the network in 8 bits by XNNPACK's quantizer; see `base.Int8Source`.

    Activations are int8, weights int8 with a scale per channel.
    """
    if source.keep_fp32:
        raise InputError("--keep_fp32: XNNPACK's quantizer takes the whole network; leave it out")
    _write(source.graph, source.images, path, int8=True)


def _write(graph: DetectorGraph, images: Tensor, path: Path, *, int8: bool) -> None:
    import torch

    from detect.deploy.graphs import DetectorGraph

    exir = require("executorch.exir", extra=RECORD.extra, path=path)
    xnnpack = require(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner", extra=RECORD.extra, path=path
    )
    batch = {"images": {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}}
    example = (images.new_zeros(2, *images.shape[1:]),)
    with torch_export_errors("ExecuTorch"):
        if int8:
            network = torch.export.export(graph.net, example, dynamic_shapes=batch).module()
            graph = DetectorGraph(_quantise(network, images), list(graph.stages))
        program = torch.export.export(graph, example, dynamic_shapes=batch)
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)


def _quantise(module: nn.Module, images: Tensor) -> nn.Module:
    """A captured network in 8 bits where XNNPACK has a kernel.

    The network alone: the quantizer can be held to a part of a graph by the part's name, but then leaves out
    every convolution, whose weights belong to no module once they are captured.
    """
    import torch

    quantizer_module = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", extra=RECORD.extra)
    pt2e = require("torchao.quantization.pt2e.quantize_pt2e", extra=RECORD.extra)
    config = quantizer_module.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = quantizer_module.XNNPACKQuantizer().set_global(config)
    prepared = pt2e.prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for chunk in images.split(LARGEST_BATCH):
            prepared(chunk)
    converted: nn.Module = pt2e.convert_pt2e(prepared)
    return converted


class ExecuTorchRuntime(Runtime):
    """A .pte file in ExecuTorch's runtime.

    Raises:
        InputError: executorch is missing, the file cannot be read, or has no FILE.json beside it.
    """

    name: ClassVar[str] = "executorch"

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        library = require("executorch.extension.pybindings.portable_lib", extra=RECORD.extra, path=path)
        description = read_description(path, None)
        if options.threads is not None:
            # The pool is the process's own, and torch.set_num_threads does not reach it.
            library._unsafe_reset_threadpool(options.threads)
        try:
            self._module = library._load_for_executorch(str(path))
            self._module.method_meta("forward")  # loading alone does not look into the file
        except RuntimeError as error:
            raise InputError(f"{path}: ExecuTorch cannot load it: {str(error).splitlines()[0]}") from error
        self.describe(description, options, version=version("executorch"))

    def run_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        import torch

        chunks = [self._module.forward((chunk.contiguous(),)) for chunk in images.split(LARGEST_BATCH)]
        # The runtime writes every run to the same memory.
        return tuple(torch.cat([part.clone() for part in parts]) for parts in zip(*chunks, strict=True))

    def close(self) -> None:
        del self._module


RECORD = RuntimeRecord(
    name=ExecuTorchRuntime.name,
    title="ExecuTorch",
    package="executorch",
    extra="executorch",
    load=ExecuTorchRuntime,
    reads=("executorch",),
    writes=FileFormat("executorch", ".pte", ("decoded", "raw"), write_executorch, quantize_executorch),
)

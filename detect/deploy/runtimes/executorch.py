"""ExecuTorch: lowering a graph to XNNPACK, and running the file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from detect.deploy.exported_file import read_description
from detect.deploy.graphs import DetectorGraph
from detect.deploy.runtimes.base import Runtime, RuntimeName, RuntimeOptions, refuse_precision, require
from detect.deploy.runtimes.torch_export import torch_export_errors
from detect.deploy.spec import ModelSpec
from detect.errors import InputError

LARGEST_BATCH = 8
"""ExecuTorch plans its memory when the file is written."""


def write_executorch(graph: DetectorGraph, images: Tensor, path: Path, *, int8: bool = False) -> None:
    """Write a raw or decoded graph for batches of 1 to `LARGEST_BATCH`.

    Args:
        graph: from `graphs.build_graph`.
        images: (N, 3, H, W) of the input's type; for int8 the ranges of activations are taken on them.
        path: where to.
        int8: 8 bits by XNNPACK's quantizer: int8 activations, int8 weights with a scale a channel.

    Raises:
        InputError: executorch is missing, or cannot lower the graph; with the line that says why.
    """
    exir = require("executorch.exir", extra="executorch", path=path)
    xnnpack = require(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch", path=path
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
    quantizer_module = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", extra="executorch")
    pt2e = require("torchao.quantization.pt2e.quantize_pt2e", extra="executorch")
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

    name: ClassVar[RuntimeName] = "executorch"

    def __init__(self, path: Path, options: RuntimeOptions = RuntimeOptions()) -> None:
        library = require("executorch.extension.pybindings.portable_lib", extra="executorch", path=path)
        description = read_description(path, None)
        if options.threads is not None:
            # The pool is the process's own, and torch.set_num_threads does not reach it.
            library._unsafe_reset_threadpool(options.threads)
        try:
            self._module = library._load_for_executorch(str(path))
            self._module.method_meta("forward")  # loading alone does not look into the file
        except RuntimeError as error:
            raise InputError(f"{path}: ExecuTorch cannot load it: {str(error).splitlines()[0]}") from error
        refuse_precision(self.name, options.precision, description["export"]["precision"])
        self.spec = ModelSpec.from_description(description)
        self.version = version("executorch")
        self.precision = description["export"]["precision"]
        self.threads = options.threads

    def run_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        chunks = [self._module.forward((chunk.contiguous(),)) for chunk in images.split(LARGEST_BATCH)]
        # The runtime writes every run to the same memory.
        return tuple(torch.cat([part.clone() for part in parts]) for parts in zip(*chunks, strict=True))

    def close(self) -> None:
        del self._module

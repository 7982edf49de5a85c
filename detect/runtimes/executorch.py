"""ExecuTorch: lowering a graph to XNNPACK, and running the file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.exported_file import read_description
from detect.model_spec import ModelSpec
from detect.runtimes.base import Runtime, RuntimeName, RuntimeOptions, refuse_precision, require
from detect.runtimes.torch_export import torch_export_errors

LARGEST_BATCH = 8
"""ExecuTorch plans its memory when the file is written."""


def write_executorch(graph: nn.Module, example: Tensor, path: Path) -> None:
    """Write a raw or decoded graph for batches of 1 to `LARGEST_BATCH`.

    Args:
        graph: from `graphs.build_graph`.
        example: (B, 3, H, W) images of the input's type; only shape and type count.
        path: where to.

    Raises:
        InputError: executorch is missing, or cannot lower the graph; with the line that says why.
    """
    exir = require("executorch.exir", extra="executorch", path=path)
    xnnpack = require(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch", path=path
    )
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    images = example.new_zeros(2, *example.shape[1:])
    with torch_export_errors("ExecuTorch"):
        program = torch.export.export(graph, (images,), dynamic_shapes={"images": {0: batch}})
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)


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

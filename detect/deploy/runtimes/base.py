"""The contract of every runtime: load a file, run a batch, close; and its record in the table."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from detect.deploy.exported_file import Precision
from detect.deploy.spec import Form, ModelSpec
from detect.errors import InputError, install_hint

if TYPE_CHECKING:
    from torch import Tensor

    from detect.deploy.graphs import DetectorGraph

Array = NDArray[Any]

Provider = Literal["cpu", "cuda", "tensorrt"]
"""What ONNX Runtime computes with, under short names for its execution providers."""


@dataclass(frozen=True)
class RuntimeOptions:
    """What may be chosen when a file is loaded."""

    threads: int | None = None
    """Threads of one run; null leaves the choice to the runtime."""
    precision: Precision | None = None
    """Precision of the arithmetic; null takes the file's own. Some runtimes can lower it when they load."""
    provider: Provider = "cpu"
    """What computes in ONNX Runtime; the other runtimes know the CPU alone."""
    batch: int | None = None
    """Largest batch that will be run, for runtimes that plan their memory ahead; null: any."""


class Runtime(ABC):
    """One loaded network.

    Subclasses load in their constructor and set every attribute below, those of a file by `describe`.
    """

    name: ClassVar[str]
    lower_precisions: ClassVar[tuple[Precision, ...]] = ()
    """What it can run a float32 file in instead."""
    spec: ModelSpec
    version: str
    """Version of the package that runs the network."""
    precision: Precision
    threads: int | None
    """None where the runtime chose."""
    fixed_batch: int | None = None
    """The only batch that the file takes; None: any."""

    def describe(self, description: dict[str, Any], options: RuntimeOptions, *, version: str) -> None:
        """Set the attributes that follow from a file's checked description.

        Raises:
            InputError: a precision is asked for that the file does not have.
        """
        own: Precision = description["export"]["precision"]
        if own != "fp32" or options.precision not in self.lower_precisions:
            refuse_precision(self.name, options.precision, own)
        self.spec = ModelSpec.from_description(description)
        self.version = version
        self.precision = options.precision or own
        self.threads = options.threads

    @abstractmethod
    def run_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `run`, for a batch that the file takes."""

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the graph, in the order of `model_spec.OUTPUTS`.

        A batch that does not fit a file of a fixed one is run in parts, the last filled up with zeros.

        Args:
            images: (B, 3, H, W) of `spec.input_dtype` in 0..255.

        Raises:
            ValueError: shape or type differ from what the network takes.
        """
        import torch

        self.check_images(images, self.spec.input_dtype)
        size = self.fixed_batch
        if size is None or len(images) == size:
            return self.run_batch(images)
        filling = images.new_zeros(-len(images) % size, *images.shape[1:])
        chunks = [self.run_batch(chunk) for chunk in torch.cat([images, filling]).split(size)]
        return tuple(torch.cat(parts)[: len(images)] for parts in zip(*chunks, strict=True))

    def check_images(self, images: Tensor | Array, dtype: object) -> None:
        """Stop at images that the network does not take.

        Raises:
            ValueError: shape or type differ.
        """
        expected = (3, *self.spec.image_size)
        if tuple(images.shape[1:]) != expected or images.dtype != dtype:
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}; the network takes (B, {expected[0]}, "
                f"{expected[1]}, {expected[2]}) {dtype}"
            )

    @abstractmethod
    def close(self) -> None:
        """Give memory and threads back; the runtime cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArrayRuntime(Runtime):
    """A runtime that takes and gives NumPy arrays: with it, prediction needs no torch."""

    @abstractmethod
    def run_array_batch(self, images: Array) -> tuple[Array, ...]:
        """As `run_arrays`, for a batch that the file takes; `images` lie row by row in memory."""

    def run_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        import torch

        outputs = self.run_array_batch(images.contiguous().numpy())
        return tuple(torch.from_numpy(output) for output in outputs)

    def run_arrays(self, images: Array) -> tuple[Array, ...]:
        """As `run`, for arrays.

        Raises:
            ValueError: shape or type differ from what the network takes.
        """
        self.check_images(images, self.spec.array_dtype)
        images = np.ascontiguousarray(images)
        size = self.fixed_batch
        if size is None or len(images) == size:
            return self.run_array_batch(images)
        filling = np.zeros((-len(images) % size, *images.shape[1:]), images.dtype)
        chunks = np.split(np.concatenate([images, filling]), -(-len(images) // size))
        outputs = zip(*map(self.run_array_batch, chunks), strict=True)
        return tuple(np.concatenate(parts)[: len(images)] for parts in outputs)


class Writer(Protocol):
    """Writes a graph in float32."""

    def __call__(
        self, graph: DetectorGraph, images: Tensor, path: Path, *, description: dict[str, Any]
    ) -> None:
        """Write a file.

        Args:
            graph: from `graphs.build_graph`.
            images: (B, 3, H, W) of the input's type; shape and type count.
            path: where to.
            description: from `exported_file.describe_export`, for formats that have a place for it.

        Raises:
            InputError: a package is missing, or the graph cannot be exported; with the line that says why.
        """


class Int8Source(NamedTuple):
    """What a file in 8 bits is made of. The network is quantised; decoding and NMS stay in float32."""

    graph: DetectorGraph
    """From `graphs.build_graph`."""
    fp32_file: Path
    """The same graph, as the format's `Writer` wrote it."""
    images: Tensor
    """(N, 3, H, W) of the input's type, to take the ranges of activations from."""
    description: dict[str, Any]
    """Description of the new file."""
    keep_fp32: Sequence[str]
    """Paths of layers below the network that stay in float32."""


Int8Writer = Callable[[Int8Source, Path], None]
"""Writes a file in 8 bits. Raises InputError: a package is missing, or a layer cannot be kept in float32."""


@dataclass(frozen=True)
class FileFormat:
    """A format of exported files."""

    name: str
    suffix: str
    forms: tuple[Form, ...]
    """What a file can hold, the default first."""
    write: Writer
    write_int8: Int8Writer | None = None
    why_no_int8: str = ""
    """Why `write_int8` is None."""

    def int8_writer(self) -> Int8Writer:
        """Writes files in 8 bits.

        Raises:
            InputError: there are none of this format; with the reason.
        """
        if self.write_int8 is None:
            raise InputError(f"--int8: {self.why_no_int8}")
        return self.write_int8


@dataclass(frozen=True)
class RuntimeRecord:
    """What the commands know of a runtime: its entry in `table.RUNTIMES`."""

    name: str
    title: str
    """For people."""
    package: str
    """The distribution whose version belongs to a measurement."""
    extra: str
    """Extra of pyproject.toml that installs it; empty: it is always there."""
    load: Callable[..., Runtime]
    """From an exported file, (path, options); of torch, which `reads` none, from (detector, options)."""
    reads: tuple[str, ...] = ()
    """Formats by name; a checkpoint is exported to the first for a measurement."""
    writes: FileFormat | None = None
    """The format that comes with the runtime."""


def require(package: str, *, extra: str = "", path: Path | str | None = None) -> ModuleType:
    """Import a package that an extra of this project installs.

    Args:
        package: name of the module.
        extra: of pyproject.toml; empty: the package comes with the project itself.
        path: the file, or what else needs it, for the message.

    Raises:
        InputError: it is not installed; with the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        needs = f"{path} needs" if path is not None else "this needs"
        raise InputError(
            f"{needs} the package {error.name}, which is not installed: {install_hint(extra)}"
        ) from error


def refuse_precision(runtime: str, wanted: Precision | None, own: Precision) -> None:
    """Stop where a precision is asked for that the file does not have.

    Raises:
        InputError: names both.
    """
    if wanted is not None and wanted != own:
        raise InputError(f"{runtime} runs this file in {own}; {wanted} was asked for: export it as {wanted}")

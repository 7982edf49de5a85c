"""The contract of every runtime: load a file, run a batch, close; and what it must say about itself."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from detect.deploy.exported_file import Precision
from detect.deploy.spec import ModelSpec
from detect.errors import InputError

RuntimeName = Literal["onnxruntime", "openvino", "litert", "executorch", "eager", "compiled"]


@dataclass(frozen=True)
class RuntimeOptions:
    """What may be chosen when a file is loaded."""

    threads: int | None = None
    """Threads of one run; null leaves the choice to the runtime."""
    precision: Precision | None = None
    """Of the arithmetic; null takes the file's own. Only OpenVINO can lower it (bf16) when it loads."""
    batch: int | None = None
    """Largest batch that will be run, for runtimes that plan their memory ahead; null: any."""


class Runtime(ABC):
    """One loaded network.

    Subclasses load in their constructor and set every attribute below.
    """

    name: ClassVar[RuntimeName]
    spec: ModelSpec
    version: str
    """Of the package that runs the network."""
    precision: Precision
    threads: int | None
    """None where the runtime chose."""
    fixed_batch: int | None = None
    """The only batch that the file takes; None: any."""

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
        expected = (3, *self.spec.image_size)
        if tuple(images.shape[1:]) != expected or images.dtype != self.spec.input_dtype:
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}; the network takes (B, {expected[0]}, "
                f"{expected[1]}, {expected[2]}) {self.spec.input_dtype}"
            )
        size = self.fixed_batch
        if size is None or len(images) == size:
            return self.run_batch(images)
        filling = images.new_zeros(-len(images) % size, *expected)
        chunks = [self.run_batch(chunk) for chunk in torch.cat([images, filling]).split(size)]
        return tuple(torch.cat(parts)[: len(images)] for parts in zip(*chunks, strict=True))

    @abstractmethod
    def close(self) -> None:
        """Give memory and threads back; the runtime cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require(package: str, *, extra: str, path: Path | None = None) -> ModuleType:
    """Import a package that an extra of this project installs.

    Args:
        package: name of the module.
        extra: of pyproject.toml.
        path: the file that needs it, for the message.

    Raises:
        InputError: it is not installed; with the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        needs = f"{path} needs" if path is not None else "this needs"
        raise InputError(
            f"{needs} the package {error.name}, which is not installed: pip install 'detect[{extra}]'"
        ) from error


def refuse_precision(runtime: RuntimeName, wanted: Precision | None, own: Precision) -> None:
    """Stop where a precision is asked for that the file does not have.

    Raises:
        InputError: names both.
    """
    if wanted is not None and wanted != own:
        raise InputError(f"{runtime} runs this file in {own}; {wanted} was asked for: export it as {wanted}")

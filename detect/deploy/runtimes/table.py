"""Every runtime, one line each: commands, messages and pages follow. Packages are imported where used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detect.deploy.runtimes import executorch, litert, onnxruntime, openvino
from detect.deploy.runtimes.base import FileFormat, Runtime, RuntimeOptions, RuntimeRecord

if TYPE_CHECKING:
    from detect.model.detector import TorchDetector


def load_eager(detector: TorchDetector, options: RuntimeOptions = RuntimeOptions()) -> Runtime:
    """A detector run by torch on the CPU."""
    from detect.deploy.runtimes.eager import EagerRuntime

    return EagerRuntime(detector, options, device="cpu")


def load_compiled(detector: TorchDetector, options: RuntimeOptions = RuntimeOptions()) -> Runtime:
    """A detector run by torch on the CPU, through torch.compile."""
    from detect.deploy.runtimes.eager import CompiledRuntime

    return CompiledRuntime(detector, options)


RECORDS = (
    onnxruntime.RECORD,
    openvino.RECORD,
    litert.RECORD,
    executorch.RECORD,
    RuntimeRecord(name="eager", title="PyTorch", package="torch", extra="", load=load_eager),
    RuntimeRecord(name="compiled", title="PyTorch, compiled", package="torch", extra="", load=load_compiled),
)
"""The first that reads a format runs its files, unless another is asked for."""

RUNTIMES: dict[str, RuntimeRecord] = {record.name: record for record in RECORDS}
FORMATS: dict[str, FileFormat] = {
    record.writes.name: record.writes for record in RECORDS if record.writes is not None
}


def runtimes_of(format: str) -> list[RuntimeRecord]:
    """Those that read a format, its default first."""
    return [record for record in RUNTIMES.values() if format in record.reads]

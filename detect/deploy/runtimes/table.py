"""Every runtime, one line each: commands, messages and pages follow. Packages are imported where used."""

from __future__ import annotations

from detect.deploy.runtimes import eager, executorch, litert, onnxruntime, openvino
from detect.deploy.runtimes.base import FileFormat, RuntimeRecord

RECORDS = (
    onnxruntime.RECORD,
    openvino.RECORD,
    litert.RECORD,
    executorch.RECORD,
    eager.RECORD,
    eager.COMPILED_RECORD,
)
"""The first that reads a format runs its files, unless another is asked for."""

RUNTIMES: dict[str, RuntimeRecord] = {record.name: record for record in RECORDS}
FORMATS: dict[str, FileFormat] = {
    record.writes.name: record.writes for record in RECORDS if record.writes is not None
}


def runtimes_of(format: str) -> list[RuntimeRecord]:
    """Those that read a format, its default first."""
    return [record for record in RUNTIMES.values() if format in record.reads]

"""Files to measure: networks with random weights in the format and precision that a runtime is given.

torch's export takes ten seconds a network, and a latency table needs sixty networks that differ in channels
alone. So the ONNX graph is exported once for each structure, and its weights are cut or repeated to the other
shapes: the graph that torch would have written. Formats that are not made of ONNX are exported each.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from detect.deploy.export import verification_images
from detect.deploy.exported_file import METADATA_KEY, Precision, describe_export, write_json
from detect.deploy.graphs import build_graph
from detect.deploy.random_weights import random_detector
from detect.deploy.runtimes.base import Int8Source, require
from detect.deploy.runtimes.table import FORMATS, RUNTIMES
from detect.deploy.spec import Form, ModelSpec
from detect.errors import InputError
from detect.inspection.anchor_layout import without_auto
from detect.model.detector import TorchDetector

FORM: Form = "raw"
"""The network alone: what follows it does not depend on its widths."""
FROM_ONNX = ("onnx", "openvino")
"""Formats that are made of an ONNX file, in 8 bits as well."""


class NetworkFiles:
    """Writes networks for one runtime.

    Args:
        folder: where to.
        runtime: a name in `RUNTIMES`.
        int8: write 8 bits; ranges come from generated images, on which times do not depend.

    Raises:
        InputError: the runtime reads no files, or there are none of 8 bits for it.
    """

    def __init__(self, folder: Path, runtime: str, *, int8: bool = False) -> None:
        record = RUNTIMES[runtime]
        if not record.reads or record.writes is None:
            raise InputError(f"--runtime {runtime}: it reads no exported files, which are what ships")
        if int8:
            record.writes.int8_writer()  # there may be none
        self.folder, self.int8 = folder, int8
        self.format = record.writes if int8 else FORMATS[record.reads[0]]
        self.fp32_format = FORMATS["onnx"] if self.format.name in FROM_ONNX else self.format
        self._templates: dict[str, Path] = {}
        """An exported file of each structure."""
        self._count = 0

    def write(self, stated: dict[str, Any]) -> Path:
        """A file of a network with random weights.

        Args:
            stated: a `model:` section that states every width, see `detect.search.widths.explicit`.

        Raises:
            InputError: a wrong setting, or a package is missing.
        """
        self._count += 1
        path = self.folder / f"{self._count:04d}{self.fp32_format.suffix}"
        key = structure(stated)
        template = self._templates.get(key)
        detector = random_detector(without_auto(stated), statistics=template is None)
        description = description_of(detector, self.fp32_format.name, "fp32")
        if template is None:
            images = images_of(detector)
            self.fp32_format.write(build_graph(detector, FORM), images, path, description=description)
            if self.fp32_format.name == "onnx":
                self._templates[key] = path
        else:
            resize_onnx(template, path, detector, description)
        write_json(path, description, None)
        return self._in_8_bits(path, detector) if self.int8 else path

    def remove(self, path: Path) -> None:
        """Remove a file that was measured, but for those that others are made of."""
        if path not in self._templates.values():
            path.unlink(missing_ok=True)

    def _in_8_bits(self, fp32_file: Path, detector: TorchDetector) -> Path:
        description = description_of(detector, self.format.name, "int8")
        path = self.folder / f"{fp32_file.stem}-int8{self.format.suffix}"
        beside = fp32_file.with_suffix(self.format.suffix)  # OpenVINO's quantiser takes the ONNX file there
        source = Int8Source(build_graph(detector, FORM), beside, images_of(detector), description, ())
        self.format.int8_writer()(source, path)
        write_json(path, description, None)
        self.remove(fp32_file)
        return path


def structure(stated: dict[str, Any]) -> str:
    """What two networks share whose graphs differ in nothing but channels.

    Where a block's expansion or output is as wide as its input, it has one layer less or a residual more.
    """
    shared = deepcopy(stated)
    arguments = shared["backbone"]["init_args"]
    channels, kinds = arguments["stem"], []
    for kernel, expansion, out, squeeze, nonlinearity, stride in arguments.pop("rows"):
        residual = stride == 1 and out == channels
        kinds.append([kernel, squeeze, nonlinearity, stride, expansion == channels, residual])
        channels = out
    widths = {name: arguments.pop(name, None) is not None for name in ("stem", "last")}
    if shared.get("neck") is not None:
        shared["neck"]["init_args"].pop("channels", None)
    levels = len(shared.pop("extra_levels"))
    return json.dumps([shared, kinds, widths, levels], sort_keys=True, default=str)


def images_of(detector: TorchDetector) -> Tensor:
    """Some generated images, as the detector's network takes them."""
    return verification_images(ModelSpec.of_detector(detector), None)


def description_of(detector: TorchDetector, format: str, precision: Precision) -> dict[str, Any]:
    """The description that a runtime wants beside a file."""
    return describe_export(detector, form=FORM, format=format, precision=precision, checkpoint=None)


def resize_onnx(template: Path, path: Path, detector: TorchDetector, description: dict[str, Any]) -> None:
    """Write the ONNX file of a detector from one of the same structure, its weights cut or repeated to fit.

    Args:
        template: as torch's exporter wrote it.
        path: where to.
        detector: for its shapes.
        description: of the new file.
    """
    onnx = require("onnx", extra="export")
    model = onnx.load(template)
    shapes = {name: tensor.shape for name, tensor in build_graph(detector, FORM).state_dict().items()}
    channels: dict[str, int] = {}
    for tensor in model.graph.initializer:
        shape = shapes.get(tensor.name)
        if shape is not None and tuple(shape) != tuple(tensor.dims):
            values = onnx.numpy_helper.to_array(tensor)
            places = [np.arange(new) % old for new, old in zip(shape, values.shape, strict=True)]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[np.ix_(*places)], tensor.name))
            channels[tensor.name] = int(shape[0])
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Conv" and attribute.name == "group" and attribute.i > 1:  # depthwise
                attribute.i = channels.get(node.input[1], attribute.i)
    del model.graph.value_info[:], model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(description)})
    onnx.save(model, path)

"""Detectors of TensorFlow's Object Detection API: files to tensors by the names of their layers.

A frozen graph is read with the messages that TensorBoard ships, a checkpoint by the few lines of its format
that are needed, `.tflite` with a package of the extra `tensorflow`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detect.errors import InputError
from detect.model.tensorflow.checkpoint import read_checkpoint_files
from detect.model.tensorflow.layout import KINDS, Arrays, in_torch_layout, size_of_images, with_step_counts
from detect.model.tensorflow.lite import read_tflite

VARIABLE = re.compile(
    r"((?:FeatureExtractor|BoxPredictor_\d+)/.+)/"
    r"(weights|depthwise_weights|biases|gamma|beta|moving_mean|moving_variance)"
)
"""A layer and a variable of the Object Detection API; not its optimizer's, nor constants of a graph."""
AVERAGE = "/ExponentialMovingAverage"


class TensorflowFile(NamedTuple):
    """What a file says of a detector."""

    state_dict: dict[str, Tensor]
    """By the Object Detection API's names of layers; of a `.tflite` without BatchNorm, which is folded."""
    image_size: tuple[int, int] | None
    """(H, W) of the input in px, where the file says it."""
    path: Path
    """The file that identifies it; of a checkpoint the index, which holds checksums of all tensors."""


def read_tensorflow(path: Path) -> TensorflowFile:
    """Read a detector of the Object Detection API.

    Args:
        path: a frozen graph (`.pb`), a `.tflite` of float weights, or a checkpoint: its index, or what the
            names of its files begin with (`model.ckpt`).

    Raises:
        InputError: there is no such file, it cannot be read, or it holds no variable of a detector.
    """
    index = path if path.suffix == ".index" else path.with_name(path.name + ".index")
    read_from, image_size = path, None
    if path.suffix == ".pb":
        arrays, image_size = read_frozen_graph(existing(path))
    elif path.suffix == ".tflite":
        arrays, image_size = read_tflite(existing(path))
    elif index.is_file():
        arrays, read_from = read_checkpoint_files(index), index
    else:
        raise InputError(
            f"{path}: no file of TensorFlow; expected a frozen graph (.pb), a .tflite, or a checkpoint, of "
            f"which {index.name} would be the index"
        )
    state_dict = slim_state_dict(arrays)
    if not state_dict:
        raise InputError(
            f"{path}: it has no variable FeatureExtractor/... or BoxPredictor_0/...; give the "
            "frozen_inference_graph.pb or model.ckpt of TensorFlow 1's Object Detection API"
        )
    return TensorflowFile(state_dict, image_size, read_from)


def existing(path: Path) -> Path:
    """The path, if there is such a file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def slim_state_dict(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Variables of a detector in PyTorch's layout; moving averages in place of the weights, where kept."""
    found: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if match := VARIABLE.fullmatch(name):
            averaged = arrays.get(name + AVERAGE, array)
            found[f"{match[1]}.{KINDS[match[2]]}"] = in_torch_layout(averaged)
    return with_step_counts(found)


def read_frozen_graph(path: Path) -> tuple[Arrays, tuple[int, int] | None]:
    """Constants of a `GraphDef` by the variables that they were, and the size that images are resized to.

    Raises:
        InputError: the file cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.util.tensor_util import make_ndarray

    graph = GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: it cannot be read as a frozen graph of TensorFlow (GraphDef)") from error
    arrays: Arrays = {}
    image_size = None
    for node in graph.node:
        if node.op == "Placeholder":
            image_size = image_size or size_of_images(dim.size for dim in node.attr["shape"].shape.dim)
        elif node.op == "Const" and VARIABLE.fullmatch(node.name):
            arrays[node.name] = make_ndarray(node.attr["value"].tensor)
        elif node.op == "Const" and "/ResizeImage/" in node.name:
            size = make_ndarray(node.attr["value"].tensor)
            if size.shape == (2,) and size.dtype == np.int32 and size.min() > 0:
                image_size = (int(size[0]), int(size[1]))
    return arrays, image_size


LABEL = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
LABEL_ID = re.compile(r"\bid\s*:\s*(\d+)")
LABEL_NAME = re.compile(r"\b(display_name|name)\s*:\s*(?:\"(.*?)\"|'(.*?)')")


def read_labels(path: Path) -> list[str]:
    """Names of the labels 1, 2, ...: of a label map (`.pbtxt`), or of a text file with one name per line.

    Where a label map has no name for a label, as COCO's for ten of 90, it is "unused N".

    Raises:
        InputError: there is no such file, or no name in it.
    """
    text = existing(path).read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".pbtxt":
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found: dict[int, str] = {}
        for item in LABEL.findall(text):
            given = {kind: double or single for kind, double, single in LABEL_NAME.findall(item)}
            number = LABEL_ID.search(item)
            if number and given:
                found[int(number[1])] = given.get("display_name") or given["name"]
        names = [found.get(label, f"unused {label}") for label in range(1, max(found, default=0) + 1)]
    if not names:
        raise InputError(
            f"{path}: no name of a class in it; expected `item {{ id: 1 name: 'cat' }}` in a .pbtxt"
        )
    return names

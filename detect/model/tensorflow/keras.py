"""Keras' `.h5`: weights of the classifiers of `keras.applications`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from detect.errors import InputError
from detect.model.tensorflow.layout import KINDS, in_torch_layout, package, with_step_counts


def read_keras(path: Path) -> dict[str, Tensor]:
    """Weights of a `.h5` of Keras, whole model or weights alone, by one spelling of the names of its layers.

    Keras 2 writes `expanded_conv/depthwise/BatchNorm`, Keras 3 `expanded_conv_depthwise_bn`: the latter is
    taken. A classifier inside another model is found as well.

    Raises:
        InputError: the file cannot be read, or does not name its layers (`.weights.h5` of Keras 3).
    """
    h5py = package("h5py", "a .h5 of Keras")
    found: dict[str, Tensor] = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for layer in map(_text, root.attrs.get("layer_names", ())):
                for name in map(_text, root[layer].attrs.get("weight_names", ())):
                    owner, _, variable = name.partition(":")[0].rpartition("/")
                    array = root[layer][name][()]
                    if owner and variable in KINDS and array.ndim in (1, 4):
                        found[f"{_one_spelling(owner)}.{KINDS[variable]}"] = in_torch_layout(array)
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5: {error}") from error
    if not found:
        raise InputError(
            f"{path} names no layers: give a file of model.save('NAME.h5'), or weights as keras.applications "
            "publishes them"
        )
    return with_step_counts(found)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _one_spelling(layer: str) -> str:
    return layer.lower().replace("/", "_").replace("_batchnorm", "_bn")

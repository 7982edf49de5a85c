"""ImageNet weights for backbones: where they come from, how their layers are named, what fits.

A family states its `Source`s; a source's settings (BatchNorm eps, padding, squeeze widths) and pixel range
come with its weights, for a network with other settings computes something else from them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlparse

import torch
from rich.table import Table
from rich.text import Text
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.models import get_weight

from detect.errors import InputError, install_hint
from detect.model.backbones.base import Action, Backbone, Rgb, Transfer
from detect.model.backbones.layer_names import keras_names, timm_names, torchvision_names
from detect.model.blocks import ConvSettings
from detect.model.tensorflow.keras import read_keras
from detect.system.files import write_whole

Library = Literal["torchvision", "timm", "keras", "detect"]
Settings = TypeVar("Settings", bound=ConvSettings)

# The libraries' own statements; ImageNet-1k has terms of access besides.
LICENCES = {
    "torchvision": "BSD-3-Clause (torchvision), trained on ImageNet-1k",
    "timm": "Apache-2.0 (timm), trained on ImageNet-1k",
    "keras": "Apache-2.0 (Keras), trained on ImageNet-1k",
}
NAME_LAYERS = {"torchvision": torchvision_names, "timm": timm_names, "keras": keras_names}
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
HALF: Rgb = (0.5, 0.5, 0.5)
OWN_METADATA = "detect_backbone"
"""Key of what a weights file of `detect pretrain` says about itself, JSON."""


@dataclass(frozen=True)
class Source(Generic[Settings]):
    """A published set of weights at width 1.0, and what a network must agree with to use it."""

    library: Library
    name: str
    """A member of torchvision's weights enums, timm's model with its tag, a function of `keras.applications`;
    never "the latest"."""
    settings: Settings
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD


class Pretrained(NamedTuple, Generic[Settings]):
    """Weights that were read, with the source whose settings they need."""

    state_dict: dict[str, Tensor] | None
    """Null on the meta device, where a network has shapes alone: nothing was read."""
    source: Source[Settings]
    origin: dict[str, str]
    """What a checkpoint records: weights, licence, and for a file its hash."""


def find_weights(
    weights: str | None, sources: Sequence[Source[Settings]], *, width: float
) -> Pretrained[Settings] | None:
    """Read what `weights` names.

    Args:
        weights: "imagenet" for the first of `sources`; a path or `file://` URL of a `.pth`, `.safetensors` or
            `.h5` with the layer names of one of them; null for none.
        sources: what the family knows, its "imagenet" first.
        width: of the network; published weights are at 1.0.

    Raises:
        InputError: no such file, an unknown layout, no weights at this width, or no network to fetch them.
    """
    if weights is None:
        return None
    if torch.get_default_device().type == "meta":
        return Pretrained(None, sources[0], {"weights": weights})
    if weights == "imagenet":
        source = sources[0]
        if width != 1.0:
            raise InputError(
                f"weights: imagenet is {source.name}, trained at width 1.0; this backbone has width {width}. "
                "Give the path of weights trained at that width, or leave `weights` out"
            )
        return Pretrained(
            _fetch(source), source, {"weights": source.name, "licence": LICENCES[source.library]}
        )

    path = local_path(weights)
    state_dict = read_state_dict(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    own = _own_words(path)
    if own is not None:
        try:
            settings = type(sources[0].settings)(**own["settings"])
        except TypeError as error:
            raise InputError(f"{path} is of another family than {sources[0].name}: {error}") from error
        source = Source("detect", own["name"], settings, tuple(own["mean"]), tuple(own["std"]))
        return Pretrained(state_dict, source, {**own["origin"], "sha256": digest})
    source = _source_by_layout(state_dict, sources, path)
    return Pretrained(
        state_dict, source, {"weights": path.name, "licence": "not stated in the file", "sha256": digest}
    )


def write_backbone(backbone: Backbone, path: Path, origin: dict[str, str]) -> None:
    """Write a backbone as a file that `weights: PATH` takes, with its settings, pixel range and origin.

    Args:
        backbone: in float32, on any device.
        path: a .safetensors file.
        origin: name and licence of the weights, and where they are from.
    """
    words = {
        "name": backbone.name,
        "settings": asdict(backbone.settings),
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "origin": origin,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    write_whole(path, save(tensors, {OWN_METADATA: json.dumps(words)}))


def _own_words(path: Path) -> dict[str, Any] | None:
    """What a file of `write_backbone` says about itself; None for any other file."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        words = (file.metadata() or {}).get(OWN_METADATA)
    try:
        found = None if words is None else json.loads(words)
        wanted = {"name", "settings", "mean", "std", "origin"}
        if found is not None and not wanted <= found.keys():
            raise ValueError(f"it lacks {', '.join(sorted(wanted - found.keys()))}")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as weights of detect pretrain: {error}") from error
    return None if found is None else dict(found)


def _own_names(backbone: Backbone) -> dict[str, str]:
    """Every layer of `backbone` that has weights, under its own name."""
    return {
        name: name
        for name, module in backbone.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }


def local_path(weights: str) -> Path:
    """The file that a path or `file://` URL names."""
    return Path(unquote(urlparse(weights).path)) if weights.startswith("file://") else Path(weights)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from `.safetensors`, Keras' `.h5`, or a PyTorch file without running code from it.

    Raises:
        InputError: the file is missing, or is not a dictionary of tensors.
    """
    if not path.is_file():
        raise InputError(f"weights: there is no file {path}; expected 'imagenet', a path or a file:// URL")
    if path.suffix in (".h5", ".hdf5"):
        return read_keras(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # torchvision's training scripts store their command line beside the weights: plain attributes
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run code from the file
        raise InputError(
            f"{path} cannot be read as weights: it is broken, or holds more than tensors and plain values"
        ) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError, SafetensorError by what is wrong
        raise InputError(f"{path} cannot be read as weights: {error}") from error
    for wrapper in ("state_dict", "model"):  # timm's and torchvision's training scripts
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds {type(content).__name__}, expected a dictionary of tensors by name")
    return content


def load_pretrained(backbone: Backbone, pretrained: Pretrained[Any] | None) -> None:
    """Copy what fits into `backbone`, if anything, and note on it report, origin and pixel range.

    A layer of the same shape is copied. A narrower one (the reduced tail, a smaller width) takes the first
    channels of the source's: input and output channels of the whole tail are cut alike, so they stay paired.
    Any other layer keeps its fresh weights.
    """
    if pretrained is None:
        return
    backbone.weights_origin = pretrained.origin
    backbone.mean, backbone.std = pretrained.source.mean, pretrained.source.std
    if pretrained.state_dict is None:
        return
    library = pretrained.source.library
    if library == "detect":
        if pretrained.source.name != backbone.name:
            raise InputError(
                f"weights: {pretrained.origin['weights']} is of a {pretrained.source.name}, this backbone is "
                f"a {backbone.name}"
            )
        names = _own_names(backbone)
    else:
        names = NAME_LAYERS[library](backbone, pretrained.state_dict.keys())
    report: list[Transfer] = []
    for layer, group in _groups(names).items():
        pairs = [
            (backbone.get_submodule(ours).state_dict(), _tensors_below(pretrained.state_dict, theirs))
            for ours, theirs in group
        ]
        weight, source_weight = pairs[0][0]["weight"], pairs[0][1].get("weight")
        action = _action(pairs)
        if action != "fresh":
            for ours_tensors, source_tensors in pairs:
                for name, tensor in ours_tensors.items():
                    tensor.copy_(source_tensors[name][tuple(slice(n) for n in tensor.shape)])
        source_shape = None if source_weight is None else tuple(source_weight.shape)
        report.append(Transfer(layer, action, tuple(weight.shape), source_shape))
    backbone.transfer_report = report


def transfer_table(backbone: Backbone) -> Table:
    """One row for all copied layers, and one for each that was sliced or left fresh."""
    origin = backbone.weights_origin or {}
    title = ", ".join(f"{key} {value}" for key, value in origin.items())
    table = Table("layer", "action", "shape", "shape in the source", title=Text(title))
    copied = sum(row.action == "copied" for row in backbone.transfer_report)
    table.add_row(f"{copied} of {len(backbone.transfer_report)} layers", "copied", "", "")
    for row in backbone.transfer_report:
        if row.action != "copied":
            table.add_row(row.layer, row.action, str(row.shape), str(row.source_shape or "none"))
    return table


def _fetch(source: Source[Any]) -> dict[str, Tensor]:
    try:
        if source.library == "torchvision":
            enum = get_weight(source.name)
            return dict(enum.get_state_dict(progress=True, check_hash=True, weights_only=True))
        timm = import_module("timm")
    except ImportError as error:
        raise InputError(
            f"weights: imagenet is timm's {source.name}, which needs timm: {install_hint('timm')}; "
            "or give the path of a file"
        ) from error
    except OSError as error:
        raise InputError(no_network(f"torchvision's {source.name} ({enum.url})", error)) from error
    try:
        return dict(timm.create_model(source.name, pretrained=True).state_dict())
    except Exception as error:  # timm's hub client raises its HTTP library's own errors, no common base
        raise InputError(no_network(f"timm's {source.name}", error)) from error


def no_network(what: str, error: Exception) -> str:
    """The message where published weights could not be fetched."""
    return (
        f"weights: imagenet could not download {what}: {error}. Download it where there is a network, copy "
        "the .pth or .safetensors here and give its path as `weights`"
    )


def _source_by_layout(
    state_dict: dict[str, Tensor], sources: Sequence[Source[Settings]], path: Path
) -> Source[Settings]:
    library: Library | None = None
    if any(key.startswith("features.") for key in state_dict):
        library = "torchvision"
    elif "conv_stem.weight" in state_dict:
        library = "timm"
    elif "expanded_conv_depthwise.weight" in state_dict or "conv_dw_1.weight" in state_dict:
        library = "keras"
    for source in sources:
        if source.library == library:
            return source
    known = " or ".join(f"{source.library}'s {source.name}" for source in sources)
    first = ", ".join(list(state_dict)[:3])
    raise InputError(f"{path} does not have the layer names of {known}; its first are {first}")


def _tensors_below(state_dict: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    prefix = layer + "."
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def _action(pairs: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Action:
    """What can be done with a group of layers: it goes as one, for its channels belong together."""
    action: Action = "copied"
    for ours, theirs in pairs:
        for name, tensor in ours.items():
            source = theirs.get(name)
            if source is None or source.ndim != tensor.ndim or source.shape[2:] != tensor.shape[2:]:
                return "fresh"
            if any(size > source_size for size, source_size in zip(tensor.shape, source.shape, strict=True)):
                return "fresh"
            if tensor.shape != source.shape:
                action = "sliced"
    return action


def _groups(names: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Layers by the block that they are parts of, each with its name in the source."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for ours, theirs in names.items():
        groups.setdefault(ours.rpartition(".")[0], []).append((ours, theirs))
    return groups

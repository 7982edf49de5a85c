"""Detectors to start from that a word names: `coco`, published ones, and `starter`, those of this package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from detect.data.annotation_cache import cache_folder
from detect.data.public.pinned_file import PinnedFile, one_at_a_time, pinned_file
from detect.data.public.unpack import Limits, unpack
from detect.errors import InputError
from detect.model.backbones.pretrained import read_state_dict
from detect.model.checkpoint import build_detector, read_checkpoint, without_weights, write_checkpoint
from detect.model.ssdlite import SSDLite
from detect.model.weights import flat_backbone, import_tensorflow, import_torchvision

GRAPH = "frozen_inference_graph.pb"
ZOO = Limits(files=100, gb=0.5)
"""Of an archive of TensorFlow's model zoo; the one below unpacks to about 0.1 GB."""
STARTERS = Path(__file__).parent / "starters"
"""Checkpoints in the package, weights in fp16; `scripts/starter` makes the one there is."""


class Published(NamedTuple):
    """A detector that others trained and published."""

    url: str
    sha256: str
    max_bytes: int
    backbone: dict[str, Any]
    """That it fits, as `flat_backbone` says it."""
    licence: str
    convert: Callable[[Path], dict[str, Any]]
    """From the file to the content of a checkpoint."""

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rsplit("/", 1)[1]


def _torchvision(path: Path) -> dict[str, Any]:
    return import_torchvision(read_state_dict(path), name=path.name)


def _tensorflow(path: Path) -> dict[str, Any]:
    """From an archive of TensorFlow's model zoo, whose frozen graph alone is unpacked."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder), rf"[^/]+/({GRAPH})", limits=ZOO)
        return import_tensorflow(Path(folder) / GRAPH)


COCO: tuple[Published, ...] = (
    Published(
        # torchvision publishes the first eight digits of the sum, in the name.
        url="https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        sha256="a79551df90c79834bcd3bb3845ef9d966b5449a3a9b2833ae8404778ca5d65d2",
        max_bytes=20_000_000,
        backbone={
            "class_path": "detect.model.backbones.MobileNetV3",
            **{"size": "large", "width": 1.0, "reduced_tail": True, "minimalistic": False},
        },
        licence="BSD-3-Clause (torchvision), trained on COCO",
        convert=_torchvision,
    ),
    Published(
        # TensorFlow publishes no sum. Two projects on GitHub that fetch the file state this one:
        # jinay1991/perception (third_party/model/model.bzl, in its history) and
        # civcode/movidius-openvino-rpi5 (scripts/prepare-ssdlite.sh). The size is open_model_zoo's.
        url="http://download.tensorflow.org/models/object_detection/ssdlite_mobilenet_v2_coco_2018_05_09.tar.gz",
        sha256="542445cce834dbfbb7df1991425d475e85a2d7ec68c60a4f262bb18aac10c8b2",
        max_bytes=51_025_348,
        backbone={"class_path": "detect.model.backbones.MobileNetV2", "width": 1.0},
        licence="Apache-2.0 (TensorFlow's model zoo), trained on COCO",
        convert=_tensorflow,
    ),
)
"""Published detectors, trained on COCO's 80 classes. The zoo's MobileNetV3
(`ssd_mobilenet_v3_*_coco_2020_01_14`) is missing: no two sources state its sums."""


def find_start(start: str, model: dict[str, Any]) -> Path:
    """The checkpoint that `model.init_from` names.

    Args:
        start: "coco" for a published detector and "starter" for one of this package, each for the backbone
            of `model`; else the path of a checkpoint (./coco for a file of that name).
        model: plain values of a `model:` section.

    Raises:
        InputError: there is none for this backbone, or it can neither be found nor fetched.
    """
    if start not in ("coco", "starter"):
        return Path(start)
    own = {key: value for key, value in without_weights(model).items() if key != "anchors"}
    with torch.device("meta"):
        net = build_detector({**own, "num_classes": own.get("num_classes") or 1}).net
    return published_start(net) if start == "coco" else starter(net)


def published_start(net: SSDLite) -> Path:
    """The published detector for the backbone of `net`, as a checkpoint; fetched once.

    Raises:
        InputError: there is none for this backbone, or it can neither be found nor fetched.
    """
    backbone = flat_backbone(net.backbone.to_settings())
    for published in COCO:
        if published.backbone == backbone:
            return fetched(published)
    raise InputError(_none_fits("coco", backbone, [published.backbone for published in COCO]))


def starter(net: SSDLite) -> Path:
    """The starter for the backbone of `net`.

    Raises:
        InputError: there is none for this backbone.
    """
    backbone = flat_backbone(net.backbone.to_settings())
    own = {
        path: flat_backbone(read_checkpoint(path).description["model"]["backbone"])
        for path in sorted(STARTERS.glob("*.ckpt"))
    }
    for path, of_starter in own.items():
        if of_starter == backbone:
            return path
    raise InputError(_none_fits("starter", backbone, [*own.values()]))


def fetched(published: Published) -> Path:
    """A published detector as a checkpoint in the cache: fetched, checked and converted if it is not there.

    The file itself may be put beside it by hand, or lie where torchvision's own downloads are kept.

    Raises:
        InputError: it can neither be found nor fetched, or its hash is another.
    """
    folder = cache_folder() / "weights"
    converted = folder / f"{published.name}.ckpt"
    file = PinnedFile(published.url, published.sha256, published.max_bytes)
    with one_at_a_time(folder / f".{file.name}.lock"):
        if not converted.is_file():
            hub = Path(torch.hub.get_dir()) / "checkpoints" / file.name
            source = pinned_file(file, folder, elsewhere=[hub])
            content = published.convert(source)
            origin = {"weights": published.name, "licence": published.licence}
            content["detect"]["weights_origin"] = origin | {"url": published.url, "sha256": published.sha256}
            write_checkpoint(converted, content)
    return converted


def _none_fits(word: str, backbone: dict[str, Any], known: list[dict[str, Any]]) -> str:
    there = "; ".join(map(_described, known)) or "none yet"
    return (
        f"--model.init_from {word}: there is none for {_described(backbone)}; there are: {there}. Give the "
        "backbone these values, or the path of a detector"
    )


def _described(backbone: dict[str, Any]) -> str:
    name = backbone["class_path"].rpartition(".")[2]
    return ", ".join([name, *(f"{key} {value}" for key, value in backbone.items() if key != "class_path")])

"""What several tests share: generated pictures, and where the real ones lie if they are there."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from detect.model.published import COCO
from tests.file_server import FileServer, serving

torch.set_num_threads(1)
# With AMX, OpenVINO 2026.4 ends with a segmentation fault in an int8 depthwise 5x5 on a map of 2x2, which the
# tests' inputs of 64 px have; processes that tests start inherit it.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
# What processes of the start method `forkserver` find imported; before the first of them.
multiprocessing.set_forkserver_preload(["detect.commands.fit", "detect.training.module"])

CLASSES = {3: "square", 7: "disc", 11: "bar"}
COLOURS = {3: (200, 60, 50), 7: (60, 90, 200), 11: (60, 170, 70)}


def shared_data(name: str) -> Path:
    """The folder of a real data set, or a skip that says what is missing."""
    root = Path(os.environ.get("DETECT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    folder = root / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not at {folder}; set DETECT_SHARED to the folder above data/")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that processes that share the files end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def bccd() -> Path:
    return shared_data("bccd")


@pytest.fixture
def coco128() -> Path:
    return shared_data("coco128")


def draw_picture(rng: np.random.Generator, path: Path) -> list[tuple[int, list[int]]]:
    """A 160x120 picture with one to three coloured shapes; returns (category_id, xywh) of each."""
    picture = Image.new("RGB", (160, 120), tuple(int(v) for v in rng.integers(180, 250, 3)))
    draw = ImageDraw.Draw(picture)
    objects = []
    for slot in rng.permutation(3)[: rng.integers(1, 4)]:  # thirds of the picture, so that none overlap
        category_id = int(rng.choice(list(CLASSES)))
        w, h = (int(v) for v in rng.integers(24, 48, 2))
        x, y = int(slot) * 53 + int(rng.integers(0, 53 - w)), int(rng.integers(0, 120 - h))
        shape = draw.ellipse if category_id == 7 else draw.rectangle
        shape([x, y, x + w - 1, y + h - 1], fill=COLOURS[category_id])
        objects.append((category_id, [x, y, w, h]))
    picture.save(path, quality=95)
    return objects


def make_coco(root: Path, *, train: int = 4, val: int = 4, seed: int = 0) -> Path:
    """A small COCO folder with gaps in its category ids."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            name = f"{i:03d}.jpg"
            images.append({"id": i + 10, "file_name": name, "width": 160, "height": 120})
            for category_id, bbox in draw_picture(rng, root / split / name):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i + 10,
                        "category_id": category_id,
                        "bbox": bbox,
                        "area": bbox[2] * bbox[3],
                        "iscrowd": 0,
                    }
                )
        coco = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in CLASSES.items()],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    return root


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or inherits a run folder."""
    monkeypatch.setenv("DETECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DETECT_RUN", raising=False)


@pytest.fixture(scope="session")
def torchvision_file() -> bytes:
    """What torchvision publishes as a detector, with random weights."""
    torch.manual_seed(0)
    state = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture
def coco_server(
    torchvision_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """`model.init_from: coco` on 127.0.0.1, and no downloads of torchvision's own on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serving() as told:
        told.files["/" + COCO[0].name] = torchvision_file
        row = COCO[0]._replace(
            url=f"{told.url}/{COCO[0].name}", sha256=hashlib.sha256(torchvision_file).hexdigest()
        )
        monkeypatch.setattr("detect.model.published.COCO", (row,))
        monkeypatch.setattr("detect.inspection.starts.COCO", (row,))
        yield told

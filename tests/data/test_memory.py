"""What a worker costs: pages that it has to copy because it looked at the annotations."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from detect.data.annotations import Annotations
from detect.data.augment.transforms import default_augmentations
from detect.data.dataset import DetectionDataset, SampleKey
from detect.types import ClassMap

NUM_IMAGES, NUM_BOXES = 16_000, 116_000  # a seventh of train2017


def flat_annotations() -> Annotations:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (NUM_BOXES, 2))
    return Annotations(
        root=Path("images"),
        source=Path("instances.json"),
        classes=ClassMap(("thing",), (1,)),
        file_names=np.array([f"{i:012d}.jpg".encode() for i in range(NUM_IMAGES)]),
        image_ids=np.arange(NUM_IMAGES),
        sizes=np.full((NUM_IMAGES, 2), 480, dtype=np.int32),
        offsets=np.linspace(0, NUM_BOXES, NUM_IMAGES + 1).astype(np.int64),
        boxes=np.concatenate([corners, corners + 100], axis=1),
        labels=np.ones(NUM_BOXES, dtype=np.int64),
        ignore=np.zeros(NUM_BOXES, dtype=np.bool_),
        areas=np.full(NUM_BOXES, 1e4),
        annotation_ids=np.arange(NUM_BOXES),
    )


def coco_annotations(annotations: Annotations) -> COCO:
    coco = COCO()
    images = np.repeat(np.arange(NUM_IMAGES), np.diff(annotations.offsets)).tolist()
    coco.dataset = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "height": 480, "width": 480} for i in range(NUM_IMAGES)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "bbox": box, "area": 1e4, "iscrowd": 0}
            for i, (image, box) in enumerate(zip(images, annotations.boxes.tolist(), strict=True))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def private_mb() -> float:
    """Memory of this process alone, which no other shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


def growth_in_worker(epoch: Callable[[int, range], object], epochs: int) -> list[float]:
    """MB that a forked process takes for itself, counted after each epoch.

    From its tenth image on: what it copies to do anything at all is left out.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        epoch(epochs, range(10))
        before = private_mb()
        grown = []
        for number in range(epochs):
            epoch(number, range(NUM_IMAGES))
            grown.append(private_mb() - before)
        sender.send(grown)

    process = context.Process(target=work)
    process.start()
    grown: list[float] = receiver.recv()
    process.join()
    return grown


def measure() -> tuple[list[float], float]:
    """MB that a worker grows by in each epoch of ours, and in one of pycocotools."""
    annotations = flat_annotations()
    dataset = DetectionDataset(annotations, (320, 320), augmentations=default_augmentations())

    def ours(epoch: int, images: range) -> None:
        for row in images:
            dataset.boxes(SampleKey(epoch, row, 8))

    coco = coco_annotations(annotations)

    def theirs(epoch: int, images: range) -> None:
        for row in images:
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[row])):
                assert annotation["bbox"]

    return growth_in_worker(ours, 2), growth_in_worker(theirs, 1)[0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_annotations__cost_a_worker_next_to_nothing() -> None:
    # In a fresh interpreter: a forked worker also copies what the tests before left on the heap.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        (first, last), pycocotools = fresh.submit(measure).result()
    assert last - first < 1  # MB: epochs add nothing
    assert last < pycocotools / 10

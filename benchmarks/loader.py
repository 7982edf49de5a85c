"""Images per second from file to batch, ours against torchvision's reference pipeline, paired in one run.

python benchmarks/loader.py [--root DATA] [--rounds 5] [--json FILE]

Three loaders with one worker each take turns on the same files: torchvision's v2 transforms followed by the
resize and normalisation of its detectors, ours, and ours with the cache of decoded pixels (filled before the
clock starts). Every one makes IoU crop, flip and 320 x 320 batches. Figures are images per second of the
worker's processor time (per core, whatever else the machine does) and of wall time; `ratio` and
`ratio_cached` are medians over rounds of the first, `ratio_wall` and `ratio_cached_wall` of the second.
`time_ratio` has the processor time of an image that each layout makes, Mosaic, CopyPaste and MixUp, over that
of an image without one: `decoded` every time, and `cached`.
Without `--root` and without coco128 beside the repository, photographs are generated.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from detect.data.annotations import Annotations
from detect.data.augment import CopyPaste, MixUp, Mosaic, RandomHorizontalFlip, RandomIoUCrop
from detect.data.cache import PixelCache
from detect.data.dataset import DetectionDataset, SampleKey, collate
from detect.data.splits import open_split
from detect.data.workers import start_worker

IMAGE_SIZE = (320, 320)
BATCH_SIZE = 32
COCO128 = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco128"
GENERATED_IMAGES = 128
PASSES = 4
"""Over all images in one round, so that the start of a round, when nothing is ready yet, weighs little."""


class TorchvisionDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """torchvision's references/detection presets with `RandomIoUCrop`, v2 backend, boxes only."""

    def __init__(self, annotations: Annotations) -> None:
        self.annotations = annotations
        self.transforms = v2.Compose(
            [
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.ConvertBoundingBoxFormat(tv_tensors.BoundingBoxFormat.XYXY),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = Image.open(self.annotations.path(row)).convert("RGB")
        rows = self.annotations.rows(row)
        boxes = torch.from_numpy(self.annotations.boxes[rows].astype(np.float32))
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width)),
            "labels": torch.from_numpy(self.annotations.labels[rows].copy()),
        }
        return self.transforms(image, target)


class TorchvisionCollate:
    """What torchvision's SSDLite does to a list of images before its backbone sees them."""

    def __init__(self) -> None:
        self.resize = GeneralizedRCNNTransform(
            min(IMAGE_SIZE), max(IMAGE_SIZE), [0.5] * 3, [0.5] * 3, size_divisible=1, fixed_size=IMAGE_SIZE
        )

    def __call__(self, samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Any, float]:
        images, targets = self.resize([image for image, _ in samples], [target for _, target in samples])
        return (images.tensors, targets), time.process_time()


class OurCollate:
    """Ours, with the worker's clock beside it."""

    def __call__(self, samples: list[Any]) -> tuple[Any, float]:
        return collate(samples), time.process_time()


class Batches:
    """All images `PASSES` times in the given order; ours is asked by `SampleKey`."""

    def __init__(self, count: int, *, ours: bool) -> None:
        self.count, self.ours, self.epoch = count, ours, 0

    def __len__(self) -> int:
        return PASSES * self.count // BATCH_SIZE

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in range(len(self)):
            self.epoch += 1
            rows = [row % self.count for row in range(batch * BATCH_SIZE, (batch + 1) * BATCH_SIZE)]
            yield [SampleKey(self.epoch, row, 64) if self.ours else row for row in rows]


def loader(dataset: Dataset[Any], *, ours: bool) -> DataLoader[Any]:
    count = len(dataset)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_sampler=Batches(count, ours=ours),
        num_workers=1,
        persistent_workers=True,
        collate_fn=OurCollate() if ours else TorchvisionCollate(),
        worker_init_fn=start_worker if ours else None,
    )


def time_round(batches: DataLoader[Any]) -> dict[str, float]:
    """Images per second of one round, by the wall and by the worker's processor.

    The processor's clock stands in each batch; the first batch only sets its start.
    """
    start = time.perf_counter()
    clocks = [clock for _, clock in batches]
    wall_s = time.perf_counter() - start
    cpu_s = clocks[-1] - clocks[0]
    return {"wall": len(clocks) * BATCH_SIZE / wall_s, "cpu": (len(clocks) - 1) * BATCH_SIZE / cpu_s}


def measure(annotations: Annotations, rounds: int, cache_folder: Path) -> dict[str, list[dict[str, float]]]:
    """Figures of each loader, a list over rounds; the loaders take turns within a round."""
    os.environ["DETECT_CACHE"] = str(cache_folder)
    augmentations = [RandomIoUCrop(), RandomHorizontalFlip()]
    ours = DetectionDataset(annotations, IMAGE_SIZE, augmentations=augmentations)
    cached = DetectionDataset(annotations, IMAGE_SIZE, augmentations=augmentations)
    cached.cache = PixelCache(annotations, cached.draft_scales, place="disk", limit_gb=2)
    loaders = {
        "torchvision": loader(TorchvisionDataset(annotations), ours=False),
        "ours": loader(ours, ours=True),
        "ours_cached": loader(cached, ours=True),
    }
    for batches in loaders.values():  # starts the workers, reads the files, fills the cache
        time_round(batches)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, batches in loaders.items():
            figures[name].append(time_round(batches))
    return figures


def layout_ratios(annotations: Annotations, rounds: int) -> dict[str, dict[str, float]]:
    """Processor time of a sample of each layout over that of a plain one; medians of paired rounds."""
    steps = [RandomIoUCrop(), RandomHorizontalFlip()]
    layouts = {layout.__name__: [layout(1.0)] for layout in (Mosaic, CopyPaste, MixUp)}
    ratios: dict[str, dict[str, float]] = {}
    for kind in ("decoded", "cached"):
        datasets = {
            name: DetectionDataset(annotations, IMAGE_SIZE, augmentations=[*layout, *steps])
            for name, layout in {"plain": [], **layouts}.items()
        }
        for dataset in datasets.values() if kind == "cached" else ():
            dataset.cache = PixelCache(annotations, dataset.draft_scales, place="disk", limit_gb=2)
            for row in range(len(annotations)):
                dataset.pixels(row)
        seconds: dict[str, list[float]] = {name: [] for name in datasets}
        for epoch in range(rounds):
            for name, dataset in datasets.items():
                start = time.process_time()
                for row in range(len(annotations)):
                    dataset[SampleKey(epoch, row, 0)]
                seconds[name].append(time.process_time() - start)
        ratios[kind] = {
            name: statistics.median(map(operator.truediv, seconds[name], seconds["plain"]))
            for name in layouts
        }
    return ratios


def median_ratio(figures: dict[str, list[dict[str, float]]], name: str, clock: str) -> float:
    pairs = zip(figures[name], figures["torchvision"], strict=True)
    return statistics.median(ours[clock] / theirs[clock] for ours, theirs in pairs)


def generate_photographs(root: Path) -> None:
    """640 x 480 JPEGs with the detail and the file size of COCO's, and a box on each of a few patches."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for i in range(GENERATED_IMAGES):
        layers = [
            rng.normal(0, 255 / (octave + 2), (15 * 2**octave, 20 * 2**octave, 3)) for octave in range(6)
        ]
        image = sum(np.kron(layer, np.ones((32 >> o, 32 >> o, 1))) for o, layer in enumerate(layers))
        pixels = np.clip(np.asarray(image) / 2 + 127, 0, 255).astype(np.uint8)
        name = f"{i:012d}.jpg"
        Image.fromarray(pixels).save(root / "train2017" / name, quality=90)
        images.append({"id": i, "file_name": name, "height": 480, "width": 640})
        for _ in range(int(rng.integers(1, 15))):
            x, y, width, height = rng.uniform((0, 0, 20, 20), (400, 300, 240, 180)).round(1).tolist()
            bbox = [x, y, width, height]
            boxes.append({"id": len(boxes) + 1, "image_id": i, "category_id": 1, "bbox": bbox})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "patch"}]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="a COCO or VOC folder; its training split is read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or (COCO128 if COCO128.is_dir() else Path(folder) / "photographs")
        if not root.exists():
            generate_photographs(root)
        annotations = open_split(root, role="train").annotations
        if PASSES * len(annotations) < 2 * BATCH_SIZE:
            parser.error(
                f"{root} has {len(annotations)} images, at least {2 * BATCH_SIZE // PASSES} are needed"
            )
        figures = measure(annotations, arguments.rounds, Path(folder) / "cache")
        time_ratio = layout_ratios(annotations, arguments.rounds)
    result: dict[str, Any] = {
        "ratio": median_ratio(figures, "ours", "cpu"),
        "ratio_cached": median_ratio(figures, "ours_cached", "cpu"),
        "ratio_wall": median_ratio(figures, "ours", "wall"),
        "ratio_cached_wall": median_ratio(figures, "ours_cached", "wall"),
        "time_ratio": time_ratio,
        "images": len(annotations),
        "root": root.name,
        "batch_size": BATCH_SIZE,
        "image_size": list(IMAGE_SIZE),
        "versions": {"torch": torch.__version__},
        "images_per_s": figures,
    }
    print(f"{'images/s':12} {'of processor time':>18} {'of wall time':>14}")
    for name, values in figures.items():
        cpu, wall = (statistics.median(value[clock] for value in values) for clock in ("cpu", "wall"))
        print(f"{name:12} {cpu:18.1f} {wall:14.1f}")
    for kind in ("ratio", "ratio_cached"):
        print(f"{kind:12} {result[kind]:18.2f} {result[kind + '_wall']:14.2f}   (medians of paired rounds)")
    print(f"{'time of':12} {'decoded':>18} {'cached':>14}   (over an image without a layout)")
    for name, value in time_ratio["decoded"].items():
        print(f"{name:12} {value:18.2f} {time_ratio['cached'][name]:14.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Training side by side: ours, torchvision's SSDLite and, where installed by hand, YOLO nano and PicoDet.

python benchmarks/peers_training.py --config configs/bccd.yaml --root DATA [--peers torchvision ultralytics]
    [--epochs 30] [--image_size 320] [--threads 1] [--seeds 0] [--out FOLDER] [--json FILE]

Every subject trains on the same boxes of the same split (as our readers and checks leave them), the same
number of epochs, images per step (the configuration's), input size and threads, in a process of its own, on
the CPU; images are loaded in that process. What the last epoch leaves is scored, for no peer may choose its
best epoch on the images that it is scored on. The detections of each are written as COCO results, and one
evaluator scores all.

  ours           the configuration given
  torchvision    ssdlite320_mobilenet_v3_large from random weights: SGD, warm-up, cosine, IoU crop, flip
  ultralytics    yolo11n.yaml from random weights, its own settings; `ultralytics:yolov8n` takes another
  lightly_train  picodet/s-416 from random weights, its own settings; `lightly_train:NAME` takes another

ultralytics is AGPL-3.0 and no dependency of this project; it is imported only where `--peers` names it, and
so is lightly-train. Install them by hand, each into an environment of its own with this project
(`pip install ultralytics`, `pip install lightly-train`): the packages of the one change what the other does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import tv_tensors
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from detect.api import Detector
from detect.config.model_section import read_config
from detect.data.annotations import Annotations
from detect.data.convert import write_copy
from detect.data.datamodule import DetectionData
from detect.data.images.decode import load_pixels
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator
from detect.types import INPUT_SIZE, Detections

DATA_KEYS = ("train_split", "val_split", "voc_one_based", "box_convention")
"""Settings of the `data:` section that decide which boxes there are."""
LEARNING_RATE, LEARNING_RATE_BATCH = 0.05, 8
"""Of torchvision's SSDLite, tuned on BCCD; for other batches by the linear rule."""
WARMUP_STEPS = 50
LEAST_SCORE = 0.001
"""Of the peers' detections: mAP wants all of them."""
YOLO_NMS_IOU, YOLO_MAX_DETECTIONS = 0.7, 300
"""What ultralytics validates with."""
DEFAULT_MODELS = {"ultralytics": "yolo11n", "lightly_train": "picodet/s-416"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """What every subject does."""

    config: Path
    root: Path
    splits: dict[str, str | None]
    """`train_split` and `val_split`; null: the configuration's."""
    epochs: int
    image_size: int
    batch: int
    """Images per step."""
    threads: int
    out: Path


class Found(NamedTuple):
    """Detections of one image."""

    boxes: Tensor
    """(D, 4) xyxy, px of the upright image."""
    scores: Tensor
    labels: Tensor
    """(D,) 1..K."""


Finder = Callable[[Pixels], Found]
"""A trained detector: a (h, w, 3) upright RGB image to its detections."""


def open_data(task: Task) -> DetectionData:
    """Both splits, as `detect fit` with the configuration reads them."""
    section = read_config(task.config).get("data") or {}
    settings = {key: section[key] for key in DATA_KEYS if key in section}
    data = DetectionData(task.root, **settings | {k: v for k, v in task.splits.items() if v is not None})
    data.open()
    return data


def train_ours(task: Task, data: DetectionData, seed: int, folder: Path) -> Finder:
    """`detect fit` with the configuration; one validation, at the end, for it changes no weight."""
    from detect.commands.main import main as detect

    size, splits = task.image_size, data.split_names
    words = ["fit", "--config", str(task.config), "--data.root", str(task.root), "--out", str(folder / "run")]
    words += [f"--data.{role}_split={name}" for role, name in splits.items() if name is not None]
    words += [f"--model.image_size=[{size},{size}]", f"--data.total_batch_size={task.batch}"]
    words += ["--data.workers=0", f"--seed_everything={seed}", "--trainer.accelerator=cpu"]
    words += [f"--trainer.max_epochs={task.epochs}", f"--trainer.check_val_every_n_epoch={task.epochs}"]
    if detect([*words, "--trainer.enable_progress_bar=false"]) != 0:
        raise InputError(f"{task.config}: the training failed")
    detector = Detector.load(folder / "run" / "checkpoints" / "last.ckpt", device="cpu")

    def find(pixels: Pixels) -> Found:
        boxes, scores, labels = detector.detect(*detector.prepare([pixels]))
        found = labels[0] > 0
        return Found(boxes[0][found], scores[0][found], labels[0][found])

    return find


def train_torchvision(task: Task, data: DetectionData, seed: int, folder: Path) -> Finder:
    """The detector of torchvision with its reference's augmentation; images stay decoded in memory."""
    torch.manual_seed(seed)
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=data.classes.num_classes + 1
    )
    model.transform.fixed_size = (task.image_size, task.image_size)
    examples = [torchvision_example(data.train, row) for row in range(len(data.train))]
    augment = v2.Compose(
        [
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    rate = LEARNING_RATE * task.batch / LEARNING_RATE_BATCH
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=4e-5)
    per_epoch = len(examples) // task.batch
    model.train()
    for step in range(task.epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(examples)).tolist()
        for group in optimizer.param_groups:
            group["lr"] = rate * warm_cosine(step, task.epochs * per_epoch)
        start = step % per_epoch * task.batch
        batch = [augment(*examples[row]) for row in order[start : start + task.batch]]
        images, targets = map(list, zip(*batch, strict=True))
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "last.pth")
    model.eval()

    def find(pixels: Pixels) -> Found:
        image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        return Found(**model([image])[0])

    return find


def torchvision_example(annotations: Annotations, row: int) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
    """An image and its boxes, without regions to ignore, which torchvision does not know."""
    pixels = load_pixels(annotations.path(row))
    rows = annotations.rows(row)
    kept = ~annotations.ignore[rows]
    boxes = torch.from_numpy(annotations.boxes[rows][kept].astype(np.float32)).reshape(-1, 4)
    size = (pixels.shape[0], pixels.shape[1])
    target = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": torch.from_numpy(annotations.labels[rows][kept]),
    }
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)), target


def warm_cosine(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear warm-up under a cosine to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def yolo_copy(data: DetectionData, folder: Path) -> Path:
    """The boxes that we train on as a YOLO folder with the splits train and val; images are linked."""
    copy = folder / "yolo"
    copy.mkdir()
    write_copy(copy, {"train": data.train, "val": data.val}, "yolo", "link")
    return copy


def train_ultralytics(task: Task, data: DetectionData, seed: int, folder: Path, model_name: str) -> Finder:
    """A YOLO from its architecture file with random weights; everything else as it comes."""
    os.environ["YOLO_OFFLINE"] = "true"
    ultralytics = peer_package("ultralytics")
    model = ultralytics.YOLO(f"{model_name}.yaml")
    # On a CPU it takes all cores but one, whatever was set before.
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(task.threads))
    settings: dict[str, Any] = {"imgsz": task.image_size, "batch": task.batch, "device": "cpu"}
    model.train(
        data=str(yolo_copy(data, folder) / "data.yaml"),
        epochs=task.epochs,
        seed=seed,
        pretrained=False,
        workers=0,
        val=False,
        plots=False,
        project=str(folder.absolute()),
        name="run",
        **settings,
    )
    trained = ultralytics.YOLO(folder / "run" / "weights" / "last.pt")

    def find(pixels: Pixels) -> Found:
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        limits = {"conf": LEAST_SCORE, "iou": YOLO_NMS_IOU, "max_det": YOLO_MAX_DETECTIONS}
        boxes = trained.predict(bgr, verbose=False, **limits, **settings)[0].boxes
        return Found(boxes.xyxy, boxes.conf, boxes.cls.long() + 1)

    return find


def train_lightly(task: Task, data: DetectionData, seed: int, folder: Path, model_name: str) -> Finder:
    """A detector of lightly-train, from the weights that its name says; everything else as it comes."""
    os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
    lightly_train = peer_package("lightly_train")
    copy = yolo_copy(data, folder)
    lightly_train.train_object_detection(
        out=str(folder / "run"),
        model=model_name,
        data={
            "format": "yolo",
            "path": str(copy),
            "train": "images/train",
            "val": "images/val",
            "names": dict(enumerate(data.classes.names)),
        },
        steps=task.epochs * (len(data.train) // task.batch),
        batch_size=task.batch,
        gradient_accumulation_steps=1,  # "auto" gathers 80 images to a step, twenty times what was seen
        num_workers=0,
        seed=seed,
        accelerator="cpu",
        precision="32-true",
        transform_args={"image_size": (task.image_size, task.image_size)},
    )
    trained = lightly_train.load_model(folder / "run" / "exported_models" / "exported_last.pt")

    def find(pixels: Pixels) -> Found:
        found = trained.predict(torch.from_numpy(pixels).permute(2, 0, 1), threshold=LEAST_SCORE)
        return Found(found["bboxes"], found["scores"], found["labels"].long() + 1)

    return find


def peer_package(name: str) -> Any:
    """A peer that is installed by hand.

    Raises:
        InputError: it is not.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is not installed ({error}): `pip install {name.replace('_', '-')}` into an environment "
            "of its own, beside this project"
        ) from error


def train(subject: str, task: Task, data: DetectionData, seed: int, folder: Path) -> Finder:
    """Train a subject, `NAME` or `NAME:MODEL`.

    Raises:
        InputError: there is no such subject, or it is not installed.
    """
    name, _, model = subject.partition(":")
    model = model or DEFAULT_MODELS.get(name, "")
    match name:
        case "ours":
            return train_ours(task, data, seed, folder)
        case "torchvision":
            return train_torchvision(task, data, seed, folder)
        case "ultralytics":
            return train_ultralytics(task, data, seed, folder, model)
        case "lightly_train":
            return train_lightly(task, data, seed, folder, model)
    raise InputError(f"there is no peer {subject}; there are torchvision, {', '.join(DEFAULT_MODELS)}")


@torch.inference_mode()
def score(find: Finder, annotations: Annotations) -> CocoEvaluator:
    """Detect on every image of a split once."""
    evaluator = CocoEvaluator(annotations)
    for row in range(len(annotations)):
        found = find(load_pixels(annotations.path(row)))
        evaluator.update(torch.tensor([row]), Detections(*(part.cpu()[None] for part in found)))
    evaluator.gather()
    return evaluator


def run_one(subject: str, task: Task, seed: int) -> dict[str, Any]:
    """Train and score one subject under one seed; its detections are in OUT/SUBJECT-seedN/detections.json."""
    torch.set_num_threads(task.threads)
    folder = task.out / f"{subject.replace(':', '-').replace('/', '-')}-seed{seed}"
    folder.mkdir(parents=True)
    data = open_data(task)
    began, cpu_began = time.perf_counter(), time.process_time()
    find = train(subject, task, data, seed, folder)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    evaluator = score(find, data.val)
    (folder / "detections.json").write_text(json.dumps(evaluator.results()))
    return {
        "subject": subject,
        "seed": seed,
        "train_s": round(seconds, 1),
        "train_cpu_s": round(cpu_seconds, 1),
        **evaluator.compute().to_json(),
    }


def run_apart(subject: str, task: Task, seed: int) -> dict[str, Any]:
    """`run_one` in a process of its own: what a library does to threads and seeds reaches no other."""
    os.environ["OMP_NUM_THREADS"] = str(task.threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run_one, subject, task, seed).result()


def table(rows: list[dict[str, Any]], task: Task) -> Table:
    """Subjects for people: means over seeds, and their deviation where there are several."""
    grid = Table(title=f"{task.epochs} epochs at {task.image_size} px, {task.batch} images per step")
    for column in ("subject", "seeds", "mAP", "AP50", "APs", "APm", "APl", "training, CPU s"):
        grid.add_column(column, justify="left" if column == "subject" else "right")
    for subject in dict.fromkeys(row["subject"] for row in rows):
        own = [row for row in rows if row["subject"] == subject]
        names = ("mAP", "AP50", "APs", "APm", "APl")
        figures = [in_words([row[name] for row in own]) for name in names]
        grid.add_row(subject, str(len(own)), *figures, f"{mean(row['train_cpu_s'] for row in own):.0f}")
    return grid


def in_words(values: list[float]) -> str:
    """A mean, with its deviation."""
    if min(values) < 0:
        return "-"
    return f"{mean(values):.3f}" + (f" +- {stdev(values):.3f}" if len(values) > 1 else "")


def read_task(arguments: argparse.Namespace, out: Path) -> Task:
    """What the configuration decides, where the command line does not."""
    config = read_config(arguments.config)
    sides = (config.get("model") or {}).get("image_size") or INPUT_SIZE
    return Task(
        config=arguments.config,
        root=arguments.root,
        splits={"train_split": arguments.train_split, "val_split": arguments.val_split},
        epochs=arguments.epochs or (config.get("trainer") or {}).get("max_epochs") or 30,
        image_size=arguments.image_size or min(sides),
        batch=(config.get("data") or {}).get("total_batch_size") or 32,
        threads=arguments.threads,
        out=out,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="of ours")
    parser.add_argument("--root", type=Path, required=True, help="a data set in any format that is read")
    parser.add_argument("--train_split", help="the configuration's otherwise")
    parser.add_argument("--val_split", help="the configuration's otherwise")
    parser.add_argument("--peers", nargs="*", default=["torchvision"], help="NAME or NAME:MODEL")
    parser.add_argument("--epochs", type=int, help="the configuration's otherwise")
    parser.add_argument("--image_size", type=int, help="side in px; the configuration's otherwise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="folder of runs and detections; a new one")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        task = read_task(arguments, arguments.out or Path(folder))
        rows = []
        for seed in arguments.seeds:
            for subject in ("ours", *arguments.peers):
                rows.append(run_apart(subject, task, seed))
                console.print(table(rows, task))
    if arguments.json:
        content = {"task": asdict(task), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

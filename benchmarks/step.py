"""A training step of ours against torchvision's, paired in one run: forward, loss, backward, optimizer.

python benchmarks/step.py [--root DATA] [--batch 8] [--rounds 15] [--config FILE ...] [--json FILE]

Both train SSDLite320 with MobileNetV3-Large in eager mode, on the same images and boxes at 320 x 320, in
one process and one thread, and take turns. Ours is what `detect fit` runs: normalisation, network, matching,
loss, backward, the scaling and checking of gradients, fused SGD. Torchvision's is the step of its
references/detection/engine.py: the model with its resize and normalisation in training mode, backward, SGD
as references/detection/train.py makes it; once more with fused SGD, so that the optimizer's part can be seen.
`ratio` is the median over rounds of their processor time by ours.

Then matching and loss alone, forward and backward, as a share of our step, at several numbers of boxes an
image; and graph breaks of forward and loss as torch._dynamo.explain counts them. `--config` has the same
of the networks and losses of other configurations, each as a share of its own step. Without `--root` and
without coco128 beside the repository the images are the built-in shapes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from detect.config.model_section import read_config
from detect.data.datamodule import DetectionData
from detect.data.dataset import padded_box_count
from detect.data.synthetic.shapes import make_shapes
from detect.inspection.anchor_layout import without_auto
from detect.model.checkpoint import without_weights
from detect.training.build import build_module
from detect.training.finite_guard import FiniteGuard
from detect.training.module import DetectionModule
from detect.training.run_module import LOSS_UNIT
from detect.types import Batch, Target

IMAGE_SIZE = (320, 320)
COCO128 = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco128"
BOX_COUNTS = (8, 32, 100)
SGD = {"lr": 0.001, "momentum": 0.9, "weight_decay": 4e-5}
WARM_UP = 2
MS = 1e3


def read_batch(root: Path, size: int) -> tuple[Batch, int]:
    """One training batch with the standard augmentation, and the number of classes."""
    data = DetectionData(root, total_batch_size=size, workers=0, image_size=IMAGE_SIZE, check_images=False)
    data.open(("train",))
    return next(iter(data.train_dataloader())), data.classes.num_classes


def build_from(config: Path, num_classes: int) -> DetectionModule:
    """The network and the loss of a configuration, with the usual scales and random weights."""
    settings = without_auto(without_weights(read_config(config)["model"]))
    return build_module({**settings, "num_classes": num_classes}).train()


def build_ours(num_classes: int) -> DetectionModule:
    """Torchvision's layers and anchors, so that the same network is compared."""
    settings = {
        "backbone": {
            "class_path": "detect.model.backbones.MobileNetV3",
            "init_args": {"size": "large", "reduced_tail": True},
        },
        "num_classes": num_classes,
        "image_size": list(IMAGE_SIZE),
        "anchors": {"style": "torchvision"},
    }
    return build_module(settings).train()


def our_step(module: DetectionModule, batch: Batch) -> Callable[[], None]:
    """What Lightning makes of DetectionModule's hooks on one device."""
    optimizer = torch.optim.SGD(module.parameters(), **SGD, fused=True)
    guard = FiniteGuard(torch.device("cpu"), can_skip=True)

    def step() -> None:
        optimizer.zero_grad()
        images = batch.images.contiguous(memory_format=torch.channels_last)
        sums = module.loss_terms(images, batch.target)
        loss = sums.total
        (loss / LOSS_UNIT).backward()
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        factor = LOSS_UNIT / sums.positives.clamp(min=1)
        guard.scale_gradients(optimizer, gradients, factor=factor, loss=loss.detach(), step=0)
        optimizer.step()

    return step


def their_inputs(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The same images as floats in 0..1, and the boxes without their padding."""
    images = [image.contiguous().float() / 255 for image in batch.images]
    kept = (batch.target.labels > 0) & ~batch.target.ignore
    targets = [
        {"boxes": boxes[rows], "labels": labels[rows]}
        for boxes, labels, rows in zip(batch.target.boxes, batch.target.labels, kept, strict=True)
    ]
    return images, targets


def build_theirs(num_classes: int) -> torch.nn.Module:
    model: torch.nn.Module = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=num_classes + 1
    )
    return model.train()


def their_step(model: torch.nn.Module, batch: Batch, *, fused: bool) -> Callable[[], None]:
    """The inner loop of references/detection/engine.py."""
    optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=fused)
    images, targets = their_inputs(batch)

    def step() -> None:
        losses = sum(model(images, targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()

    return step


def random_target(images: int, boxes: int, num_classes: int) -> Target:
    """Boxes of all sizes, padded as the loader pads."""
    generator = torch.Generator().manual_seed(0)
    padded = padded_box_count(boxes)
    size = 10 + 150 * torch.rand(images, boxes, 2, generator=generator) ** 2
    corner = torch.rand(images, boxes, 2, generator=generator) * (IMAGE_SIZE[0] - size)
    rows = torch.zeros(images, padded, 4)
    rows[:, :boxes] = torch.cat([corner, corner + size], dim=-1)
    labels = torch.zeros(images, padded, dtype=torch.int64)
    labels[:, :boxes] = torch.randint(1, num_classes + 1, (images, boxes), generator=generator)
    return Target(rows, labels, torch.zeros(images, padded, dtype=torch.bool))


def loss_alone(module: DetectionModule, batch: Batch, target: Target) -> Callable[[], None]:
    """Matching and loss, forward and backward, of head outputs as the network gives them."""
    with torch.no_grad():
        outputs = module.net(batch.images.contiguous(memory_format=torch.channels_last))
    leaves = outputs.map(lambda output: output.clone().requires_grad_())
    tensors = [leaf for leaf in leaves if leaf is not None]

    def step() -> None:
        torch.autograd.grad(module.loss_of(leaves, target, batch.images.shape[-2:]).total, tensors)

    return step


def time_in_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each step in each round."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append((time.process_time() - start) * MS)
    return times


def loss_steps(module: DetectionModule, batch: Batch, num_classes: int) -> dict[str, Callable[[], None]]:
    """Whole steps, and matching and loss alone, at several numbers of boxes per image."""
    steps: dict[str, Callable[[], None]] = {}
    for boxes in BOX_COUNTS:
        filled = batch._replace(target=random_target(len(batch.images), boxes, num_classes))
        steps[f"ours_{boxes}_boxes"] = our_step(module, filled)
        steps[f"match_and_loss_{boxes}_boxes"] = loss_alone(module, filled, filled.target)
    return steps


def median_ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Of paired rounds."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def loss_shares(times: dict[str, list[float]]) -> dict[str, float]:
    """Matching and loss over the whole step, by the number of boxes per image; from times of `loss_steps`."""
    return {
        str(boxes): median_ratio(times, f"match_and_loss_{boxes}_boxes", f"ours_{boxes}_boxes")
        for boxes in BOX_COUNTS
    }


def measure_config(config: Path, batch: Batch, num_classes: int, rounds: int) -> dict[str, Any]:
    """Shares and graph breaks of a configuration's network and loss."""
    module = build_from(config, num_classes)
    times = time_in_turns(loss_steps(module, batch, num_classes), rounds)
    return {
        "match_and_loss_share": loss_shares(times),
        "graph_breaks": breaks_of(module, batch),
        "cpu_ms": times,
    }


def measure(batch: Batch, num_classes: int, rounds: int) -> dict[str, Any]:
    """All figures but the graph breaks."""
    ours, theirs = build_ours(num_classes), build_theirs(num_classes)
    steps = {
        "ours": our_step(ours, batch),
        "torchvision": their_step(theirs, batch, fused=False),
        "torchvision_fused": their_step(theirs, batch, fused=True),
        **loss_steps(ours, batch, num_classes),
    }
    times = time_in_turns(steps, rounds)
    return {
        "ratio": median_ratio(times, "torchvision", "ours"),
        "ratio_fused": median_ratio(times, "torchvision_fused", "ours"),
        "match_and_loss_share": loss_shares(times),
        "parameters": {
            "ours": sum(p.numel() for p in ours.parameters()),
            "torchvision": sum(p.numel() for p in theirs.parameters()),
        },
        "cpu_ms": times,
    }


def graph_breaks(batch: Batch, num_classes: int) -> dict[str, int]:
    """Of forward and loss, in training mode."""
    theirs = build_theirs(num_classes)
    found = {
        "ours": breaks_of(build_ours(num_classes), batch),
        "torchvision": torch._dynamo.explain(theirs)(*their_inputs(batch)).graph_break_count,
    }
    torch._dynamo.reset()
    return found


def breaks_of(module: DetectionModule, batch: Batch) -> int:
    """Graph breaks of our forward and loss."""
    breaks: int = torch._dynamo.explain(module.loss_terms)(batch.images, batch.target).graph_break_count
    torch._dynamo.reset()
    return breaks


def print_table(result: dict[str, Any]) -> None:
    print(f"{'':28} {'ms a step':>10} {'by ours':>8}   (processor time, median of paired rounds)")
    for name, ratio in (("ours", 1.0), ("torchvision", "ratio"), ("torchvision_fused", "ratio_fused")):
        value = ratio if isinstance(ratio, float) else result[ratio]
        print(f"{name:28} {statistics.median(result['cpu_ms'][name]):10.1f} {value:8.2f}")
    for boxes, share in result["match_and_loss_share"].items():
        time_ms = statistics.median(result["cpu_ms"][f"match_and_loss_{boxes}_boxes"])
        print(f"{f'match + loss, {boxes} boxes':28} {time_ms:10.1f} {share:8.1%} of the step")
    for config, figures in result["configs"].items():
        shares = ", ".join(
            f"{share:.1%} at {boxes}" for boxes, share in figures["match_and_loss_share"].items()
        )
        print(f"{config}: match + loss {shares} boxes; graph breaks {figures['graph_breaks']}")
    breaks = result["graph_breaks"]
    print(f"graph breaks of forward and loss: ours {breaks['ours']}, torchvision {breaks['torchvision']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="a data set; its training split is read")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="share of their losses too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.batch < 2:
        parser.error(f"--batch {arguments.batch}: BatchNorm on the last map, 1 x 1, needs at least 2 images")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or (COCO128 if COCO128.is_dir() else Path(folder) / "shapes")
        if not root.exists():
            make_shapes(root, train=4 * arguments.batch, val=2)
        batch, num_classes = read_batch(root, arguments.batch)
    result = measure(batch, num_classes, arguments.rounds)
    result |= {
        "configs": {
            str(config): measure_config(config, batch, num_classes, arguments.rounds)
            for config in arguments.config
        },
        "graph_breaks": graph_breaks(batch, num_classes),
        "root": root.name,
        "batch_size": arguments.batch,
        "image_size": list(IMAGE_SIZE),
        "num_classes": num_classes,
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

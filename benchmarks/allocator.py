"""What keeping freed memory saves: CPU seconds of a training step and of an evaluated batch.

    python benchmarks/allocator.py --json allocator.json

Each way runs in processes of its own, in turns; CPU seconds (user and system) of one thread, batches of 8 at
320 x 320.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from detect.system.memory import keep_freed_memory
from detect.training.build import build_module
from detect.types import Target

BATCH, SIZE, BOXES = 8, 320, 16
MODEL = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "large", "reduced_tail": True},
    },
    "num_classes": 3,
    "image_size": [SIZE, SIZE],
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(steps: int) -> dict[str, float]:
    """CPU seconds of one training step and of one evaluated batch, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build_module(MODEL)
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    corners = torch.rand(BATCH, BOXES, 2) * SIZE / 2
    boxes = torch.cat([corners, corners + 20 + torch.rand(BATCH, BOXES, 2) * SIZE / 4], dim=-1)
    target = Target(boxes, torch.randint(1, 4, (BATCH, BOXES)), torch.zeros(BATCH, BOXES, dtype=torch.bool))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, fused=True)

    def train() -> None:
        sums = module.loss_terms(module.detector.layout(images), target)
        (sums.total / sums.positives).backward()
        optimizer.step()
        optimizer.zero_grad()

    def evaluate() -> None:
        with torch.inference_mode():
            module(images)

    found = {}
    for name, work in (("train", train), ("evaluate", evaluate)):
        module.train(name == "train")
        work()
        start = cpu_seconds()
        for _ in range(steps):
            work()
        found[name] = (cpu_seconds() - start) / steps
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way")
    parser.add_argument("--steps", type=int, default=6, help="steps that count in each process")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--way", choices=["default", "keep"], default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is not None:
        if arguments.way == "keep":
            keep_freed_memory()
        print(json.dumps(measure(arguments.steps)))
        return
    raw: dict[str, list[dict[str, float]]] = {"default": [], "keep": []}
    for _ in range(arguments.rounds):
        for way, results in raw.items():
            command = [sys.executable, __file__, "--way", way, "--steps", str(arguments.steps)]
            results.append(
                json.loads(subprocess.check_output(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
            )
    ratios = {}
    print(f"{'CPU seconds':<12}{'glibc':>9}{'kept':>9}{'ratio':>8}")
    for name in ("train", "evaluate", "peak_rss_mb"):
        default, keep = (statistics.median(result[name] for result in raw[way]) for way in raw)
        ratios[name] = default / keep
        print(f"{name:<12}{default:>9.3f}{keep:>9.3f}{default / keep:>8.2f}")
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({"ratio": ratios["train"], "ratios": ratios, "raw": raw}, indent=1)
        )


if __name__ == "__main__":
    main()

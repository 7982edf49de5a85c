"""What `data.repeat_threshold` shows of each class: images and boxes per epoch, with and without it.

python benchmarks/repeats.py --root BCCD --split trainval --thresholds 0.7 1.0
No pixel is read and nothing is trained; means over epochs of the sampler that training uses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.repeats import repeat_factors
from detect.data.sampler import BatchPlan, TrainSampler
from detect.data.splits import open_split


def showings(annotations: Annotations, threshold: float | None, *, epochs: int) -> NDArray[np.float64]:
    """(N,) how often each image is shown in an epoch, on average."""
    repeats = None if threshold is None else repeat_factors(annotations, threshold)
    plan = BatchPlan.derive(8, world_size=1)
    sampler = TrainSampler(np.diff(annotations.offsets), plan, repeats=repeats)
    shown = np.zeros(len(annotations))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        rows = [key.row for batch in sampler for key in batch]
        shown += np.bincount(rows, minlength=len(annotations))
    return shown / epochs


def per_class(annotations: Annotations, shown: NDArray[np.float64]) -> list[tuple[str, float, float]]:
    """Of each class its name, and the images and boxes of it that an epoch shows."""
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    rows = []
    for label, name in enumerate(annotations.classes.names, 1):
        own = images[(annotations.labels == label) & ~annotations.ignore]
        rows.append((name, float(shown[np.unique(own)].sum()), float(shown[own].sum())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default=None)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[1.0])
    parser.add_argument("--epochs", type=int, default=200)
    arguments = parser.parse_args()
    annotations = open_split(arguments.root, arguments.split, role="train").annotations
    print("| threshold | class | images per epoch | boxes per epoch |\n|---|---|---:|---:|")
    for threshold in (None, *arguments.thresholds):
        shown = showings(annotations, threshold, epochs=arguments.epochs)
        for name, images, boxes in per_class(annotations, shown):
            print(f"| {threshold or 'none'} | {name} | {images:.1f} | {boxes:.0f} |")


if __name__ == "__main__":
    main()

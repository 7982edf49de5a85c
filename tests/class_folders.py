"""Small folders of classes: images of one colour each, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def make_class_folder(
    root: Path, *, train: int = 8, val: int = 4, size: tuple[int, int] = (80, 60), seed: int = 0
) -> Path:
    """ROOT/train/NAME/* and ROOT/val/NAME/*, so many images per class, of a width and a height."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 40, (size[1], size[0], 3)) + colour
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:03d}.jpg")
    return root

"""What each part of the rich style is worth: its images without some of its parts, to train a starter on.

python benchmarks/generator_parts.py --without optics --out data/rich-without-optics
Train on the folder as scripts/starter does, then start a training on photographs from the result:
docs/results.md has the commands and the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from detect.data.synthetic import rich
from detect.data.synthetic.shapes import make_shapes
from detect.data.synthetic.surfaces import Pixels
from detect.data.synthetic.textures import Colour, Rng

DIAMETER = 0.2
"""Of every thing, in shorter sides, where the part `scales` is left out."""


def _no_clutter(rng: Rng, scene: rich.RichScene, largest: float = 0.5) -> None:
    pass


def _no_camera(rng: Rng, scene: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(scene.clip(0, 1) * 255).astype(np.uint8))


def _no_pattern(rng: Rng, size: tuple[int, int], colour: Colour, contrast: float) -> Pixels:
    return np.broadcast_to(colour.astype(np.float32), (*size, 3))


def _no_shading(rng: Rng, *, vivid: bool, drawn: Callable[..., Any] = rich._look) -> rich._Look:
    look: rich._Look = drawn(rng, vivid=vivid)
    return look._replace(relief=0.0, turn=0.0, rim=0.0, shadow=0.0)


ONE_SCALE = tuple(plan._replace(diameter=(DIAMETER, DIAMETER)) for plan in rich.PLANS)
PARTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "clutter": lambda: patch.object(rich, "_clutter", _no_clutter),
    "optics": lambda: patch.multiple(rich, photograph=_no_camera, JPEG_QUALITIES=(95, 96)),
    "patterns": lambda: patch.object(rich, "surface", _no_pattern),
    "shading": lambda: patch.object(rich, "_look", _no_shading),
    "scales": lambda: patch.object(rich, "PLANS", ONE_SCALE),
}
"""What can be left out: blobs, bars, lines and specks; light, lens and sensor; patterns of ground and things;
shadow, relief and rim; sizes from 0.04 to 1 of the shorter side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", choices=PARTS, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--val", type=int, default=200)
    arguments = parser.parse_args()
    with ExitStack() as without:
        for part in arguments.without:
            without.enter_context(PARTS[part]())
        make_shapes(arguments.out, train=arguments.train, val=arguments.val, unseen=0, style="rich")


if __name__ == "__main__":
    main()

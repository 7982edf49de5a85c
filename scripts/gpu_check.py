"""What `bash scripts/gpu-check` runs once everything is installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import yaml

from detect.errors import InputError
from detect.report.gpu_page import gpu_check

DEFAULTS = {"cuda": (320, 64, 50), "cpu": (96, 8, 4)}
"""Side of the input in px, images per step, timed steps: ten minutes on a GPU."""


def main() -> int:
    """Read the words, and make the page."""
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("--device", choices=DEFAULTS, default="cuda", help="cpu: the same checks, smaller")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="a new folder")
    parser.add_argument("--config", type=Path, default=Path("configs/plus/v3_large.yaml"))
    parser.add_argument("--image_size", type=int, help="side of the input in px")
    parser.add_argument("--batch_size", type=int, help="images per step")
    parser.add_argument("--steps", type=int, help="timed steps")
    given = parser.parse_args()
    side, batch_size, steps = DEFAULTS[given.device]
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: --device cpu makes the same checks on the CPU")
    if given.out.exists():
        parser.error(f"{given.out} exists: give another folder with --out")
    model = yaml.safe_load(given.config.read_text())["model"]
    model["image_size"] = [given.image_size or side] * 2
    model["num_classes"] = None
    model["backbone"].get("init_args", {}).pop("weights", None)  # nothing is downloaded
    try:
        return gpu_check(
            given.out,
            model,
            device=given.device,
            batch_size=given.batch_size or batch_size,
            steps=given.steps or steps,
        )
    except InputError as error:
        print(f"scripts/gpu-check: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

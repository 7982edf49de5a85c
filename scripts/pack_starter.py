"""A run's checkpoint as a starter: `python scripts/pack_starter.py RUN/checkpoints/best.ckpt OUT.ckpt`."""

from __future__ import annotations

import sys
from pathlib import Path

from detect.model.checkpoint import (
    build_from_checkpoint,
    checkpoint_content,
    read_checkpoint,
    write_checkpoint,
)

LICENCE = "Apache-2.0 (detect), trained on generated images alone"


def pack(source: Path, target: Path) -> None:
    """The detector alone, in fp16, with its licence."""
    detector = build_from_checkpoint(read_checkpoint(source)).half()
    detector.net.backbone.weights_origin = {"weights": target.name, "licence": LICENCE}
    write_checkpoint(target, checkpoint_content(detector))


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))

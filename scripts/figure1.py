"""Write the configurations of a width and resolution sweep: `python scripts/figure1.py CONFIG FOLDER`.

Each is CONFIG, one of `detect pretrain`, at another width multiplier or another input: the points of
Figures 1 and 7 of the MobileNetV3 paper. `detect sweep FOLDER/*.yaml` trains and compares them.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import yaml

from detect.config.model_section import is_classifier, read_config
from detect.errors import InputError

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25)
SIDES = (96, 128, 160, 192, 224, 256)
"""Height and width of the input in px; at width 1.0, and the widths at the configuration's own input."""


def write_points(config: Path, folder: Path, widths: Sequence[float], sides: Sequence[int]) -> list[Path]:
    """Write a file per point; the point that is both at width 1.0 and at the configuration's input once.

    Raises:
        InputError: `config` is none of `detect pretrain`.
    """
    content = read_config(config)
    if not is_classifier(content):
        raise InputError(f"{config} is no configuration of `detect pretrain`")
    own = content["model"].get("image_size", [224, 224])
    points = {(width, tuple(own)): None for width in widths} | {(1.0, (side, side)): None for side in sides}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for width, size in points:
        point = deepcopy(content)
        backbone = point["model"]["backbone"]
        backbone.setdefault("init_args", {})["width"] = width
        if backbone["class_path"].endswith("MobileNetV3"):
            backbone["init_args"].setdefault("expansions", "input")  # as the paper's
        point["model"]["image_size"] = list(size)
        path = folder / f"{config.stem}-width{width:g}-input{size[0]}.yaml"
        path.write_text(yaml.safe_dump(point, sort_keys=False))
        written.append(path)
    return written


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--widths", type=float, nargs="+", default=WIDTHS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    given = parser.parse_args()
    for written_file in write_points(given.config, given.folder, given.widths, given.sides):
        print(written_file)

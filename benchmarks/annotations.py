"""Time and memory of opening and checking a data set of COCO's size, against pycocotools reading its JSON.

python benchmarks/annotations.py [--images 118287] [--boxes 860001] [--folder F] [--json FILE]

The data set is generated: as many images and boxes as COCO's train2017 with polygons of COCO's length, and
small images, no two alike, so that what is measured is the annotations and not the decoder. Each step runs
in a process of its own: "pycocotools" reads the JSON, "open" reads and checks it, "open again" comes from the
cache, "check" decodes and compares every image, "check again" recalls them. With `--folder` the data set is
kept and used again; steps can be named alone (`--steps check`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STEPS = ("pycocotools", "open", "open again", "check", "check again")
SIZE = (48, 36)
"""Width and height of the images."""
CLASSES = 80
POLYGON_POINTS = 24
"""Of an object in train2017, rounded."""


def generate(root: Path, images: int, boxes: int) -> None:
    """A COCO folder with one split, train2017."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for row in range(images):
        (root / "train2017" / name_of(row)).write_bytes(picture(rng))
    image_rows = np.sort(rng.integers(0, images, boxes))
    with (root / "annotations" / "instances_train2017.json").open("w") as file:
        file.write('{"images": [')
        file.writelines(
            ("," if row else "")
            + json.dumps({"id": row + 1, "file_name": name_of(row), "width": SIZE[0], "height": SIZE[1]})
            for row in range(images)
        )
        file.write('], "annotations": [')
        for i, row in enumerate(image_rows.tolist()):
            file.write(("," if i else "") + json.dumps(annotation(rng, i + 1, row + 1)))
        categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def name_of(row: int) -> str:
    return f"{row:012d}.jpg"


def picture(rng: np.random.Generator) -> bytes:
    """A JPEG of random patches."""
    patches: NDArray[np.uint8] = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(SIZE, Image.Resampling.NEAREST).save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()


def annotation(rng: np.random.Generator, annotation_id: int, image_id: int) -> dict[str, Any]:
    """A box with a polygon in it."""
    numbers = rng.random(4 + 2 * POLYGON_POINTS)
    width, height = (4 + numbers[:2] * (np.array(SIZE) - 8)).round(2).tolist()
    x, y = (numbers[2:4] * (np.array(SIZE) - (width, height))).round(2).tolist()
    points = numbers[4:].reshape(-1, 2) * (width, height) + (x, y)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": int(numbers[0] * CLASSES) + 1,
        "bbox": [x, y, width, height],
        "area": round(width * height * 0.7, 2),
        "iscrowd": 0,
        "segmentation": [points.round(2).ravel().tolist()],
    }


def run_step(step: str, root: Path) -> dict[str, Any]:
    """Do one step in this process; figures without the time of importing."""
    action = {"pycocotools": read_with_pycocotools, "open": open_annotations, "check": check_all}[
        step.removesuffix(" again")
    ](root)
    imported_mb = peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    said = action()
    return {
        "step": step,
        "wall_s": round(time.perf_counter() - start, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "added_mb": round(peak_mb() - imported_mb),
        "result": said,
    }


def read_with_pycocotools(root: Path) -> Any:
    from pycocotools.coco import COCO

    return lambda: f"{len(COCO(root / 'annotations' / 'instances_train2017.json').anns)} boxes"


def open_annotations(root: Path) -> Any:
    from detect.data.splits import open_split

    def action() -> str:
        found = open_split(root, role="train").annotations
        return f"{len(found)} images, {len(found.boxes)} boxes"

    return action


def check_all(root: Path) -> Any:
    from detect.inspection.data_check import check

    return lambda: f"{check(root).to_json()['codes']}"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, images: int, boxes: int, steps: list[str]) -> list[dict[str, Any]]:
    """Each step in a process of its own, with a cache of its own below `folder`."""
    root = folder / "data"
    if not root.exists():
        generate(root, images, boxes)
    rows = []
    for step in steps:
        output = subprocess.run(
            [sys.executable, __file__, "--in_process", step, "--folder", str(folder)],
            env={**os.environ, "DETECT_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--boxes", type=int, default=860_001)
    parser.add_argument("--folder", type=Path, default=None, help="keep the data set here")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--in_process", choices=STEPS, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process is not None:
        print(json.dumps(run_step(options.in_process, options.folder / "data")))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        rows = measure(folder, options.images, options.boxes, options.steps)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

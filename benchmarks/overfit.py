"""Can the detector learn a handful of photographs by heart? If not, some part of the path is broken.

usage: python benchmarks/overfit.py --root path/to/coco128 [--images 16] [--epochs 100] [--json FILE]

Takes the first images of a COCO folder's training split that have boxes, trains MobileNetV3-Small without
augmentation and validates on the same images. AP50 must come near 1.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from detect.commands.main import main
from detect.data.splits import open_split

CONFIG = Path(__file__).parent / "overfit.yaml"


def take_images(root: Path, output: Path, *, images: int) -> None:
    """Write a COCO folder whose train and val splits are the same first `images` images with boxes."""
    split = open_split(root, role="train").annotations
    rows = [i for i in range(len(split)) if split.offsets[i + 1] > split.offsets[i]][:images]
    coco: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    labels = sorted({int(label) for i in rows for label in split.labels[split.rows(i)]})
    coco["categories"] = [{"id": label, "name": split.classes.name(label)} for label in labels]
    for i in rows:
        height, width = (int(side) for side in split.sizes[i])
        name = split.path(i).name
        coco["images"].append({"id": i + 1, "file_name": name, "height": height, "width": width})
        for row in range(split.offsets[i], split.offsets[i + 1]):
            x0, y0, x1, y1 = (float(value) for value in split.boxes[row])
            coco["annotations"].append(
                {
                    "id": row + 1,
                    "image_id": i + 1,
                    "category_id": int(split.labels[row]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(split.areas[row]),
                    "iscrowd": int(split.ignore[row]),
                }
            )
    (output / "annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (output / name).mkdir()
        (output / "annotations" / f"instances_{name}.json").write_text(json.dumps(coco))
        for i in rows:
            os.symlink(split.path(i).resolve(), output / name / split.path(i).name)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "run"
        take_images(args.root, data, images=args.images)
        started = time.perf_counter()
        settings = [
            f"--data.total_batch_size={args.images}",
            f"--trainer.max_epochs={args.epochs}",
            f"--trainer.check_val_every_n_epoch={args.epochs}",
        ]
        code = main(["fit", "--config", str(CONFIG), "--data.root", str(data), "--out", str(out), *settings])
        if code:
            raise SystemExit(code)
        metrics = json.loads((out / "metrics.json").read_text())
        metrics["seconds"] = round(time.perf_counter() - started, 1)
    print(
        f"AP50 {metrics['AP50']:.3f}, mAP {metrics['mAP']:.3f} on the {args.images} images it was trained on"
    )
    if args.json is not None:
        args.json.write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    run()

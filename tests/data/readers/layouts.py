"""Builders of small data sets in the layouts that labelling tools write: two images, three boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data_sets import coco_file, save_picture, voc_xml

XYWH = ([8, 12, 32, 24], [0, 0, 16, 12], [4, 6, 20, 30])
"""Boxes of images of 64 x 48: two of a, one of b."""
XYXY = tuple([x, y, x + w, y + h] for x, y, w, h in XYWH)
LABELS = {
    "a": "0 0.375 0.5 0.5 0.5\n1 0.125 0.125 0.25 0.25\n",
    "b": "0 0.21875 0.4375 0.3125 0.625\n",
}
NAMES = "names: [cat, dog]\n"


def pictures(root: Path, folder: str = "", suffix: str = ".jpg") -> None:
    for seed, stem in enumerate("ab"):
        save_picture(root / folder / f"{stem}{suffix}", seed=seed)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def coco(root: Path, file: str, images: str, name: str = "{}.jpg", *, first: int = 1, **extra: Any) -> None:
    """COCO with `name` as the pattern of `file_name`; category ids count from `first`."""
    pictures(root, images)
    content = coco_file(
        [(name.format(stem), 64, 48) for stem in "ab"],
        [(1, first, XYWH[0]), (1, first + 1, XYWH[1]), (2, first, XYWH[2])],
        {first: "cat", first + 1: "dog"},
    )
    write(root / file, json.dumps(content | extra))


def label_studio_coco(root: Path) -> None:
    coco(root, "result.json", "images", "images/{}.jpg", first=0)
    content = json.loads((root / "result.json").read_text())
    for entry in (*content["images"], *content["annotations"]):
        entry["id"] -= 1
        if "image_id" in entry:
            entry["image_id"] -= 1
    (root / "result.json").write_text(json.dumps(content))


def roboflow_coco(root: Path) -> None:
    above = {"id": 0, "name": "animals", "supercategory": "none"}
    below = [{"id": i, "name": n, "supercategory": "animals"} for i, n in ((1, "cat"), (2, "dog"))]
    coco(root, "train/_annotations.coco.json", "train", categories=[above, *below])


def voc(root: Path, xml: str, images: str, *, xml_name: str = "{}.xml", filename: str = "{}.jpg") -> None:
    pictures(root, images)
    objects = {"a": [("cat", XYXY[0]), ("dog", XYXY[1])], "b": [("cat", XYXY[2])]}
    for stem, found in objects.items():
        text = voc_xml(found).replace("<size>", f"<filename>{filename.format(stem)}</filename><size>")
        write(root / xml / xml_name.format(stem), text)


def cvat_voc(root: Path) -> None:
    voc(root, "Annotations", "JPEGImages")
    write(root / "ImageSets" / "Main" / "default.txt", "a\nb\n")
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\n")


def yolo(
    root: Path, images: str, labels: str, files: dict[str, str], lines: dict[str, str] | None = None
) -> None:
    """YOLO with `files` (name to text) beside."""
    pictures(root, images)
    for stem, text in (LABELS if lines is None else lines).items():
        write(root / labels / f"{stem}.txt", text)
    for name, text in files.items():
        write(root / name, text)


def longer(tail: str) -> dict[str, str]:
    """The labels with `tail` after each line."""
    return {stem: "".join(f"{line} {tail}\n" for line in text.splitlines()) for stem, text in LABELS.items()}


def corners() -> dict[str, str]:
    """The labels as rotated boxes: four corners."""
    rows = {"a": [(0, XYXY[0]), (1, XYXY[1])], "b": [(0, XYXY[2])]}
    texts = {}
    for stem, found in rows.items():
        texts[stem] = "".join(
            f"{label} {x0 / 64} {y0 / 48} {x1 / 64} {y0 / 48} {x1 / 64} {y1 / 48} {x0 / 64} {y1 / 48}\n"
            for label, (x0, y0, x1, y1) in found
        )
    return texts

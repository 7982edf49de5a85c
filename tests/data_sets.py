"""Small data sets in each format, written by hand as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detect.data.annotations import Annotations
from detect.data.splits import open_split

Objects = Sequence[tuple[str, Sequence[float]]]
"""(class name, four numbers as the format writes them)."""


def save_picture(path: Path, size: tuple[int, int] = (64, 48), *, seed: int = 0, **options: Any) -> Path:
    """A picture of `size` (width, height) with random blocks, no two seeds alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def save_scene(
    path: Path, size: tuple[int, int], objects: Sequence[Sequence[float]], *, seed: int = 0
) -> Path:
    """A fixed camera's image of `size` (width, height): the place of `seed`, objects (xyxy px) as shadows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(40, 250, (9, 12, 3), dtype=np.uint8))
    image = image.resize(size, Image.Resampling.BICUBIC)
    for x0, y0, x1, y1 in objects:
        place = (int(x0), int(y0), int(x1), int(y1))
        image.paste(image.crop(place).point([value // 3 for value in range(256)] * 3), place)
    image.save(path, quality=95)
    return path


def claim_size(path: Path, width: int, height: int) -> Path:
    """Let a JPEG say that it has other sides than it has."""
    data = bytearray(path.read_bytes())
    write_size(data, width, height)
    path.write_bytes(data)
    return path


def write_size(jpeg: bytearray, width: int, height: int) -> None:
    """Change what the header of a JPEG says."""
    frame = jpeg.index(b"\xff\xc0")  # start of frame (ITU-T T.81, B.2.2): length, precision, height, width
    jpeg[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")


def save_turned(path: Path, size: tuple[int, int], orientation: int) -> Path:
    """A JPEG stored in `size` (width, height) that is to be shown turned by its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save_picture(path, size, exif=exif)


def coco_file(
    images: Sequence[tuple[str, int, int]],
    objects: Sequence[tuple[int, int, Any]],
    classes: Mapping[int, str],
) -> dict[str, Any]:
    """A COCO file of (file name, width, height) with ids from 1, and (image id, category id, bbox)."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": width, "height": height}
            for i, (name, width, height) in enumerate(images, 1)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": bbox, "area": 1.0, "iscrowd": 0}
            for i, (image, category, bbox) in enumerate(objects, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in classes.items()],
    }


def make_coco_split(root: Path, content: dict[str, Any], split: str = "train") -> Path:
    """Write `content`, and a picture for each image that it names and that can be written."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    for seed, image in enumerate(content["images"]):
        save_picture(root / split / image["file_name"], (image["width"], image["height"]), seed=seed)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def voc_xml(objects: Objects, size: tuple[int, int] = (64, 48), *, difficult: Sequence[int] = ()) -> str:
    """An XML file; objects whose place is in `difficult` are marked so."""
    entries = "".join(
        f"<object><name>{name}</name><difficult>{int(place in difficult)}</difficult><bndbox>"
        f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>"
        "</bndbox></object>"
        for place, (name, box) in enumerate(objects)
    )
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{entries}</annotation>"
    )


def make_voc(root: Path, splits: Mapping[str, Mapping[str, Objects]]) -> Path:
    """A VOC folder of 64 x 48 pictures: split to stem to objects with xyxy boxes."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    seed = 0
    for split, images in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images) + "\n")
        for stem, objects in images.items():
            save_picture(root / "JPEGImages" / f"{stem}.jpg", seed=seed)
            (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(objects))
            seed += 1
    return root


def make_yolo(root: Path, splits: Mapping[str, Mapping[str, str | None]], names: str = "[cat, dog]") -> Path:
    """A YOLO folder of 64 x 48 pictures: split to stem to the text of its label file, None for no file."""
    root.mkdir(parents=True, exist_ok=True)
    entries = "".join(f"{split}: images/{split}\n" for split in splits)
    (root / "data.yaml").write_text(f"names: {names}\n{entries}")
    seed = 0
    for split, images in splits.items():
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        for stem, text in images.items():
            save_picture(root / "images" / split / f"{stem}.jpg", seed=seed)
            seed += 1
            if text is not None:
                (root / "labels" / split / f"{stem}.txt").write_text(text)
    return root


def open_boxes(root: Path, boxes: list[list[float]], size: tuple[int, int] = (640, 480)) -> Annotations:
    """One picture of `size` (width, height) with `boxes` (xywh), of two classes in turn."""
    objects = [(1, 3 if i % 2 else 5, box) for i, box in enumerate(boxes)]
    make_coco_split(root, coco_file([("a.jpg", *size)], objects, {3: "odd", 5: "even"}))
    return open_split(root, role="train", box_convention="xywh").annotations

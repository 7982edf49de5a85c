"""Detections as annotations in COCO's, Pascal VOC's or YOLO's format, for a person to correct."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, NamedTuple
from xml.etree import ElementTree

from detect.deploy.inference import Prediction
from detect.system.files import write_atomically
from detect.types import ClassMap

LabelFormat = Literal["coco", "voc", "yolo"]
DECIMALS = 2
"""Of a pixel; finer than any labelling tool."""


class LabelledPicture(NamedTuple):
    """What a label file says about one picture."""

    name: str
    """Path of the picture below the folder that all pictures share."""
    stem: str
    """A name of its own among all pictures, for files that hold one picture."""
    size: tuple[int, int]
    """(H, W) of the upright picture in px."""
    prediction: Prediction


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file to write bit by bit that appears whole at the end, and not at all on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class JsonRows:
    """Rows of a JSON list, written as they come: nothing is kept in memory."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.count = 0
        file.write("[")

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows to the list."""
        for row in rows:
            self.file.write(("," if self.count else "") + "\n " + json.dumps(row))
            self.count += 1

    def end(self) -> None:
        """Close the list."""
        self.file.write("\n]" if self.count else "]")


def xywh(box: Iterable[float]) -> list[float]:
    """Left, top, width, height of an xyxy box in px, rounded."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return [round(value, DECIMALS) for value in (x0, y0, x1 - x0, y1 - y0)]


class LabelWriter(ABC):
    """Writes the label files of one format below a folder.

    Args:
        folder: where to; it exists.
        classes: of the detector.
    """

    places: ClassVar[tuple[str, ...]]
    """What it writes, from the folder on."""

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        self.folder = folder
        self.classes = classes

    @abstractmethod
    def write(self, picture: LabelledPicture) -> None:
        """Add one picture."""

    def __enter__(self) -> LabelWriter:
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027  # most formats have nothing to close
        pass


class CocoLabels(LabelWriter):
    """annotations.json: images, categories, and annotations that carry their score."""

    places = ("annotations.json",)

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        super().__init__(folder, classes)
        self._stack = contextlib.ExitStack()
        self._images: list[dict[str, Any]] = []

    def __enter__(self) -> CocoLabels:
        self._file = self._stack.enter_context(whole_file(self.folder / "annotations.json"))
        self._file.write('{"annotations": ')
        self._rows = JsonRows(self._file)
        return self

    def write(self, picture: LabelledPicture) -> None:
        image_id = len(self._images) + 1
        height, width = picture.size
        self._images.append({"id": image_id, "file_name": picture.name, "width": width, "height": height})
        boxes, scores, labels, _ = picture.prediction
        for box, score, label in zip(boxes, scores, labels, strict=True):
            bbox = xywh(box)
            annotation = {
                "id": self._rows.count + 1,
                "image_id": image_id,
                "category_id": self.classes.category_id(int(label)),
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], DECIMALS),
                "iscrowd": 0,
                "score": round(float(score), 5),
            }
            self._rows.write([annotation])

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is None:
            self._rows.end()
            categories = [{"id": row["category_id"], "name": row["name"]} for row in self.classes.to_list()]
            rest = json.dumps({"images": self._images, "categories": categories})
            self._file.write(", " + rest.removeprefix("{") + "\n")
        self._stack.__exit__(*exception)


class VocLabels(LabelWriter):
    """Annotations/NAME.xml for each picture, pixels counted from 0."""

    places = ("Annotations",)

    def write(self, picture: LabelledPicture) -> None:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = picture.name
        height, width = picture.size
        _add_numbers(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
        for box, name in zip(picture.prediction.boxes, picture.prediction.names, strict=True):
            thing = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(thing, "name").text = name
            _add_numbers(thing, {"difficult": 0, "truncated": 0})
            sides = zip(("xmin", "ymin", "xmax", "ymax"), map(float, box), strict=True)
            _add_numbers(ElementTree.SubElement(thing, "bndbox"), dict(sides))
        ElementTree.indent(root)
        folder = self.folder / "Annotations"
        folder.mkdir(exist_ok=True)
        write_atomically(
            folder / f"{picture.stem}.xml", ElementTree.tostring(root, encoding="unicode") + "\n"
        )


class YoloLabels(LabelWriter):
    """labels/NAME.txt for each picture, empty where nothing was found; data.yaml names the classes."""

    places = ("data.yaml", "labels")

    def __enter__(self) -> YoloLabels:
        names = "\n".join(f"  {i}: {json.dumps(name)}" for i, name in enumerate(self.classes.names))
        write_atomically(self.folder / "data.yaml", f"nc: {self.classes.num_classes}\nnames:\n{names}\n")
        (self.folder / "labels").mkdir(exist_ok=True)
        return self

    def write(self, picture: LabelledPicture) -> None:
        height, width = picture.size
        lines = []
        for box, label in zip(picture.prediction.boxes, picture.prediction.labels, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            centre_size = (
                (x0 + x1) / 2 / width,
                (y0 + y1) / 2 / height,
                (x1 - x0) / width,
                (y1 - y0) / height,
            )
            lines.append(" ".join([str(int(label) - 1), *(f"{value:.6f}" for value in centre_size)]) + "\n")
        write_atomically(self.folder / "labels" / f"{picture.stem}.txt", "".join(lines))


WRITERS: dict[LabelFormat, type[LabelWriter]] = {"coco": CocoLabels, "voc": VocLabels, "yolo": YoloLabels}


def _add_numbers(parent: ElementTree.Element, values: dict[str, float]) -> None:
    for name, value in values.items():
        text = str(value) if isinstance(value, int) else f"{value:.{DECIMALS}f}"
        ElementTree.SubElement(parent, name).text = text

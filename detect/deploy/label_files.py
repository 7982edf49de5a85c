"""Detections as annotations in COCO's, Pascal VOC's or YOLO's format, for a person to correct."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.writers import coco, voc, yolo
from detect.data.writers.coco import JsonRows, category_entries
from detect.deploy.prediction import BOX_DECIMALS, SCORE_DECIMALS, Prediction
from detect.system.files import whole_file, write_atomically
from detect.types import ClassMap

LabelFormat = Literal["coco", "voc", "yolo"]


class LabelledImage(NamedTuple):
    """What a label file says about one image."""

    name: str
    """Path of the image below the folder that all images share."""
    stem: str
    """A name of its own among all images, for files that hold one image."""
    size: tuple[int, int]
    """(H, W) of the upright image in px."""
    prediction: Prediction

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(D, 4) xyxy px, rounded."""
        return self.prediction.boxes.astype(np.float64).round(BOX_DECIMALS)


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
    def write(self, image: LabelledImage) -> None:
        """Add one image."""

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
        self._category_ids = coco.category_ids(classes)

    def __enter__(self) -> CocoLabels:
        self._file = self._stack.enter_context(whole_file(self.folder / "annotations.json"))
        self._file.write(b'{"annotations": ')
        self._rows = JsonRows(self._file)
        return self

    def write(self, image: LabelledImage) -> None:
        image_id = len(self._images) + 1
        self._images.append(coco.image_entry(image_id, image.name, image.size))
        for box, score, label in zip(
            image.boxes.tolist(), image.prediction.scores, image.prediction.labels, strict=True
        ):
            category_id = self._category_ids[int(label) - 1]
            entry = coco.annotation_entry(self._rows.count + 1, image_id, category_id, box)
            self._rows.write({**entry, "score": round(float(score), SCORE_DECIMALS)})

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is None:
            self._rows.end()
            for name, rows in (("images", self._images), ("categories", category_entries(self.classes))):
                self._file.write(f',\n"{name}": '.encode())
                JsonRows(self._file).write_all(rows)
            self._file.write(b"}\n")
        self._stack.__exit__(*exception)


class VocLabels(LabelWriter):
    """Annotations/NAME.xml for each image, pixels counted from 0."""

    places = ("Annotations",)

    def __enter__(self) -> VocLabels:
        (self.folder / "Annotations").mkdir(exist_ok=True)
        return self

    def write(self, image: LabelledImage) -> None:
        objects = map(voc.VocObject, image.prediction.names, image.boxes.tolist())
        text = voc.xml_text(image.name, image.size, objects)
        write_atomically(self.folder / "Annotations" / f"{image.stem}.xml", text)


class YoloLabels(LabelWriter):
    """labels/NAME.txt for each image, empty where nothing was found; data.yaml names the classes."""

    places = ("data.yaml", "labels")

    def __enter__(self) -> YoloLabels:
        text = f"nc: {self.classes.num_classes}\n{yolo.class_lines(self.classes)}"
        write_atomically(self.folder / "data.yaml", text)
        (self.folder / "labels").mkdir(exist_ok=True)
        return self

    def write(self, image: LabelledImage) -> None:
        lines = yolo.label_lines(image.prediction.labels, image.boxes, image.size)
        write_atomically(self.folder / "labels" / f"{image.stem}.txt", lines)


WRITERS: dict[LabelFormat, type[LabelWriter]] = {"coco": CocoLabels, "voc": VocLabels, "yolo": YoloLabels}

"""Images of a page: ground truth beside detections, the worst first, and what was wrong or missed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detect.data.annotations import Annotations, spread_rows
from detect.data.images.decode import load_image
from detect.errors import InputError
from detect.evaluation.backends import GroundTruthRows, corners
from detect.evaluation.draw import draw_detections
from detect.evaluation.error_types import Kind, Outcomes
from detect.evaluation.matching import UNMATCHED

WORST, SPREAD = 12, 4
"""Images shown: the worst, and some evenly from the rest up to the best."""
CROPS = 24
"""Images of a gallery."""
SIDE_PX, CROP_PX = 480, 200
CROP_MARGIN = 0.6
"""What is shown around a box, in its own sizes."""
JPEG_QUALITY = 75
BUDGET_BYTES = 3_600_000
"""Room for all images of a page, which so stays below 5 MB."""
RIGHT, WRONG, IGNORED = 5, 6, 7
"""Labels whose colours in `draw.PALETTE` are blue, vermillion and pink."""
LABELLED = 8
"""Boxes of an image that get a label, errors first: more labels would hide what they name."""
SHORT_KIND = {
    Kind.CLASSIFICATION: "wrong class",
    Kind.LOCALISATION: "misplaced",
    Kind.BOTH: "wrong class, misplaced",
    Kind.DUPLICATE: "duplicate",
    Kind.BACKGROUND: "nothing there",
}


class ImageScore(NamedTuple):
    """How one image went."""

    row: int
    found: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """1 where nothing was there and nothing detected."""
        errors = self.wrong + self.missed
        return 2 * self.found / (2 * self.found + errors) if self.found or errors else 1.0


def rank_images(ground_truth: GroundTruthRows, outcomes: Outcomes, num_images: int) -> list[ImageScore]:
    """All images, the lowest F1 first and of equals the one with most errors."""
    images = outcomes.detections.image_rows

    def per_image(rows: NDArray[np.int64], keep: NDArray[np.bool_]) -> list[int]:
        return np.bincount(rows[keep], minlength=num_images).tolist()

    found = per_image(images, outcomes.kinds == Kind.FOUND)
    wrong = per_image(images, outcomes.kinds > Kind.IGNORED)
    missed = per_image(ground_truth.image_rows, ~outcomes.found_boxes & ~ground_truth.ignore)
    scores = [ImageScore(*row) for row in zip(range(num_images), found, wrong, missed, strict=True)]
    return sorted(scores, key=lambda score: (score.f1, -score.wrong - score.missed))


def choose_images(ranked: list[ImageScore], worst: int = WORST, spread: int = SPREAD) -> list[ImageScore]:
    """The worst, then some evenly spread over the rest."""
    rest = ranked[worst:]
    return [*ranked[:worst], *(rest[place] for place in spread_rows(len(rest), spread))]


class EncodedImage(NamedTuple):
    """A JPEG that a page carries in itself."""

    width: int
    height: int
    base64: str
    description: str


class ImageFigure(NamedTuple):
    """One image, or two that are shown side by side."""

    images: tuple[EncodedImage, ...]
    caption: str


def encode_image(image: Image.Image, description: str) -> EncodedImage:
    """A JPEG as text."""
    buffer = io.BytesIO()
    # Colour at full resolution: thin lines would fade to brown.
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return EncodedImage(*image.size, base64.b64encode(buffer.getvalue()).decode(), description)


class ImageBudget:
    """Encodes images until their room on the page is used up."""

    def __init__(self) -> None:
        self.bytes_left = BUDGET_BYTES

    def encode(self, described: Iterable[tuple[Image.Image, str]]) -> tuple[EncodedImage, ...] | None:
        """All of some images with their descriptions; None where there is no room for them together."""
        images = tuple(encode_image(image, description) for image, description in described)
        size = sum(len(image.base64) for image in images)
        if size > self.bytes_left:
            return None
        self.bytes_left -= size
        return images


class Album(ImageBudget):
    """The images of a run's page.

    Args:
        annotations: says where the files are.
        ground_truth: its boxes.
        outcomes: of the detections to show.
    """

    def __init__(self, annotations: Annotations, ground_truth: GroundTruthRows, outcomes: Outcomes) -> None:
        super().__init__()
        self.annotations = annotations
        self.ground_truth = ground_truth
        self.outcomes = outcomes
        self.unreadable: list[str] = []
        """Why an image could not be shown."""

    def pairs(self, images: Sequence[ImageScore]) -> list[ImageFigure]:
        """Ground truth and detections side by side."""
        shown = []
        for score in images:
            name = self._name(score.row)
            if (loaded := self._load(score.row, SIDE_PX)) is None:
                continue
            truth = self._draw_truth(*loaded, score.row)
            detections = self._draw_detections(*loaded, score.row)
            pair = self.encode([(truth, f"ground truth of {name}"), (detections, f"detections of {name}")])
            if pair is not None:
                counts = f"{score.found} found, {score.wrong} wrong, {score.missed} missed"
                shown.append(ImageFigure(pair, f"{name}: {counts}, F1 {score.f1:.2f}"))
        return shown

    def false_positives(self, most: int = CROPS) -> list[ImageFigure]:
        """The most confident errors."""
        wrong = np.flatnonzero(self.outcomes.kinds > Kind.IGNORED)
        confident_first = wrong[np.argsort(-self.outcomes.detections.scores[wrong], kind="stable")]
        return self._gallery(self._false_positive_crops(confident_first), most)

    def misses(self, most: int = CROPS) -> list[ImageFigure]:
        """The largest boxes that none found, of each class in turn."""
        truth = self.ground_truth
        missed = np.flatnonzero(~self.outcomes.found_boxes & ~truth.ignore)
        by_class = missed[np.lexsort((-truth.areas[missed], truth.labels[missed]))]
        labels = truth.labels[by_class]
        place = np.arange(len(by_class)) - np.searchsorted(labels, labels)
        return self._gallery(self._missed_crops(by_class[np.argsort(place, kind="stable")]), most)

    def _draw_truth(self, image: Image.Image, scale: float, row: int) -> Image.Image:
        boxes = self.annotations.rows(row)
        found, ignore = self.outcomes.found_boxes[boxes], self.annotations.ignore[boxes]
        missed = ~found & ~ignore
        names = [self.annotations.classes.name(label) for label in self.annotations.labels[boxes].tolist()]
        # The largest missed boxes first: they are the surprising ones.
        labelled = np.lexsort((-self.annotations.areas[boxes], ~missed))[:LABELLED].tolist()
        texts = [name if i in labelled else "" for i, name in enumerate(names)]
        colours = np.where(found, RIGHT, np.where(ignore, IGNORED, WRONG))
        return draw_detections(image, self.annotations.boxes[boxes] * scale, texts, labels=colours)

    def _draw_detections(self, image: Image.Image, scale: float, row: int) -> Image.Image:
        detections = self.outcomes.detections
        own = np.flatnonzero(detections.image_rows == row)
        own = own[np.argsort(detections.scores[own], kind="stable")]  # the best is drawn last, on top
        kinds, scores = self.outcomes.kinds[own], detections.scores[own]
        names = [self.annotations.classes.name(label) for label in detections.labels[own].tolist()]
        wrong = kinds > Kind.IGNORED
        labelled = np.lexsort((-scores, ~wrong))[:LABELLED].tolist()
        texts = [f"{name} {scores[i]:.2f}" if i in labelled else "" for i, name in enumerate(names)]
        colours = np.where(kinds == Kind.FOUND, RIGHT, np.where(wrong, WRONG, IGNORED))
        return draw_detections(image, corners(detections.boxes_xywh[own]) * scale, texts, labels=colours)

    def _false_positive_crops(self, rows: NDArray[np.int64]) -> Iterator[tuple[Image.Image, str]]:
        outcomes, classes = self.outcomes, self.annotations.classes
        for row in rows.tolist():
            image = int(outcomes.detections.image_rows[row])
            kind, box = Kind(int(outcomes.kinds[row])), int(outcomes.box_rows[row])
            caption = f"{classes.name(int(outcomes.detections.labels[row]))} "
            caption += f"{outcomes.detections.scores[row]:.2f}: {SHORT_KIND[kind]}"
            if kind in (Kind.CLASSIFICATION, Kind.BOTH) and box != UNMATCHED:
                caption += f" (a {classes.name(int(self.ground_truth.labels[box]))})"
            crop = self._crop(image, corners(outcomes.detections.boxes_xywh[row : row + 1])[0])
            if crop is not None:
                yield crop, f"{caption}, {self._name(image)}"

    def _missed_crops(self, rows: NDArray[np.int64]) -> Iterator[tuple[Image.Image, str]]:
        for row in rows.tolist():
            image = int(self.ground_truth.image_rows[row])
            width, height = self.ground_truth.boxes_xywh[row, 2:]
            name = self.annotations.classes.name(int(self.ground_truth.labels[row]))
            crop = self._crop(image, corners(self.ground_truth.boxes_xywh[row : row + 1])[0])
            if crop is not None:
                yield crop, f"{name}, {width:.0f}x{height:.0f} px, {self._name(image)}"

    def _gallery(self, crops: Iterator[tuple[Image.Image, str]], most: int) -> list[ImageFigure]:
        shown: list[ImageFigure] = []
        for crop, caption in islice(crops, most):
            encoded = self.encode([(crop, caption)])
            if encoded is None:
                break
            shown.append(ImageFigure(encoded, caption))
        return shown

    def _crop(self, row: int, box: NDArray[np.float64]) -> Image.Image | None:
        """The box with its surroundings, drawn in the colour of an error."""
        if (loaded := self._load(row, None)) is None:
            return None
        image = loaded[0]
        margin = CROP_MARGIN * max(box[2:] - box[:2])
        left, top = np.maximum(box[:2] - margin, 0)
        right, bottom = np.minimum(box[2:] + margin, image.size)
        if right - left < 1 or bottom - top < 1:
            return None
        crop, scale = resized(image.crop((round(left), round(top), round(right), round(bottom))), CROP_PX)
        drawn = (box - np.array([round(left), round(top)] * 2)) * scale
        return draw_detections(crop, drawn[None], [""], labels=[WRONG])

    def _load(self, row: int, side_px: int | None) -> tuple[Image.Image, float] | None:
        """An image, its longer side `side_px`, and its scale; None, with a note, where it cannot be read."""
        try:
            image = load_image(self.annotations.path(row))
        except InputError as error:
            self.unreadable.append(str(error))
            return None
        return (image, 1.0) if side_px is None else resized(image, side_px)

    def _name(self, row: int) -> str:
        return self.annotations.file_names[row].decode(errors="replace")


def resized(image: Image.Image, side_px: float) -> tuple[Image.Image, float]:
    """The image with its longer side at `side_px`, and its scale."""
    scale = side_px / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size]), scale

"""Labels and categories, and the flat arrays that hold a split's ground truth.

A `label` is 1..K inside the project (0 is background); a `category_id` is whatever the data set says, with
gaps. `ClassMap` is the only place where one becomes the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect.errors import InputError


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set: `names[label - 1]` and `category_ids[label - 1]` belong to `label`."""

    names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise InputError(f"{len(self.names)} class names for {len(self.category_ids)} category ids")
        for what, values in (("class name", self.names), ("category id", self.category_ids)):
            seen: set[int | str] = set()
            for value in values:
                if value in seen:
                    raise InputError(f"{what} {value!r} occurs twice; labels would be ambiguous")
                seen.add(value)

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return len(self.names)

    def name(self, label: int) -> str:
        """The name of `label` (1..K)."""
        return self.names[label - 1]

    def category_id(self, label: int) -> int | str:
        """The data set's id of `label` (1..K)."""
        return self.category_ids[label - 1]

    def to_list(self) -> list[dict[str, int | str]]:
        """One `{label, category_id, name}` a class: how checkpoints and exported files store the map."""
        return [
            {"label": label, "category_id": category_id, "name": name}
            for label, (name, category_id) in enumerate(zip(self.names, self.category_ids, strict=True), 1)
        ]

    @classmethod
    def from_list(cls, rows: list[dict[str, int | str]]) -> ClassMap:
        """The inverse of `to_list`.

        Raises:
            InputError: labels are not 1..K in order.
        """
        for expected, row in enumerate(rows, 1):
            if row["label"] != expected:
                raise InputError(f"class map: expected label {expected}, found {row['label']!r}")
        return cls(tuple(str(r["name"]) for r in rows), tuple(r["category_id"] for r in rows))


@dataclass(frozen=True)
class Annotations:
    """Ground truth of one split in flat arrays, N images and M boxes; nothing here grows with use.

    Python lists of dicts are copied page by page into every worker as reference counts change;
    arrays are not. Boxes of image i are rows `offsets[i]:offsets[i + 1]`.
    """

    root: Path
    """Folder that `file_names` start from."""
    source: Path
    """The file (COCO) or list (VOC) that was read, for messages."""
    classes: ClassMap
    file_names: NDArray[np.bytes_]
    """(N,) UTF-8 paths below `root`."""
    image_ids: NDArray[np.generic]
    """(N,) the data set's ids: int64, or UTF-8 bytes where they are strings."""
    sizes: NDArray[np.int32]
    """(N, 2) height and width of the upright image in px."""
    offsets: NDArray[np.int64]
    """(N + 1,) first box row of each image."""
    boxes: NDArray[np.float64]
    """(M, 4) xyxy px of the upright file, the file's own numbers: they may overhang the image."""
    labels: NDArray[np.int64]
    """(M,) 1..K."""
    ignore: NDArray[np.bool_]
    """(M,) crowd (COCO) or difficult (VOC)."""
    areas: NDArray[np.float64]
    """(M,) px^2 as annotated (COCO: of the mask), else of the box; decides small, medium, large."""
    annotation_ids: NDArray[np.generic]
    """(M,) the data set's ids, for messages: int64, or UTF-8 bytes."""

    def __len__(self) -> int:
        return len(self.file_names)

    def path(self, index: int) -> Path:
        """The image file of row `index`."""
        return self.root / self.file_names[index].decode()

    def image_id(self, index: int) -> int | str:
        """The data set's own id of row `index`."""
        value = self.image_ids[index]
        return value.decode() if isinstance(value, bytes) else int(value)

    def clipped_boxes(self) -> NDArray[np.float64]:
        """(M, 4) boxes cut to their images, as training sees them."""
        limits = np.repeat(self.sizes[:, ::-1], np.diff(self.offsets), axis=0)  # (M, 2) width, height
        return np.clip(self.boxes, 0, np.tile(limits, 2))

    def rows(self, index: int) -> slice:
        """Where the boxes of image `index` lie in the box arrays."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


def without_boxes(annotations: Annotations, dropped: NDArray[np.bool_]) -> Annotations:
    """The split with all its images and without the boxes that `dropped` (M,) marks."""
    kept = ~dropped
    counted = np.concatenate([[0], np.cumsum(kept)])
    return replace(
        annotations,
        offsets=counted[annotations.offsets],
        boxes=annotations.boxes[kept],
        labels=annotations.labels[kept],
        ignore=annotations.ignore[kept],
        areas=annotations.areas[kept],
        annotation_ids=annotations.annotation_ids[kept],
    )

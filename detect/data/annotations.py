"""The flat arrays that hold a split's ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect.types import ClassMap


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


def spread_rows(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` rows, each once, evenly from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))


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

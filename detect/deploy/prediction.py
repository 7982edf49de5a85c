"""What a detector found in one image, in its own arrays and in those of other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.deploy.runtimes.base import require
from detect.types import ClassMap

if TYPE_CHECKING:
    import pandas
    import supervision

BOX_DECIMALS = 2
"""Of a pixel; finer than any labelling tool."""
SCORE_DECIMALS = 5


class Prediction(NamedTuple):
    """Detections of one image, best first."""

    boxes: NDArray[np.float32]
    """(D, 4) xyxy, px of the upright image."""
    scores: NDArray[np.float32]
    """(D,) in 0..1."""
    labels: NDArray[np.int64]
    """(D,) 1..K."""
    names: list[str]
    """Class name of each."""

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`: `class_id` counts from 0 (label - 1), names in `data["class_name"]`.

        Raises:
            InputError: supervision is not installed.
        """
        detections: supervision.Detections = require(
            "supervision", extra="supervision", path="to_supervision"
        ).Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )
        return detections

    def to_pandas(self) -> pandas.DataFrame:
        """A row per detection: `xmin`, `ymin`, `xmax`, `ymax` (px), `score`, `label` (1..K) and `name`.

        Raises:
            InputError: pandas is not installed.
        """
        library = require("pandas", extra="pandas", path="to_pandas")
        frame = library.DataFrame(self.boxes, columns=["xmin", "ymin", "xmax", "ymax"])
        return frame.assign(score=self.scores, label=self.labels, name=library.Series(self.names, dtype=str))

    def to_coco(self, image_id: int | str, classes: ClassMap) -> list[dict[str, Any]]:
        """Rows of COCO's results format: `image_id`, `category_id`, `bbox` (x, y, width, height) and `score`.

        Args:
            image_id: of the image in the data set.
            classes: of the detector, `Detector.classes`; they know the category ids.
        """
        boxes = self.boxes.astype(np.float64)
        boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return [
            {
                "image_id": image_id,
                "category_id": classes.category_id(int(label)),
                "bbox": box_xywh,
                "score": round(float(score), SCORE_DECIMALS),
            }
            for box_xywh, score, label in zip(
                boxes_xywh.round(BOX_DECIMALS).tolist(), self.scores, self.labels, strict=True
            )
        ]

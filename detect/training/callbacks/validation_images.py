"""Images for loggers: the same few validation images after each validation, truth beside detections."""

from __future__ import annotations

from pathlib import PurePosixPath

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from PIL import Image

from detect.data.annotations import spread_rows
from detect.data.images.decode import load_image
from detect.errors import InputError
from detect.evaluation.backends import corners
from detect.evaluation.draw import draw_detections
from detect.evaluation.evaluator import CocoEvaluator
from detect.training.module import DetectionModule

TAKES_PICTURES = (TensorBoardLogger, WandbLogger, MLFlowLogger)
IMAGES = 4
"""Shown, evenly over the validation split."""
SIDE_PX = 480
SCORE_THRESHOLD = 0.3


class ValidationPictures(Callback):
    """Logs images as `val/IMAGE` to every logger of the trainer that takes images."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TAKES_PICTURES)]
        if not loggers or not trainer.is_global_zero or trainer.sanity_checking:
            return
        assert isinstance(pl_module, DetectionModule)
        for name, picture in validation_pictures(pl_module.evaluator).items():
            for logger in loggers:
                log_picture(logger, name, picture, step=trainer.global_step)


def log_picture(logger: Logger, name: str, picture: NDArray[np.uint8], *, step: int) -> None:
    """Hand a (H, W, 3) image to a logger, each of which has a way of its own."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(f"val/{name}", picture, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(f"val/{name}", [picture], step)
    elif isinstance(logger, MLFlowLogger):
        # A folder an image: MLflow shows its files as a series.
        place = f"val/{PurePosixPath(name).stem}/{step:08d}.jpg"
        logger.experiment.log_image(logger.run_id, picture, artifact_file=place)


def validation_pictures(evaluator: CocoEvaluator, images: int = IMAGES) -> dict[str, NDArray[np.uint8]]:
    """Ground truth on the left, detections that score at least 0.3 on the right; (H, W, 3) by file name.

    A file that cannot be read is left out.
    """
    annotations, detections = evaluator.annotations, evaluator.detections
    pictures = {}
    for row in spread_rows(len(annotations), images).tolist():
        try:
            picture = load_image(annotations.path(row))
        except InputError:
            continue
        scale = SIDE_PX / max(picture.size)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
        boxes = annotations.rows(row)
        names = [annotations.classes.name(label) for label in annotations.labels[boxes].tolist()]
        truth = draw_detections(
            picture, annotations.boxes[boxes] * scale, names, labels=annotations.labels[boxes]
        )
        own = np.flatnonzero((detections.image_rows == row) & (detections.scores >= SCORE_THRESHOLD))
        detected = draw_detections(
            picture,
            corners(detections.boxes_xywh[own]) * scale,
            [annotations.classes.name(label) for label in detections.labels[own].tolist()],
            detections.scores[own],
            labels=detections.labels[own],
        )
        pictures[annotations.file_names[row].decode()] = beside(truth, detected)
    return pictures


def beside(left: Image.Image, right: Image.Image) -> NDArray[np.uint8]:
    """Two images of one size as one array."""
    return np.concatenate([np.asarray(left), np.asarray(right)], axis=1)

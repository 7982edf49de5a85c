"""`detect predict`: images in, drawn images and one detections.json out.

Images are decoded ahead and drawn behind the network by threads, in the order of the files. What is held in
memory is bounded in bytes, not in images.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from detect.data.images.decode import load_pixels, read_size
from detect.data.writers.coco import JsonRows
from detect.deploy.inference import Detector
from detect.deploy.label_files import WRITERS, LabelFormat, LabelledImage, LabelWriter
from detect.deploy.prediction import Prediction
from detect.deploy.prediction_files import common_folder, find_images, output_names, refuse_overwriting
from detect.errors import InputError
from detect.evaluation.draw import draw_detections
from detect.model.thresholds import check_score_threshold
from detect.system.files import whole_file
from detect.types import ClassMap

MAX_THREADS = 4
"""For decoding and drawing; the network has its own."""
BUDGET_BYTES = 150_000_000
"""Bytes of decoded images in each of three places: ahead of the network, in its batch, behind it. A larger
image goes through alone. Drawing and encoding take as much again."""


@dataclass(frozen=True)
class PredictOptions:
    """What is kept and how it is written."""

    score_threshold: float | None = None
    """Detections that are drawn and listed score more; null: see `Detector.predict`."""
    classes: list[str] | None = None
    """Names to keep; null: all."""
    format: LabelFormat | None = None
    """Write annotations for a labelling tool as well."""
    batch_size: int = 8
    """Images per pass of the network."""
    draw: bool = True
    recursive: bool = True
    """Folders are searched to the bottom."""

    def check(self) -> None:
        """Stop at a number out of range.

        Raises:
            InputError: names the option.
        """
        if self.score_threshold is not None:
            check_score_threshold(self.score_threshold, "--score_threshold")
        if self.batch_size < 1:
            raise InputError(f"--batch_size is {self.batch_size}; give at least 1")


class Decoded(NamedTuple):
    """An image, or why there is none."""

    file: Path
    pixels: NDArray[np.uint8] | None
    """(h, w, 3) upright RGB."""
    error: str = ""


def predict(
    model: Path, sources: list[str], *, output: Path, options: PredictOptions = PredictOptions()
) -> int:
    """Draw and list the detections of every image.

    Args:
        model: a checkpoint or an exported file.
        sources: files, folders and globs.
        output: gets a drawing of each image under its own name, detections.json, and annotations where asked
            for.
        options: thresholds, classes, formats.

    Returns:
        0, or 1 where an image could not be read; its name is printed.

    Raises:
        InputError: a wrong option, no image, not a model, or an output that would replace something.
    """
    options.check()
    files = find_images(sources, recursive=options.recursive)
    names = output_names(files)
    refuse_overwriting(output, names, options.format)
    detector = Detector.load(model).at_threshold(options.score_threshold)
    keep = labels_to_keep(options.classes, detector.classes)
    output.mkdir(parents=True, exist_ok=True)
    skipped: list[str] = []
    with ResultWriter(output, names, detector.classes, options=options) as writer:
        images = decode_ahead(with_progress(files), writer.pool)
        for batch in batches(images, options.batch_size, skipped):
            predictions = detector.predict_pixels([pixels for _, pixels in batch])
            for (file, pixels), prediction in zip(batch, predictions, strict=True):
                writer.write(file, pixels, prediction if keep is None else select(prediction, keep))
        writer.finish()
    report(output, images=len(files) - len(skipped), found=writer.count, skipped=skipped)
    if not writer.count:
        print(nothing_found(detector))
    return 1 if skipped else 0


def nothing_found(detector: Detector) -> str:
    """What to say where nothing scores more than the threshold, and how to see more."""
    threshold = detector.score_threshold
    of_classes = isinstance(threshold, tuple)
    text = f"nothing scores more than {'the threshold of its class' if of_classes else threshold}"
    if threshold == 0:
        return text
    if detector.spec.form == "nms" and threshold == detector.runtime.spec.thresholds.score_threshold:
        return f"{text}, the threshold that the file was exported with; export with a lower --score_threshold"
    return f"{text}; a lower --score_threshold shows more"


def labels_to_keep(names: list[str] | None, classes: ClassMap) -> NDArray[np.int64] | None:
    """Labels of the classes to keep; None for all.

    Raises:
        InputError: a name that the detector does not know; with the nearest one.
    """
    if names is None:
        return None
    for name in names:
        if name not in classes.names:
            near = difflib.get_close_matches(name, classes.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(classes.names)}"
            raise InputError(f"--classes {name}: the detector knows no such class; {hint}")
    return np.array([classes.names.index(name) + 1 for name in names], dtype=np.int64)


def select(prediction: Prediction, labels: NDArray[np.int64]) -> Prediction:
    """The detections of some labels."""
    boxes, scores, found, names = prediction
    rows = np.isin(found, labels)
    return Prediction(
        boxes[rows], scores[rows], found[rows], [name for name, row in zip(names, rows, strict=True) if row]
    )


def with_progress(files: list[Path]) -> Iterator[Path]:
    """The files, counted on a terminal."""
    console = Console()
    yield from track(files, "predicting", console=console, transient=True, disable=not console.is_terminal)


def decode_ahead(files: Iterator[Path], pool: ThreadPoolExecutor) -> Iterator[Decoded]:
    """Decode images in threads, ahead of whoever takes them, in order and within `BUDGET_BYTES`."""
    waiting: deque[tuple[int, Future[Decoded]]] = deque()
    waiting_bytes = 0
    for file in files:
        size = decoded_bytes(file)
        while waiting and waiting_bytes + size > BUDGET_BYTES:
            taken, future = waiting.popleft()
            waiting_bytes -= taken
            yield future.result()
        waiting.append((size, pool.submit(decode, file)))
        waiting_bytes += size
    while waiting:
        yield waiting.popleft()[1].result()


def decoded_bytes(file: Path) -> int:
    """What an image takes when decoded, by its header; 0 for one that cannot be read."""
    try:
        height, width = read_size(file)
    except InputError:
        return 0
    return 3 * height * width


def decode(file: Path) -> Decoded:
    """An image, or the reason why it cannot be read."""
    try:
        read_size(file)  # a decoder of JPEGs takes memory for all the pixels that a header claims
        return Decoded(file, load_pixels(file))
    except InputError as error:
        return Decoded(file, None, str(error))


def batches(
    images: Iterator[Decoded], batch_size: int, skipped: list[str]
) -> Iterator[list[tuple[Path, NDArray[np.uint8]]]]:
    """Readable images in batches, smaller ones where the images are large.

    Args:
        images: decoded or not.
        batch_size: the most in a batch.
        skipped: gets the reason of each that could not be read.
    """
    batch: list[tuple[Path, NDArray[np.uint8]]] = []
    batch_bytes = 0
    for file, pixels, error in images:
        if pixels is None:
            skipped.append(error)
            continue
        if batch and (len(batch) == batch_size or batch_bytes + pixels.nbytes > BUDGET_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append((file, pixels))
        batch_bytes += pixels.nbytes
    if batch:
        yield batch


class ResultWriter:
    """Writes detections.json, drawn images and annotations as the predictions come, until `finish`.

    Args:
        output: the folder; it exists.
        names: of the drawn image of each file.
        classes: of the detector.
        options: whether to draw, and the format of annotations.
    """

    def __init__(
        self, output: Path, names: dict[Path, str], classes: ClassMap, *, options: PredictOptions
    ) -> None:
        self.output, self.names, self.classes = output, names, classes
        self.draw = options.draw
        self.pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
        self._root = common_folder(list(names))
        times = Counter(file.name for file in names)
        self._repeated_names = {name for name, count in times.items() if count > 1}
        self._format = options.format
        self._stack = contextlib.ExitStack()
        self._drawing = WorkBehind(self.pool)

    @property
    def count(self) -> int:
        """Detections written."""
        return self._rows.count

    def __enter__(self) -> ResultWriter:
        self._rows = JsonRows(self._stack.enter_context(whole_file(self.output / "detections.json")))
        self._labels: LabelWriter | None = None
        if self._format is not None:
            self._labels = self._stack.enter_context(WRITERS[self._format](self.output, self.classes))
        self._stack.enter_context(self.pool)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def finish(self) -> None:
        """Wait for the drawings and close the list; without it no list appears."""
        self._drawing.wait()
        self._rows.end()

    def write(self, file: Path, pixels: NDArray[np.uint8], prediction: Prediction) -> None:
        """Add one image; it is drawn in the background, within `BUDGET_BYTES`."""
        name = file.resolve().relative_to(self._root).as_posix()
        image_id = name if file.name in self._repeated_names else file.name
        for row in result_rows(prediction, str(file), self.classes, image_id=image_id):
            self._rows.write(row)
        if self._labels is not None:
            height, width = pixels.shape[:2]
            stem = Path(self.names[file]).stem
            self._labels.write(LabelledImage(name, stem, (height, width), prediction))
        if self.draw:
            self._drawing.add(pixels, draw, pixels, prediction, self.output / self.names[file])


class WorkBehind:
    """Work on images that threads do behind the network, within `BUDGET_BYTES`.

    Args:
        pool: the threads.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._waiting_bytes = 0

    def add(self, pixels: NDArray[np.uint8], work: Callable[..., None], *arguments: Any) -> None:
        """Hand over work that needs `pixels`; waits until there is room for them."""
        self.wait(max(0, BUDGET_BYTES - pixels.nbytes))
        self._waiting.append((pixels.nbytes, self._pool.submit(work, *arguments)))
        self._waiting_bytes += pixels.nbytes

    def wait(self, allowed_bytes: int = 0) -> None:
        """Wait for the oldest work until no more than this is in hand."""
        while self._waiting and self._waiting_bytes > allowed_bytes:
            taken, future = self._waiting.popleft()
            self._waiting_bytes -= taken
            future.result()


def draw(pixels: NDArray[np.uint8], prediction: Prediction, path: Path) -> None:
    """Write an image with its detections."""
    drawn(pixels, prediction).save(path, quality=92)


def drawn(pixels: NDArray[np.uint8], prediction: Prediction) -> Image.Image:
    """An image with its detections."""
    boxes, scores, labels, names = prediction
    return draw_detections(Image.fromarray(pixels), boxes, names, scores, labels=labels)


def result_rows(
    prediction: Prediction, file_name: str, classes: ClassMap, *, image_id: str
) -> Iterator[dict[str, Any]]:
    """COCO's results format, with the names that make it readable.

    Args:
        prediction: of one image.
        file_name: where the image is.
        classes: of the detector.
        image_id: the file's name, or the path below the folder of all images where two have one name.
    """
    for row, name in zip(prediction.to_coco(image_id, classes), prediction.names, strict=True):
        yield {**row, "file_name": file_name, "category_name": name}


def report(output: Path, *, images: int, found: int, skipped: list[str]) -> None:
    """Say what was found and what was skipped."""
    console = Console(soft_wrap=True)
    console.print(
        f"{found} detections in {images} images, written to {output}", highlight=False, markup=False
    )
    console.print(f"list: {output / 'detections.json'}", highlight=False, markup=False)
    for message in skipped:
        console.print(f"skipped: {message}", highlight=False, markup=False)

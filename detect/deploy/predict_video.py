"""`detect predict` on videos, cameras and streams: a drawn video each, and one detections.json.

Frames are decoded ahead of the network by a thread, drawn and encoded behind it by another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detect.data.writers.coco import JsonRows
from detect.deploy import predict as of_images
from detect.deploy.inference import Detector
from detect.deploy.predict import (
    PredictOptions,
    WorkBehind,
    drawn,
    labels_to_keep,
    nothing_found,
    result_rows,
)
from detect.deploy.prediction import Prediction
from detect.deploy.prediction_files import output_names, refuse_overwriting
from detect.deploy.video_input import Frame, FramesAhead, VideoInput, import_av
from detect.deploy.video_output import VideoOutput
from detect.deploy.video_sources import VideoSource
from detect.errors import InputError, RunStopped
from detect.system.files import whole_file
from detect.system.signals import noted_signals

TIME_DECIMALS = 4
"""Of a second."""


class Outcome(NamedTuple):
    """What became of a video."""

    source: VideoSource
    frames: int
    """That went through the network."""
    seconds: float
    notes: list[str]
    """What was left out, and why it ended early."""


def predict_videos(model: Path, sources: list[VideoSource], *, output: Path, options: PredictOptions) -> int:
    """Draw and list the detections of every frame.

    Args:
        model: a checkpoint or an exported file.
        sources: what to read, one after another.
        output: gets a video of each with boxes, and detections.json.
        options: as for images; no annotations are written.

    Returns:
        0, or 1 where a video could not be read, ended early or had damaged packets; it is printed.

    Raises:
        InputError: a wrong option, no frame at all, not a model, or an output that would replace something.
        RunStopped: by Ctrl-C or SIGTERM; everything until then is written.
    """
    options.check()
    if options.format is not None:
        raise InputError(
            f"--format {options.format} is for images; extract the frames of a video to label them"
        )
    import_av()
    names = output_names([source.file for source in sources], suffix=".mp4")
    refuse_overwriting(output, names, None)
    detector = Detector.load(model).at_threshold(options.score_threshold)
    outcomes: list[Outcome] = []
    with (
        noted_signals() as signals,
        removed_if_empty(output),
        whole_file(output / "detections.json") as file,
    ):
        run = VideoRun(detector, options, JsonRows(file), stopped=lambda: bool(signals))
        for source in sources:
            if not signals:
                outcomes.append(run.predict(source, output / names[source.file]))
        if not any(outcome.frames for outcome in outcomes) and not signals:
            raise InputError("; ".join(note for outcome in outcomes for note in outcome.notes))
        run.rows.end()
    report(output, outcomes, found=run.rows.count)
    if signals:
        message = f"stopped; what was found until then is in {output}"
        raise RunStopped(message, exit_code=128 + signals[0])
    if not run.rows.count:
        print(nothing_found(detector))
    return 1 if any(outcome.notes for outcome in outcomes) else 0


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """The folder is there inside; one that stays empty is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()


class VideoRun:
    """A detector that goes over videos.

    Args:
        detector: at the threshold that is asked for.
        options: classes, images per pass, whether to draw.
        rows: get the detections.
        stopped: true when no more frames are wanted.
    """

    def __init__(
        self, detector: Detector, options: PredictOptions, rows: JsonRows, *, stopped: Callable[[], bool]
    ) -> None:
        self.detector, self.options, self.rows, self.stopped = detector, options, rows, stopped
        self.keep = labels_to_keep(options.classes, detector.classes)

    def predict(self, source: VideoSource, target: Path) -> Outcome:
        """Go over one video; what cannot be read of it becomes a note."""
        started, count = time.perf_counter(), 0
        try:
            video = VideoInput(source)
        except InputError as error:
            return Outcome(source, 0, 0.0, [str(error)])
        ahead = FramesAhead(video, budget_bytes=of_images.BUDGET_BYTES, stopped=self.stopped)
        frames = iter(ahead)
        batch_size = max(1, min(self.options.batch_size, of_images.BUDGET_BYTES // video.frame_bytes))
        first = next(frames, None)
        if first is not None:
            frames = chain([first], frames)
            with self._drawing(video, first, target) as draw, progress(source, video.total) as advance:
                while batch := list(islice(frames, batch_size)):
                    for frame, prediction in zip(batch, self._find(batch), strict=True):
                        self._list(source, frame, prediction)
                        draw(frame, prediction)
                    count += len(batch)
                    advance(count)
        notes = notes_of(video, count, dropped=ahead.dropped, stopped=self.stopped())
        return Outcome(source, count, time.perf_counter() - started, notes)

    def _find(self, batch: list[Frame]) -> list[Prediction]:
        found = self.detector.predict_pixels([frame.pixels for frame in batch])
        return found if self.keep is None else [of_images.select(one, self.keep) for one in found]

    def _list(self, source: VideoSource, frame: Frame, prediction: Prediction) -> None:
        image_id = f"{source.file.name}#{frame.number}"
        of_frame = {"frame": frame.number, "time": round(frame.time, TIME_DECIMALS)}
        for row in result_rows(prediction, source.shown, self.detector.classes, image_id=image_id):
            self.rows.write({**row, **of_frame})

    @contextmanager
    def _drawing(
        self, video: VideoInput, first: Frame, target: Path
    ) -> Iterator[Callable[[Frame, Prediction], None]]:
        """What draws a frame into `target`, behind the network; the file appears whole at the end."""
        if not self.options.draw:
            yield lambda frame, prediction: None
            return
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(target))
            pool = stack.enter_context(ThreadPoolExecutor(1))  # frames follow each other
            height, width = first.pixels.shape[:2]
            writer = VideoOutput(file, (height, width), rate=video.rate, pixel_aspect=video.pixel_aspect)
            behind = WorkBehind(pool)

            def draw(frame: Frame, prediction: Prediction) -> None:
                behind.add(frame.pixels, write_frame, writer, frame, prediction)

            yield draw
            behind.wait()
            writer.close()


def write_frame(writer: VideoOutput, frame: Frame, prediction: Prediction) -> None:
    """Add a frame with its detections to a video."""
    pixels: NDArray[np.uint8] = np.asarray(drawn(frame.pixels, prediction))
    writer.write(pixels, frame.time)


def notes_of(video: VideoInput, count: int, *, dropped: int, stopped: bool) -> list[str]:
    """What to tell of a video that is over, besides what was found."""
    shown, notes = video.source.shown, []
    if not count and not stopped:
        return [f"cannot read {shown}: no frame can be decoded{f'; {video.fault}' if video.fault else ''}"]
    if video.fault and not stopped:
        notes.append(f"{shown} is broken after {count} frames: {video.fault}")
    if video.damaged:
        notes.append(f"{shown}: {video.damaged} damaged packets were left out")
    if dropped:
        notes.append(f"{shown}: {dropped} frames were left out; they came faster than the network takes them")
    return notes


@contextmanager
def progress(source: VideoSource, total: int | None) -> Iterator[Callable[[int], None]]:
    """What takes the number of frames that are done; on a terminal a bar with frames per second."""
    console = Console()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        *(BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn()),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    started = time.perf_counter()
    with bar:
        task = bar.add_task(source.file.name, total=total, speed="")

        def advance(done: int) -> None:
            speed = done / (time.perf_counter() - started)
            bar.update(task, completed=done, speed=f"{speed:.1f} frames/s")

        yield advance


def report(output: Path, outcomes: list[Outcome], *, found: int) -> None:
    """Say what was found, how fast, and what was left out."""
    console = Console(soft_wrap=True)
    lines = [
        f"{outcome.source.shown}: {outcome.frames} frames, {outcome.frames / outcome.seconds:.1f} per second"
        for outcome in outcomes
        if outcome.frames
    ]
    frames = sum(outcome.frames for outcome in outcomes)
    lines += [f"{found} detections in {frames} frames, written to {output}"]
    lines += [f"list: {output / 'detections.json'}"]
    lines += [f"note: {note}" for outcome in outcomes for note in outcome.notes]
    for line in lines:
        console.print(line, highlight=False, markup=False)

"""`detect predict`: pictures in, drawn pictures and one detections.json out."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from detect.api import Detector, Prediction
from detect.data.image import load_image
from detect.draw import draw_detections
from detect.errors import InputError
from detect.run_folder import write_atomically

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
BATCH = 8


def predict(ckpt_path: Path, sources: list[str], *, output: Path, score_threshold: float) -> int:
    """Draw and list the detections of every picture.

    Args:
        ckpt_path: checkpoint of detect.
        sources: files, folders (searched to the bottom) and globs.
        output: gets one drawn picture each under its own name, and detections.json.
        score_threshold: weaker detections are neither drawn nor listed.

    Returns:
        0, or 1 where a picture could not be read; its name is printed.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f"--score_threshold is {score_threshold}; give a value between 0 and 1")
    detector = Detector.load(ckpt_path)
    files = find_images(sources)
    names = output_names(files)
    refuse_overwriting(output, files, names)
    console = Console(soft_wrap=True)
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    output.mkdir(parents=True, exist_ok=True)
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    for batch in track(
        batches, "predicting", console=console, transient=True, disable=not console.is_terminal
    ):
        pictures: dict[Path, Image.Image] = {}
        for file in batch:
            try:
                pictures[file] = load_image(file)
            except InputError as error:
                skipped.append(str(error))
        if not pictures:
            continue
        predictions = detector.predict_batch(list(pictures.values()), score_threshold=score_threshold)
        for (file, picture), prediction in zip(pictures.items(), predictions, strict=True):
            drawn = draw_detections(
                picture,
                prediction.boxes,
                labels=prediction.labels.tolist(),
                names=prediction.names,
                scores=prediction.scores.tolist(),
            )
            drawn.save(output / names[file], quality=92)
            rows += result_rows(prediction, file, detector)
    write_atomically(output / "detections.json", json.dumps(rows, indent=1))
    report(console, output, drawn=len(files) - len(skipped), rows=rows, skipped=skipped)
    return 1 if skipped else 0


def find_images(sources: list[str]) -> list[Path]:
    """Files, folders and globs to a sorted list of picture files, each once.

    Raises:
        InputError: a source names nothing, or no picture is among them.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(p for p in map(Path, glob.glob(source, recursive=True)) if p.is_file())
        if not matches:
            raise InputError(
                f"--source {source}: no picture there (looked for {', '.join(sorted(SUFFIXES))})"
            )
        found |= dict.fromkeys(matches)
    return list(found)


def output_names(files: list[Path]) -> dict[Path, str]:
    """A name of its own for every drawn picture: the file's, numbered where two would collide."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        suffix = ".png" if file.suffix.lower() == ".png" else ".jpg"
        name, number = file.stem + suffix, 2
        while name in taken:
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name)
        names[file] = name
    return names


def refuse_overwriting(output: Path, files: list[Path], names: dict[Path, str]) -> None:
    """Stop before a drawn picture would replace its own source.

    Raises:
        InputError: the output folder holds one of the sources under the name of its drawing.
    """
    for file in files:
        if (output / names[file]).resolve() == file.resolve():
            raise InputError(f"--output {output}: would overwrite the source {file}; choose another folder")


def result_rows(prediction: Prediction, file: Path, detector: Detector) -> list[dict[str, Any]]:
    """COCO's results format, with the file name as image id and the names that make it readable."""
    rows = []
    for box, score, label in zip(prediction.boxes, prediction.scores, prediction.labels, strict=True):
        x0, y0, x1, y1 = (float(value) for value in box)
        rows.append(
            {
                "image_id": file.name,
                "category_id": detector.classes.category_id(int(label)),
                "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
                "score": round(float(score), 5),
                "file_name": str(file),
                "category_name": detector.classes.name(int(label)),
            }
        )
    return rows


def report(
    console: Console, output: Path, *, drawn: int, rows: list[dict[str, Any]], skipped: list[str]
) -> None:
    """Say what was found and what was skipped."""
    console.print(f"{len(rows)} detections in {drawn} pictures, drawn in {output}", highlight=False)
    console.print(f"list: {output / 'detections.json'}", highlight=False)
    for message in skipped:
        console.print(f"skipped: {message}", highlight=False, markup=False)

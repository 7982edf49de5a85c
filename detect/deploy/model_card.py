"""FILE.md beside every exported file: what a user must know before using it, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.deploy.runtimes.table import runtimes_of
from detect.model.counts import count
from detect.model.detector import TorchDetector
from detect.model.weights import describe_origin
from detect.system.files import write_atomically

REST = {
    "raw": "Decoding and NMS are left to the caller.",
    "decoded": "NMS is left to the caller.",
    "nms": "Nothing is left to the caller.",
}


def card_path(path: Path) -> Path:
    """FILE.md, beside FILE."""
    return path.with_name(path.name + ".md")


def write_card(
    path: Path, detector: TorchDetector, content: dict[str, Any], *, checkpoint: Path | None
) -> None:
    """Write FILE.md.

    Args:
        path: the exported file.
        detector: the detector that it was made from.
        content: of FILE.json.
        checkpoint: where the weights came from; what its run folder says is told as well. None: random.
    """
    run = {} if checkpoint is None else run_facts(checkpoint)
    sections = [
        [f"# {path.name}", "", introduction(content)],
        ["## Use", "", *use(path.name, content)],
        ["## Input and output", "", *input_and_output(content)],
        ["## Classes", "", "| label | category id | name |", "|---:|---:|---|", *class_rows(content)],
        ["## Size", "", *size_of(detector, content)],
        ["## Training data and metrics", "", *data_and_metrics(content, run)],
        ["## Origin and licence", "", *origin(content)],
    ]
    write_atomically(card_path(path), "\n\n".join("\n".join(lines) for lines in sections) + "\n")


def run_facts(checkpoint: Path) -> dict[str, Any]:
    """What manifest.json and metrics.json in the run folder of a checkpoint say, by these names."""
    run = checkpoint.resolve().parent.parent
    files = {name: run / f"{name}.json" for name in ("manifest", "metrics")}
    return {
        name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()
    }


def introduction(content: dict[str, Any]) -> str:
    """What the file is, in a sentence or two."""
    export, model = content["export"], content["model"]
    backbone = model["backbone"]
    given = backbone.get("init_args", {}).items()
    arguments = ", ".join(f"{name} {value}" for name, value in given if isinstance(value, str | float | int))
    name = str(backbone["class_path"]).rpartition(".")[2]
    runtimes = " or ".join(runtime.title for runtime in runtimes_of(export["format"]))
    text = (
        f"An object detector, SSDLite on {name}{f' ({arguments})' if arguments else ''}, in "
        f"{export['precision']} for {runtimes}. {REST[export['form']]}"
    )
    if export["checkpoint"] is None:
        text += " **Its weights are random**: it shows speed and shapes, and finds nothing."
    return text


def use(name: str, content: dict[str, Any]) -> Iterator[str]:
    """How to run it."""
    yield "```sh"
    yield f"detect predict --model {name} --source photo.jpg --out found"
    yield "```"
    yield ""
    yield "```python"
    yield "from detect.api import Detector"
    yield ""
    yield f'found = Detector.load("{name}").predict("photo.jpg")'
    yield "```"
    if content["export"]["format"] == "onnx" and content["export"]["form"] == "raw":
        yield ""
        yield "Without this package: `examples/numpy_detector.py` needs numpy, pillow and onnxruntime alone."


def input_and_output(content: dict[str, Any]) -> Iterator[str]:
    """What goes in and what comes out."""
    given, export, thresholds = content["input"], content["export"], content["postprocess"]
    height, width = given["image_size"]
    rule = {
        "antialias": "stretched to the input with an antialiased bilinear filter (Pillow's `BILINEAR`)",
        "torchvision": "stretched to the input bilinearly without antialiasing, in float32",
    }[given["resize_rule"]]
    mean, std = (", ".join(f"{value:.4g}" for value in given[key]) for key in ("mean", "std"))
    yield f"- Input: {height} x {width} px (height x width); {export['input']}."
    yield f"- Normalisation: values are divided by 255; then mean {mean}; std {std}."
    yield f"- Resize: images are turned upright by their EXIF orientation, then {rule}."
    yield f"- Output: {', '.join(f'`{name}`' for name in export['outputs'])}. {export['convention']}."
    if of_classes := thresholds.get("class_thresholds"):
        names = (row["name"] for row in content["classes"])
        each = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, of_classes, strict=True))
        yield f"- Score thresholds of the classes, which `detect predict` uses: {each}."
    score = thresholds["score_threshold"]
    score = "of the classes" if isinstance(score, list) else score
    yield (
        f"- Thresholds: score {score}, NMS at IoU {thresholds['nms_threshold']} "
        f"within a class, at most {thresholds['max_detections']} detections per image."
    )


def class_rows(content: dict[str, Any]) -> Iterator[str]:
    """A row of the table for each class."""
    for row in content["classes"]:
        yield f"| {row['label']} | {row['category_id']} | {str(row['name']).replace('|', chr(92) + '|')} |"


def size_of(detector: TorchDetector, content: dict[str, Any]) -> Iterator[str]:
    """Parameters, multiply-adds and bytes."""
    counts = count(detector.net, detector.net.image_size)
    without = f"{counts.params_without_bn / 1e6:.2f} without BatchNorm's"
    yield f"- {counts.params / 1e6:.2f} million parameters ({without})"
    yield f"- {counts.madds / 1e9:.3f} billion multiply-adds per image"
    yield f"- {content['file']['bytes'] / 1e6:.1f} MB, sha256 `{content['file']['sha256']}`"


def data_and_metrics(content: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """What is known of the run, and of this file's own mAP."""
    for split, facts in run.get("manifest", {}).get("data", {}).items():
        yield f"- {split}: {facts['images']} images, {facts['boxes']} boxes, sha256 `{facts['sha256']}`"
    if metrics := run.get("metrics"):
        yield (
            f"- COCO metrics of the run's best checkpoint on {metrics['images']} validation images: mAP "
            f"{metrics['mAP']:.3f}, AP50 {metrics['AP50']:.3f}, AP75 {metrics['AP75']:.3f}"
        )
    calibration, found = content["export"]["calibration"], content["verification"] or {}
    if calibration is not None:
        yield (
            f"- int8 ranges were taken on {calibration['images']} images of {calibration['source']}, "
            f"sha256 `{calibration['sha256']}`"
        )
    if "mAP_int8" in found:
        yield (
            f"- mAP of this file {found['mAP_int8']:.4f}, of the same detector in fp32 "
            f"{found['mAP_fp32']:.4f}, on {found['images']} images"
        )
    elif found:
        batches = " and ".join(map(str, found["batches"]))
        yield f"- Outputs equal PyTorch's at batch {batches} ({found['detections']} detections compared)"
    if not run:
        yield "- The training data and its metrics are not known: the weights came without a run folder."


def origin(content: dict[str, Any]) -> Iterator[str]:
    """Where the weights came from and what binds their use."""
    checkpoint, pretrained = content["export"]["checkpoint"], content["weights_origin"]
    if checkpoint is None:
        yield "- Random weights of a configuration."
    else:
        yield f"- Checkpoint `{checkpoint['name']}`, sha256 `{checkpoint['sha256']}`"
    if pretrained is None:
        yield "- No pretrained weights are in it."
    else:
        yield f"- Training started from pretrained weights: {describe_origin(pretrained)}"
    yield (
        "- The code that made it is under Apache-2.0. The weights are bound by the licences of the training "
        "images and of any pretrained weights; they are yours to check and to name."
    )

"""`detect export`: write a detector for a runtime, then run the file and compare it with PyTorch."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detect.data.augment.view import input_batch
from detect.data.images.decode import load_pixels
from detect.data.synthetic.images import generated_images
from detect.deploy.exported_file import (
    describe_export,
    json_path,
    parts,
    sum_bytes,
    write_json,
)
from detect.deploy.graphs import build_graph
from detect.deploy.int8 import Gate, Int8Options, calibrate, gate, print_line, refuse
from detect.deploy.load import DetectorFile, load_detector, open_exported
from detect.deploy.model_card import card_path, write_card
from detect.deploy.runtimes.base import FileFormat, Int8Source
from detect.deploy.runtimes.table import FORMATS
from detect.deploy.spec import Form, ModelSpec
from detect.deploy.validate import open_validation
from detect.deploy.verify import BATCHES, Verification, verify
from detect.errors import InputError
from detect.model.thresholds import Threshold, check_score_threshold

FAULTS_SHOWN = 5


@dataclass(frozen=True)
class ExportOptions:
    """What is written, and what it is verified on."""

    format: str = "onnx"
    """A name in `table.FORMATS`."""
    form: Form | None = None
    """Null: the format's default."""
    score_threshold: float | None = None
    """Instead of the model's own; a graph with NMS has it built in. Null: there it has those of the classes
    where the model has them."""
    pictures: list[Path] | None = None
    """At least as many as the largest batch of `verify`; null: generated ones."""
    int8: Int8Options | None = None
    """Null: float32."""

    def check(self, output: Path) -> None:
        """Stop at what cannot be written, before any work.

        Raises:
            InputError: names the option.
        """
        format = FORMATS[self.format]
        if self.int8 is not None:
            format.int8_writer()  # there may be none
        if output.suffix != format.suffix:
            raise InputError(f"--out {output}: a file of {format.name} ends in {format.suffix}")
        if self.score_threshold is not None:
            check_score_threshold(self.score_threshold, "--score_threshold")


def export(source: Path, output: Path, options: ExportOptions = ExportOptions()) -> int:
    """Write and verify a file; prints what was written and returns the exit code.

    Args:
        source: a checkpoint, or a config (random weights).
        output: the file; FILE.json and FILE.md, its model card, come beside it. Nothing is left of a file
            that fails its verification.
        options: format, form, thresholds, int8.

    Raises:
        InputError: the format cannot hold the form, the file's name does not fit, a package is missing, the
            file that was written differs from PyTorch, or its mAP in int8 falls too far.
    """
    options.check(output)
    model = load_for_export(source, options, choose_form(options))
    with staged(output) as staging:
        write_with_card(model, staging, options)
    print_line(f"{output} ({sum_bytes(output) / 1e6:.1f} MB), {json_path(output)}, {card_path(output)}")
    return 0


def load_for_export(source: Path, options: ExportOptions, form: Form) -> DetectorFile:
    """The detector with the thresholds that go into its file; says what is exported.

    Raises:
        InputError: see `load_detector`.
    """
    model = load_detector(source)
    threshold: Threshold | None = options.score_threshold
    if threshold is None and form == "nms":
        threshold = model.detector.postprocess.config.class_thresholds
    if threshold is not None:
        model.detector.postprocess = model.detector.postprocess.at_threshold(threshold)
    weights = "" if model.checkpoint is not None else ", random weights"
    print_line(f"exporting {source} to {options.format}, form {form}{weights}")
    return model


def write_with_card(model: DetectorFile, path: Path, options: ExportOptions) -> dict[str, Any]:
    """Write a verified file, FILE.json and FILE.md, its model card.

    Args:
        model: from `load_for_export`.
        path: in a folder of its own.
        options: format, form, int8.

    Returns:
        What FILE.json holds.

    Raises:
        InputError: see `export`.
    """
    form, format = choose_form(options), FORMATS[options.format]
    print_line(summary(write_verified(model, path, form=form, options=options)))
    if options.int8 is not None:
        print_line(str(write_int8(model, path, form=form, format=format, options=options.int8)))
    content: dict[str, Any] = json.loads(json_path(path).read_text(encoding="utf-8"))
    write_card(path, model.detector, content, checkpoint=model.checkpoint)
    return content


def choose_form(options: ExportOptions) -> Form:
    """The form to write.

    Raises:
        InputError: the format cannot hold it.
    """
    able = FORMATS[options.format].forms
    if options.form is not None and options.form not in able:
        raise InputError(
            f"--form {options.form}: {options.format} holds {' or '.join(able)}; what is left is done outside"
        )
    return options.form or able[0]


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A place to write `output` to; what is there moves into place at the end, and nothing on an error."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        staging = Path(folder) / output.name
        yield staging
        for part in [*parts(staging), json_path(staging), card_path(staging)]:
            os.replace(part, output.parent / part.name)


def write_verified(model: DetectorFile, path: Path, *, form: Form, options: ExportOptions) -> Verification:
    """Write a file and FILE.json, and compare it with PyTorch.

    Raises:
        InputError: see `export`.
    """
    detector = model.detector
    description = describe_export(
        detector, form=form, format=options.format, precision="fp32", checkpoint=model.checkpoint
    )
    images = verification_images(ModelSpec.of_detector(detector), options.pictures)
    FORMATS[options.format].write(build_graph(detector, form), images, path, description=description)
    write_json(path, description, None)  # some formats have no other place for it
    with open_exported(path) as runtime:
        verification = verify(runtime, detector, images)
    if verification.faults:
        shown = "\n".join(f"  {fault}" for fault in verification.faults[:FAULTS_SHOWN])
        more = len(verification.faults) - FAULTS_SHOWN
        raise InputError(
            f"the file written for {options.format} differs from PyTorch and was removed:\n{shown}"
            + (f"\n  and {more} more" if more > 0 else "")
        )
    write_json(path, description, verification.to_json())
    return verification


def write_int8(
    model: DetectorFile, path: Path, *, form: Form, format: FileFormat, options: Int8Options
) -> Gate:
    """Replace a verified float32 file by one in 8 bits, if its mAP holds.

    Raises:
        InputError: see `export`.
    """
    write = format.int8_writer()
    detector = model.detector
    calibration = calibrate(detector, options)
    data = open_validation(ModelSpec.of_detector(detector), options.data)
    description = describe_export(
        detector, form=form, format=format.name, precision="int8", checkpoint=model.checkpoint
    )
    description["export"]["calibration"] = calibration.description
    int8_file = path.with_name("int8") / path.name
    int8_file.parent.mkdir()
    graph = build_graph(detector, form)

    def attempt(keep_fp32: tuple[str, ...]) -> Gate:
        print_line(f"int8: ranges from {len(calibration.images)} images")
        write(Int8Source(graph, path, calibration.images, description, keep_fp32), int8_file)
        write_json(int8_file, description, None)
        print_line("int8: mAP of both files")
        return gate(path, int8_file, data, max_drop=options.max_drop)

    found = attempt(options.keep_fp32)
    if not found.passes:
        raise refuse(found, detector, calibration, kept=options.keep_fp32, attempt=attempt)
    write_json(int8_file, description, found.to_json())
    for part in [*parts(int8_file), json_path(int8_file)]:
        os.replace(part, path.parent / part.name)
    return found


def verification_images(spec: ModelSpec, files: list[Path] | None) -> Tensor:
    """(B, 3, H, W) images of the input's type, B the largest batch of `verify`.

    Raises:
        InputError: too few files, or one cannot be read.
    """
    count = max(BATCHES)
    pixels: list[NDArray[np.uint8]]
    if files is None:
        pixels = generated_images(count)
    elif len(files) < count:
        raise InputError(f"--pictures: {len(files)} given, at least {count} are needed")
    else:
        pixels = [load_pixels(file) for file in files[:count]]
    return input_batch(pixels, spec.image_size, spec.resize_rule).contiguous()


def summary(verification: Verification) -> str:
    """One line that says what was compared."""
    differences = [f"{name} differ by {value:.1g}" for name, value in verification.largest_difference.items()]
    findings = ", ".join([*differences, f"{verification.detections} detections agree"])
    return f"compared with PyTorch at batch {' and '.join(map(str, verification.batches))}: {findings}"

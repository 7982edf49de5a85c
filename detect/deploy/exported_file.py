"""What an exported file says about itself, so that it can be used alone; and how a stale one is known.

The same plain values stand inside the file, where its format has a place, and in FILE.json beside it, with
the hash of the file they belong to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from detect.deploy.spec import OUTPUTS, Form
from detect.errors import InputError
from detect.model.checkpoint_format import migrate
from detect.system.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from detect.model.detector import TorchDetector

Precision = Literal["fp32", "bf16", "int8"]

WEIGHTS_BESIDE = {".xml": ".bin"}
"""Formats that keep their weights in a second file (OpenVINO), by suffix."""
METADATA_KEY = "detect"
"""Under which the description stands in a file's metadata, as JSON."""
HASH_CHUNK = 1 << 20

CONVENTIONS: dict[Form, str] = {
    "raw": "cls_logits (B, A, K + 1), column 0 is background; box_deltas (B, A, 4) relative to the anchors: "
    "centre shift / anchor size / 0.1, log size ratio / 0.2",
    "decoded": "scores (B, A, K) of labels 1..K; boxes (B, A, 4) xyxy px of the input",
    "nms": "boxes (B, D, 4) xyxy px of the input, scores (B, D) falling, labels (B, D) 1..K; the first "
    "`counts` rows of an image are detections, padded rows have score 0 and label 0",
}


def describe_export(
    detector: TorchDetector, *, form: Form, format: str, precision: Precision, checkpoint: Path | None
) -> dict[str, Any]:
    """The plain values that go into an exported file.

    Args:
        detector: the detector; it must know its settings and classes.
        form: of the graph.
        format: of the file.
        precision: of its weights and activations.
        checkpoint: where the weights came from; None: random weights of a config.
    """
    import torch

    spec_dtype = "uint8" if detector.resize_rule == "antialias" else "float32"
    return {
        **detector.describe(),
        "export": {
            "form": form,
            "format": format,
            "precision": precision,
            "outputs": list(OUTPUTS[form]),
            "convention": CONVENTIONS[form],
            "input": f"images, {spec_dtype} RGB in 0..255; normalisation is part of the graph",
            "anchors": anchor_rows(detector.net.anchors) if form == "raw" else None,
            "checkpoint": None
            if checkpoint is None
            else {"name": checkpoint.name, "sha256": file_sha256([checkpoint])},
            "calibration": None,
            "torch": torch.__version__,
        },
    }


def anchor_rows(anchors: Tensor) -> list[list[float]]:
    """(A, 4) float32 anchors as decimal numbers that read back to the same bits."""
    return [[float(f"{value:.9g}") for value in row] for row in anchors.tolist()]


def file_sha256(paths: Iterable[Path]) -> str:
    """The hash of one or several files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def parts(path: Path) -> list[Path]:
    """The files that make up an exported model."""
    weights = WEIGHTS_BESIDE.get(path.suffix)
    return [path] if weights is None else [path, path.with_suffix(weights)]


def json_path(path: Path) -> Path:
    """FILE.json, beside FILE."""
    return path.with_name(path.name + ".json")


def write_json(path: Path, description: dict[str, Any], verification: dict[str, Any] | None) -> None:
    """Write FILE.json: the description, the hash of the file, and how the file was verified, once it was."""
    file = {"name": path.name, "sha256": file_sha256(parts(path)), "bytes": sum_bytes(path)}
    content = {**description, "file": file, "verification": verification}
    write_atomically(json_path(path), json.dumps(content, indent=1) + "\n")


def sum_bytes(path: Path) -> int:
    """Size of an exported model with all its parts."""
    return sum(part.stat().st_size for part in parts(path))


def read_json(path: Path) -> dict[str, Any] | None:
    """The description in FILE.json, where there is one.

    Raises:
        InputError: it is no JSON, or belongs to another file.
    """
    beside = json_path(path)
    if not beside.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        expected = content["file"]["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{beside}: not written by `detect export` ({error!r}); export again") from error
    found = file_sha256(parts(path))
    if found != expected:
        raise InputError(
            f"{beside} belongs to another file: it says sha256 {expected[:12]}..., {path.name} has "
            f"{found[:12]}...; one of them is stale, export again"
        )
    return {key: value for key, value in content.items() if key not in ("file", "verification")}


def read_description(path: Path, inside: str | None) -> dict[str, Any]:
    """The checked description of an exported file.

    Args:
        path: the exported file.
        inside: what its own metadata holds under `METADATA_KEY`; None where there is none.

    Raises:
        InputError: written by another program or a newer version, or the JSON beside it is another file's.
    """
    beside = read_json(path)
    if inside is None and beside is None:
        raise InputError(
            f"{path}: not exported by detect: no description in the file and no {json_path(path).name} "
            f"beside it; write it with `detect export`"
        )
    description: dict[str, Any] = json.loads(inside) if inside is not None else beside or {}
    if beside is not None and beside != description:
        raise InputError(
            f"{json_path(path)} differs from what {path.name} holds:\n{differences(beside, description)}"
        )
    description = migrate({"detect": description}, path)["detect"]
    form = description["export"]["form"]
    if form not in get_args(Form):
        raise InputError(f"{path}: form {form!r}; known are {', '.join(get_args(Form))}")
    return description


def check_graph(path: Path, description: dict[str, Any], found: dict[str, list[int | None]]) -> None:
    """Refuse a file whose graph is not the one that its description tells of.

    Args:
        path: the file, for the message.
        description: its checked description.
        found: shape of each input and output of the graph; None where it varies.

    Raises:
        InputError: names or shapes differ; with a table of the difference.
    """
    expected = expected_shapes(description)
    wrong = {
        name: (expected.get(name), found.get(name))
        for name in expected | found
        if not _fits(expected.get(name), found.get(name))
    }
    if wrong:
        rows = "\n".join(
            f"  {name}: described {want}, in the graph {have}" for name, (want, have) in wrong.items()
        )
        raise InputError(f"{path}: the graph is not the one that its description tells of:\n{rows}")


def expected_shapes(description: dict[str, Any]) -> dict[str, list[int | None]]:
    """Shapes of input and outputs; None for the batch and for the number of anchors where it is not told."""
    num_classes = len(description["classes"])
    anchors = description["export"]["anchors"]
    rows = None if anchors is None else len(anchors)
    most = description["postprocess"]["max_detections"]
    shapes: dict[str, list[int | None]] = {
        "images": [None, 3, *description["input"]["image_size"]],
        "cls_logits": [None, rows, num_classes + 1],
        "box_deltas": [None, rows, 4],
    }
    form = description["export"]["form"]
    if form == "decoded":
        shapes |= {"scores": [None, None, num_classes], "boxes": [None, None, 4]}
    elif form == "nms":
        shapes |= {"boxes": [None, most, 4], "scores": [None, most], "labels": [None, most], "counts": [None]}
    names: tuple[str, ...] = ("images", *OUTPUTS[form])
    return {name: shapes[name] for name in names}


def _fits(expected: list[int | None] | None, found: list[int | None] | None) -> bool:
    if expected is None or found is None or len(expected) != len(found):
        return False
    return all(e is None or f is None or e == f for e, f in zip(expected, found, strict=True))


def differences(one: Any, other: Any, key: str = "") -> str:
    """Where two plain values differ, a line each: `key: one | other`."""
    if isinstance(one, dict) and isinstance(other, dict):
        lines = [
            differences(one.get(name), other.get(name), f"{key}.{name}" if key else name)
            for name in one | other
            if one.get(name) != other.get(name)
        ]
        return "\n".join(lines)
    return f"  {key}: {_short(one)} | {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

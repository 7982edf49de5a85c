"""Decides what of a split is kept: every doubt is a `Finding`, nothing is dropped without one.

All tests are on whole arrays; a Python loop runs over images (their headers) and over what was found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.image import read_size
from detect.data.labels import Annotations
from detect.data.readers import RawAnnotations
from detect.errors import InputError

Severity = Literal["error", "warning", "note"]
SLIGHT_OVERHANG_PX = 1.0
"""Boxes that leave the image by less were rounded, not misplaced: noted, not warned of."""
HEADER_THREADS = 8
"""Headers are waited for more than worked on."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a data set, and what was done about it."""

    code: str
    severity: Severity
    file: str
    annotation: int | str | None
    """The data set's id of the annotation, or None where the finding is about a file."""
    detail: str
    action: str

    def __str__(self) -> str:
        place = self.file if self.annotation is None else f"{self.file}, annotation {self.annotation}"
        return f"{self.severity}: {self.code}: {place}: {self.detail}; {self.action}"


class CheckedImages(NamedTuple):
    """What is known of each image: (N,) whether it is kept, (N, 2) its upright height and width."""

    kept: NDArray[np.bool_]
    sizes: NDArray[np.int32]


def clean(raw: RawAnnotations) -> tuple[Annotations, list[Finding]]:
    """Keep what can be trained on and scored, and say what was not.

    Images without boxes are kept. Boxes are clipped to their image; a missing area becomes that of the box.

    Raises:
        InputError: no image is left; lists the first findings.
    """
    findings = _unread_files(raw)
    images = _check_images(raw, findings)
    boxes, kept_boxes = _check_boxes(raw, images, findings)
    annotations = _assemble(raw, images, boxes, kept_boxes)
    if len(annotations) == 0:
        raise InputError(f"no usable image in {raw.source.annotations}\n{summarise(findings)}")
    _note_annotations(raw, annotations, findings)
    return annotations, findings


def summarise(findings: Sequence[Finding], examples: int = 3) -> str:
    """A short text: a line for each code with its count, and the first examples under it."""
    if not findings:
        return "no findings"
    counts = Counter((finding.severity, finding.code, finding.action) for finding in findings)
    first: defaultdict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        group = first[finding.severity, finding.code, finding.action]
        if len(group) < examples:
            group.append(finding)
    lines = []
    for key in sorted(counts, key=lambda key: (("error", "warning", "note").index(key[0]), key[1:])):
        severity, code, action = key
        lines.append(f"{severity}: {code} x {counts[key]}: {action}")
        for finding in first[key]:
            place = "" if finding.annotation is None else f", annotation {finding.annotation}"
            lines.append(f"    {finding.file}{place}: {finding.detail}")
        if counts[key] > len(first[key]):
            lines.append(f"    and {counts[key] - len(first[key])} more")
    return "\n".join(lines)


def _unread_files(raw: RawAnnotations) -> list[Finding]:
    return [
        Finding("annotation-unreadable", "error", file, None, reason, "image dropped")
        for file, reason in raw.unread
    ]


def _check_images(raw: RawAnnotations, findings: list[Finding]) -> CheckedImages:
    """Headers against annotations; a repeated id keeps its first image."""
    names = [name.decode() for name in raw.file_names]
    sizes, failures = _read_sizes([raw.source.images / name for name in names])
    kept = sizes[:, 0] > 0
    for row, reason in failures.items():
        code = "image-unreadable" if (raw.source.images / names[row]).is_file() else "image-missing"
        findings.append(Finding(code, "error", names[row], None, reason, "image dropped"))
    for row in np.flatnonzero(_repeats(raw.image_ids)).tolist():
        detail = f"image id {_plain(raw.image_ids[row])!r} is used before"
        findings.append(Finding("image-id-repeated", "error", names[row], None, detail, "image dropped"))
        kept[row] = False
    for row in np.flatnonzero(_repeats(raw.file_names) & kept).tolist():
        detail = f"image id {_plain(raw.image_ids[row])!r} names a file that another image names too"
        findings.append(Finding("image-file-repeated", "warning", names[row], None, detail, "kept twice"))
    stated = (raw.sizes > 0).all(axis=1)
    for row in np.flatnonzero(kept & stated & (raw.sizes != sizes).any(axis=1)).tolist():
        (height, width), (file_height, file_width) = raw.sizes[row], sizes[row]
        detail = f"annotated as {width} x {height} px, the upright file has {file_width} x {file_height}"
        findings.append(
            Finding("image-size-differs", "warning", names[row], None, detail, "the file's size is used")
        )
    return CheckedImages(kept, sizes)


def _read_sizes(paths: list[Path]) -> tuple[NDArray[np.int32], dict[int, str]]:
    """(N, 2) upright sizes, 0 where a header cannot be read, and the reasons by row."""

    def attempt(path: Path) -> tuple[int, int] | str:
        try:
            return read_size(path)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        answers = list(pool.map(attempt, paths, chunksize=64))
    failures = {row: answer for row, answer in enumerate(answers) if isinstance(answer, str)}
    sizes = [(0, 0) if isinstance(answer, str) else answer for answer in answers]
    return np.array(sizes, dtype=np.int32).reshape(-1, 2), failures


def _check_boxes(
    raw: RawAnnotations, images: CheckedImages, findings: list[Finding]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(M, 4) boxes cut to their images, and (M,) which of them are kept."""
    width_height = images.sizes[:, ::-1].astype(np.float64)
    known = raw.image_rows >= 0
    limits = np.zeros((len(raw.boxes), 2))
    if len(width_height):
        limits = np.where(known[:, None], width_height[raw.image_rows], 0.0)
    boxes = np.clip(raw.boxes, 0, np.tile(limits, 2))
    finite = np.isfinite(raw.boxes).all(axis=1)
    with np.errstate(invalid="ignore"):
        has_area = (raw.boxes[:, 2:] > raw.boxes[:, :2]).all(axis=1)
        overhang = np.abs(boxes - raw.boxes).max(axis=1, initial=0)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    box_text = _BoxText(raw, images)
    kept = np.ones(len(raw.boxes), dtype=np.bool_)
    for good, code, detail in (
        (known, "image-id-unknown", box_text.image_id),
        (raw.labels > 0, "category-unknown", box_text.category),
        (finite, "box-not-a-number", box_text.box),
        (has_area, "box-without-area", box_text.box),
    ):
        findings += _box_findings(raw, np.flatnonzero(kept & ~good), code, detail)
        kept &= good
    kept &= images.kept[raw.image_rows]  # their image has a finding already
    findings += _box_findings(raw, np.flatnonzero(kept & ~inside), "box-outside", box_text.box_and_size)
    kept &= inside
    cuts: tuple[tuple[Severity, NDArray[np.bool_]], ...] = (
        ("warning", overhang >= SLIGHT_OVERHANG_PX),
        ("note", (overhang > 0) & (overhang < SLIGHT_OVERHANG_PX)),
    )
    for severity, cut in cuts:
        findings += _box_findings(
            raw,
            np.flatnonzero(kept & cut),
            "box-clipped",
            box_text.box_and_size,
            severity,
            "clipped to the image",
        )
    return boxes, kept


class _BoxText(NamedTuple):
    """Words for what is wrong with one box."""

    raw: RawAnnotations
    images: CheckedImages

    def image_id(self, row: int) -> str:
        return f"no image has the id {_plain(self.raw.box_image_ids[row])!r}"

    def category(self, row: int) -> str:
        return f"no category {_plain(self.raw.box_category_ids[row])!r}; there are {_shortened(self.raw)}"

    def box(self, row: int) -> str:
        x0, y0, x1, y1 = self.raw.boxes[row]
        return f"xmin {x0:g}, ymin {y0:g}, xmax {x1:g}, ymax {y1:g}"

    def box_and_size(self, row: int) -> str:
        height, width = self.images.sizes[self.raw.image_rows[row]]
        return f"{self.box(row)} in an image of {width} x {height} px"


def _shortened(raw: RawAnnotations, most: int = 8) -> str:
    ids = raw.classes.category_ids
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(str(category_id) for category_id in ids[:most]) + more


def _box_findings(
    raw: RawAnnotations,
    rows: NDArray[np.intp],
    code: str,
    detail: Callable[[int], str],
    severity: Severity = "error",
    action: str = "box dropped",
) -> list[Finding]:
    return [
        Finding(code, severity, _box_file(raw, row), _plain(raw.annotation_ids[row]), detail(row), action)
        for row in rows.tolist()
    ]


def _box_file(raw: RawAnnotations, row: int) -> str:
    """The annotation file, and the image too where one file annotates many."""
    image_row = int(raw.image_rows[row])
    if image_row < 0:
        return raw.annotation_file(0)
    if len(raw.annotation_files) == len(raw.file_names) > 1:
        return raw.annotation_file(image_row)
    return raw.file_names[image_row].decode()


def _assemble(
    raw: RawAnnotations, images: CheckedImages, boxes: NDArray[np.float64], kept: NDArray[np.bool_]
) -> Annotations:
    """Gather each image's boxes in one run of rows, in the file's order."""
    new_rows = np.cumsum(images.kept) - 1
    box_rows = np.flatnonzero(kept)
    image_rows = new_rows[raw.image_rows[box_rows]]
    order = np.argsort(image_rows, kind="stable")
    box_rows, image_rows = box_rows[order], image_rows[order]
    count = int(images.kept.sum())
    boxes = boxes[box_rows]
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    areas = raw.areas[box_rows]
    return Annotations(
        root=raw.source.images,
        source=raw.source.annotations,
        classes=raw.classes,
        file_names=raw.file_names[images.kept],
        image_ids=raw.image_ids[images.kept],
        sizes=images.sizes[images.kept],
        offsets=np.searchsorted(image_rows, np.arange(count + 1)).astype(np.int64),
        boxes=boxes,
        labels=raw.labels[box_rows],
        ignore=raw.ignore[box_rows],
        areas=np.where(np.isnan(areas), box_areas, areas),
        annotation_ids=raw.annotation_ids[box_rows],
    )


def _note_annotations(raw: RawAnnotations, annotations: Annotations, findings: list[Finding]) -> None:
    """What drops nothing: repeated annotation ids, absent fields, classes that no box has."""
    source = str(annotations.source)
    if len(raw.annotation_files) != len(raw.file_names) or len(raw.file_names) == 1:
        for row in np.flatnonzero(_repeats(raw.annotation_ids)).tolist():
            findings.append(
                Finding(
                    "annotation-id-repeated",
                    "warning",
                    _box_file(raw, row),
                    _plain(raw.annotation_ids[row]),
                    "the id is used before",
                    "kept; evaluation numbers the boxes anew",
                )
            )
    filled = {"area": "filled in with width x height of the box", "iscrowd": "taken as 0"}
    for name, count in raw.missing_fields:
        if count:
            detail = f"{count} of {len(raw.boxes)} annotations have no {name!r}"
            findings.append(Finding("field-missing", "note", source, None, detail, filled[name]))
    counts = np.bincount(annotations.labels, minlength=annotations.classes.num_classes + 1)[1:]
    unused = [name for name, count in zip(annotations.classes.names, counts, strict=True) if count == 0]
    if unused:
        detail = f"no box of {len(unused)} of {len(counts)} classes: {', '.join(unused[:8])}" + ", ..." * (
            len(unused) > 8
        )
        findings.append(Finding("class-without-boxes", "note", source, None, detail, "kept"))


def _repeats(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(N,) whether an equal value stands before."""
    _, first = np.unique(values, return_index=True)
    repeated = np.ones(len(values), dtype=np.bool_)
    repeated[first] = False
    return repeated


def _plain(value: np.generic) -> int | str:
    return value.decode() if isinstance(value, bytes) else int(value)

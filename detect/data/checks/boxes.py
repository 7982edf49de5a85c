"""Decides what of a split is kept: every doubt is a `Finding`, nothing is dropped without one.

All tests are on whole arrays; a Python loop runs over images (their headers) and over what was found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.checks.conventions import better_convention, from_corners, is_normalised
from detect.data.checks.findings import Finding, Severity, summarise
from detect.data.checks.headers import CheckedImages, check_images, plain, repeats
from detect.data.images.orientation import turn_boxes
from detect.data.readers import RawAnnotations
from detect.errors import InputError

SLIGHT_OVERHANG_PX = 1.0
"""Boxes that leave the image by less were rounded, not misplaced: noted, not warned of."""
HUGE_RATIO = 2.0
"""A box this many times as wide or as high as its image holds numbers of something else; cut to the image it
would claim all of it."""


def clean(raw: RawAnnotations) -> tuple[Annotations, list[Finding]]:
    """Keep what can be trained on and scored, and say what was not.

    Images without boxes are kept. Boxes that overhang their image keep the file's numbers, which evaluation
    needs as they are; training clips them. A missing area becomes that of the box.

    Raises:
        InputError: no image is left; lists the first findings. Or the boxes fit another convention.
    """
    findings = [
        Finding("annotation-unreadable", "error", file, None, reason, "image dropped")
        for file, reason in raw.unread
    ]
    findings += raw.notes
    images = check_images(raw, findings)
    in_pixels = boxes_in_pixels(raw, images)
    refuse_other_convention(raw, images)
    kept = _check_boxes(raw, in_pixels, images, findings)
    annotations = assemble(raw, images, in_pixels, kept)
    if len(annotations) == 0:
        raise InputError(f"no usable image in {raw.source.annotations}\n{summarise(findings)}")
    _note_annotations(raw, annotations, findings)
    return annotations, findings


def boxes_in_pixels(raw: RawAnnotations, images: CheckedImages) -> NDArray[np.float64]:
    """(M, 4) xyxy px of the upright images; boxes of unknown images stay as they are."""
    boxes, rows = raw.boxes, raw.image_rows
    if not len(images.kept):
        return boxes
    if is_normalised(raw.convention):
        frames = np.where((images.turns > 1)[:, None], images.stored, images.sizes)
        with np.errstate(invalid="ignore", over="ignore"):
            boxes = boxes * np.tile(frames[rows, ::-1], 2)
    turned = np.flatnonzero((rows >= 0) & (images.turns[rows] > 1))
    if len(turned):
        boxes = boxes.copy()
        boxes[turned] = turn_boxes(boxes[turned], images.turns[rows[turned]], images.stored[rows[turned]])
    return boxes


def refuse_other_convention(raw: RawAnnotations, images: CheckedImages) -> None:
    """Stop where the boxes fit into their images by another rule than the format's, unless it was given.

    Raises:
        InputError: they do; shows an example and what to do.
    """
    if raw.source.convention is not None:
        return
    usable = np.flatnonzero((raw.image_rows >= 0) & np.isfinite(raw.boxes).all(axis=1))
    usable = usable[images.kept[raw.image_rows[usable]]] if len(usable) else usable
    numbers = from_corners(raw.boxes[usable], raw.convention)
    frames = np.where((images.turns > 1)[:, None], images.stored, images.sizes)
    limits = frames[raw.image_rows[usable], ::-1].astype(np.float64)
    found = better_convention(numbers, limits, raw.convention) if len(usable) else None
    if found is None:
        return
    own, best = found
    row = int(np.argmax(own.misfits))
    values = ", ".join(f"{value:g}" for value in numbers[row])
    width, height = limits[row]
    raise InputError(
        f"the boxes of {raw.source.annotations} look like {best.convention}, not {own.convention}: read as "
        f"{own.convention}, {own.share:.1%} of them do not fit into their images, as {best.convention} "
        f"{best.share:.1%}. For example {_box_file(raw, int(usable[row]))}, annotation "
        f"{plain(raw.annotation_ids[usable[row]])}: {values} in an image of {width:g} x {height:g} px. Read "
        f"them so with --data.box_convention {best.convention}, rewrite them with `detect data convert "
        f"--box_convention {best.convention}`, or give --data.box_convention {own.convention} where they are "
        "right as they are"
    )


def readable_boxes(raw: RawAnnotations, images: CheckedImages, findings: list[Finding]) -> NDArray[np.bool_]:
    """(M,) boxes that say where they are, what they are, and in which image. Appends to `findings`."""
    box_text = _BoxText(raw, images, boxes_in_pixels(raw, images))
    kept = np.ones(len(raw.boxes), dtype=np.bool_)
    for good, code, detail in (
        (raw.image_rows >= 0, "image-id-unknown", box_text.image_id),
        (raw.labels > 0, "category-unknown", box_text.category),
        (np.isfinite(raw.boxes).all(axis=1), "box-not-a-number", box_text.box),
    ):
        findings += _box_findings(box_text, np.flatnonzero(kept & ~good), code, detail)
        kept &= good
    return kept


def _check_boxes(
    raw: RawAnnotations, in_pixels: NDArray[np.float64], images: CheckedImages, findings: list[Finding]
) -> NDArray[np.bool_]:
    """(M,) which boxes are kept."""
    width_height = images.sizes[:, ::-1].astype(np.float64)
    known = raw.image_rows >= 0
    limits = np.zeros((len(raw.boxes), 2))
    if len(width_height):
        limits = np.where(known[:, None], width_height[raw.image_rows], 0.0)
    boxes = np.clip(in_pixels, 0, np.tile(limits, 2))
    finite = np.isfinite(in_pixels).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        # In the file's own numbers: scaling and turning them may round a width of nothing to something.
        has_area = (raw.boxes[:, 2:] > raw.boxes[:, :2]).all(axis=1)
        overhang = np.abs(boxes - in_pixels).max(axis=1, initial=0)
        huge = (in_pixels[:, 2:] - in_pixels[:, :2] > HUGE_RATIO * limits).any(axis=1)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    box_text = _BoxText(raw, images, in_pixels)
    kept = readable_boxes(raw, images, findings)
    findings += _box_findings(box_text, np.flatnonzero(kept & ~has_area), "box-without-area", box_text.box)
    kept &= has_area
    if len(images.kept):
        kept &= images.kept[raw.image_rows]  # their image has a finding already
    for good, code in ((inside & finite, "box-outside"), (~huge, "box-huge")):
        findings += _box_findings(box_text, np.flatnonzero(kept & ~good), code, box_text.box_and_size)
        kept &= good
    cuts: tuple[tuple[Severity, NDArray[np.bool_]], ...] = (
        ("warning", overhang >= SLIGHT_OVERHANG_PX),
        ("note", (overhang > 0) & (overhang < SLIGHT_OVERHANG_PX)),
    )
    for severity, cut in cuts:
        findings += _box_findings(
            box_text,
            np.flatnonzero(kept & cut),
            "box-clipped",
            box_text.box_and_size,
            severity,
            "clipped to the image in training, scored as it is",
        )
    return kept


class _BoxText(NamedTuple):
    """Words for what is wrong with one box."""

    raw: RawAnnotations
    images: CheckedImages
    in_pixels: NDArray[np.float64]

    def image_id(self, row: int) -> str:
        return f"no image has the id {plain(self.raw.box_image_ids[row])!r}"

    def category(self, row: int) -> str:
        return f"no category {plain(self.raw.box_category_ids[row])!r}; there are {_shortened(self.raw)}"

    def image(self, row: int) -> str | None:
        """The path of the box's image, where it has one that can be opened."""
        image_row = int(self.raw.image_rows[row])
        if image_row < 0 or not self.images.kept[image_row]:
            return None
        return str(self.raw.source.images / self.raw.file_names[image_row].decode())

    def box(self, row: int) -> str:
        return _corners(self.raw.boxes[row])

    def box_and_size(self, row: int) -> str:
        height, width = self.images.sizes[self.raw.image_rows[row]]
        return f"{_corners(self.in_pixels[row])} in an image of {width} x {height} px"


def _corners(box: NDArray[np.float64]) -> str:
    x0, y0, x1, y1 = box
    return f"xmin {x0:g}, ymin {y0:g}, xmax {x1:g}, ymax {y1:g}"


def _shortened(raw: RawAnnotations, most: int = 8) -> str:
    ids = raw.classes.category_ids
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(str(category_id) for category_id in ids[:most]) + more


def _box_findings(
    text: _BoxText,
    rows: NDArray[np.intp],
    code: str,
    detail: Callable[[int], str],
    severity: Severity = "error",
    action: str = "box dropped",
) -> list[Finding]:
    raw = text.raw
    return [
        Finding(
            code,
            severity,
            _box_file(raw, row),
            plain(raw.annotation_ids[row]),
            detail(row),
            action,
            image=text.image(row),
            box=text.in_pixels[row].tolist() if np.isfinite(text.in_pixels[row]).all() else None,
        )
        for row in rows.tolist()
    ]


def _box_file(raw: RawAnnotations, row: int) -> str:
    """The annotation file, and the image too where one file annotates many."""
    image_row = int(raw.image_rows[row])
    if image_row < 0:
        return raw.annotation_file(0)
    if raw.file_per_image:
        return raw.annotation_file(image_row)
    return raw.file_names[image_row].decode()


def assemble(
    raw: RawAnnotations, images: CheckedImages, boxes: NDArray[np.float64], kept: NDArray[np.bool_]
) -> Annotations:
    """Gather each image's boxes in one run of rows, in the file's order.

    Args:
        raw: the files' rows.
        images: which images are kept, and their sizes.
        boxes: (M, 4) xyxy px of the upright image.
        kept: (M,) boxes to keep; all of kept images and known classes.
    """
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
        areas=np.where(np.isfinite(areas) & (areas >= 0), areas, box_areas),
        annotation_ids=raw.annotation_ids[box_rows],
    )


def _note_annotations(raw: RawAnnotations, annotations: Annotations, findings: list[Finding]) -> None:
    """What drops nothing: repeated annotation ids, absent fields, classes that no box has."""
    source = str(annotations.source)
    if not raw.file_per_image:
        for row in np.flatnonzero(repeats(raw.annotation_ids)).tolist():
            findings.append(
                Finding(
                    "annotation-id-repeated",
                    "warning",
                    _box_file(raw, row),
                    plain(raw.annotation_ids[row]),
                    "the id is used before",
                    "kept; evaluation renumbers the boxes",
                )
            )
    filled = {
        "area": "filled in with width x height of the box",
        "iscrowd": "taken as 0",
        "bbox": "taken from the polygons",
    }
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

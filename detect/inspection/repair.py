"""`detect data check --fix`: a copy of a data set without what is wrong with it, counted by code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detect.data.annotations import Annotations, without_boxes
from detect.data.checks.boxes import clean
from detect.data.checks.conventions import BoxConvention
from detect.data.checks.duplicates import duplicate_boxes
from detect.data.checks.findings import Finding
from detect.data.checks.splits import drop_undecodable, repeated_boxes
from detect.data.convert import Format, choose_splits, write_copy
from detect.data.readers import RawAnnotations
from detect.data.splits import recognise
from detect.errors import InputError
from detect.inspection.data_check import Located, merge
from detect.system.output_folder import ImagePlacement, new_folder

REPAIRED_WITHOUT_A_DROP = {
    "annotation-id-repeated": "renumbered",
    "box-clipped": "clipped to the image",
    "box-repeated": "dropped, the first is kept",
    "exif-boxes-turned": "boxes turned with the image",
    "field-missing": "filled in",
    "image-size-differs": "the file's size written",
}
"""Warnings and notes that the copy no longer has; of errors, what each says was dropped."""


@dataclass(frozen=True)
class Repair:
    """What was written, and what it no longer has."""

    format: Format
    images: int
    boxes: int
    repaired: dict[tuple[str, str], int]
    """(code, what was done) to the number of findings."""
    left: dict[str, int]
    """Number of findings by code that only a person can decide about."""


def repair(
    root: Path,
    output: Path,
    *,
    splits: list[str] | None = None,
    images: ImagePlacement = "link",
    voc_one_based: bool | None = None,
    box_convention: BoxConvention | None = None,
) -> Repair:
    """Write the data set in `root` without its faults into the folder `output`, whole or not at all.

    What cannot be used is left out, boxes are cut to their images, repeated boxes (IoU > 0.95, same class)
    go, and what else is missing or wrong is written as it is used. Images that repeat, inside a split or
    across, stay: a person decides which of them to remove.

    Args:
        root: folder of a data set whose format is recognised; only read.
        output: a folder that does not exist yet or is empty, outside of `root`.
        splits: which to write; None: all that are found.
        images: "link" makes hard links where it can.
        voc_one_based: VOC: subtract 1 from xmin and ymin; None: for the official sets.
        box_convention: how the files write boxes; None: as their format says, unless that cannot be.

    Raises:
        InputError: no format is recognised, `output` holds something, or a split cannot be used at all.
    """
    reader = recognise(root)
    data_format: Format = reader.NAME  # type: ignore[assignment]  # every reader has a writer of its name
    found: list[Located] = []
    contents = {}
    with new_folder(output, root) as folder:
        for split in choose_splits(reader, root, splits):
            source = reader.locate(root, split)
            source = source._replace(voc_one_based=voc_one_based, convention=box_convention)
            contents[split], findings = _usable(reader.read(source))
            found += [Located((split,), finding) for finding in findings]
        write_copy(folder, contents, data_format, images)
    num_images = sum(len(content) for content in contents.values())
    num_boxes = sum(len(content.boxes) for content in contents.values())
    return Repair(data_format, num_images, num_boxes, *_count(merge(found)))


def _usable(raw: RawAnnotations) -> tuple[Annotations, list[Finding]]:
    """What the copy has of a split, and all that was found in it."""
    annotations, findings = clean(raw)
    content, undecodable = drop_undecodable(annotations)
    if len(content) == 0:
        raise InputError(f"no usable image in {content.source}: none of its files can be decoded")
    return without_faults(content), [*findings, *undecodable, *repeated_boxes(content)]


def _count(found: list[Located]) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """`Repair.repaired` and `Repair.left`."""
    repaired: Counter[tuple[str, str]] = Counter()
    left: Counter[str] = Counter()
    for _, finding in found:
        if finding.severity == "error":
            repaired[finding.code, finding.action] += 1
        elif finding.code in REPAIRED_WITHOUT_A_DROP:
            repaired[finding.code, REPAIRED_WITHOUT_A_DROP[finding.code]] += 1
        else:
            left[finding.code] += 1
    return dict(sorted(repaired.items())), dict(sorted(left.items()))


def without_faults(content: Annotations) -> Annotations:
    """Boxes cut to their images, without those that repeat another; areas no larger than their boxes."""
    boxes = content.clipped_boxes()
    sizes = boxes[:, 2:] - boxes[:, :2]
    content = replace(content, boxes=boxes, areas=np.minimum(content.areas, sizes.prod(axis=1)))
    rows = np.flatnonzero(~content.ignore)
    image_rows = np.repeat(np.arange(len(content)), np.diff(content.offsets))
    repeats = duplicate_boxes(boxes[rows], content.labels[rows], image_rows[rows])
    repeated = np.zeros(len(boxes), dtype=np.bool_)
    repeated[rows[repeats >= 0]] = True
    return without_boxes(content, repeated)

"""`detect data convert`: a data set in another format, with every box that its files describe.

Nothing is checked and nothing repaired here (that is `check --fix`): a box without area stays one. Only what
the format cannot express is left out, with a finding: boxes without numbers, class or image, and images whose
file cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from rich.console import Console
from rich.progress import track

from detect.data.annotations import Annotations
from detect.data.checks.boxes import assemble, boxes_in_pixels, readable_boxes, refuse_other_convention
from detect.data.checks.conventions import BoxConvention
from detect.data.checks.findings import Finding
from detect.data.checks.headers import check_images
from detect.data.readers import RawAnnotations, Reader
from detect.data.splits import recognise
from detect.data.writers import Writer, coco, voc, yolo
from detect.errors import InputError
from detect.system.output_folder import ImagePlacement, new_folder, place_image
from detect.types import ClassMap

Format = Literal["coco", "voc", "yolo"]
WRITERS: dict[Format, Writer] = {
    "coco": cast(Writer, coco),
    "voc": cast(Writer, voc),
    "yolo": cast(Writer, yolo),
}
SPLIT_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    source_format: str
    format: Format
    splits: dict[str, str]
    """What each split is called in the copy."""
    images: int
    boxes: int
    findings: list[Finding]
    """What could not be written."""


def convert(
    root: Path,
    to: Format,
    *,
    output: Path,
    splits: list[str] | None = None,
    images: ImagePlacement = "link",
    voc_one_based: bool | None = None,
    box_convention: BoxConvention | None = None,
) -> Conversion:
    """Write the data set in `root` in another format into the folder `output`, whole or not at all.

    Args:
        root: folder of a data set whose format is recognised; only read.
        to: the format to write.
        output: a folder that does not exist yet or is empty, outside of `root`.
        splits: which to write; None: all that are found.
        images: "link" makes hard links where it can: the images then share their bytes with the originals.
        voc_one_based: VOC: subtract 1 from xmin and ymin; None: for the official sets.
        box_convention: how the files write boxes; None: as their format says, unless that cannot be.

    Raises:
        InputError: no format is recognised, `output` holds something, a split does not exist, its files
            cannot be read, or its boxes fit another convention.
    """
    assert to in get_args(Format)
    reader = recognise(root)
    findings: list[Finding] = []
    contents = {}
    with new_folder(output, root) as folder:
        for split in choose_splits(reader, root, splits):
            source = reader.locate(root, split)
            source = source._replace(voc_one_based=voc_one_based, convention=box_convention)
            contents[split] = keep_readable(reader.read(source), findings)
        names = write_copy(folder, contents, to, images)
    return Conversion(
        source_format=reader.NAME,
        format=to,
        splits=names,
        images=sum(len(content) for content in contents.values()),
        boxes=sum(len(content.boxes) for content in contents.values()),
        findings=findings,
    )


def keep_readable(raw: RawAnnotations, findings: list[Finding]) -> Annotations:
    """What the files say, upright and in px, unclipped; appends to `findings` what cannot be said.

    Raises:
        InputError: the boxes fit another convention.
    """
    findings += [
        Finding("annotation-unreadable", "error", file, None, reason, "image dropped")
        for file, reason in raw.unread
    ]
    images = check_images(raw, findings)
    refuse_other_convention(raw, images)
    kept = readable_boxes(raw, images, findings)
    if len(images.kept):
        kept &= images.kept[raw.image_rows]
    return assemble(raw, images, boxes_in_pixels(raw, images), kept)


def write_copy(
    folder: Path, contents: dict[str, Annotations], to: Format, images: ImagePlacement
) -> dict[str, str]:
    """Write splits into the empty `folder`, with their images; returns what each is called there.

    Raises:
        InputError: a class name cannot be written in this format.
    """
    contents = _with_common_classes(contents)
    names = WRITERS[to].split_names(list(contents))
    written = {names[split]: content for split, content in contents.items()}
    places = WRITERS[to].write(folder, written)
    for split, content in written.items():
        _place_images(folder, content, places[split], images)
    return names


def choose_splits(reader: Reader, root: Path, wanted: list[str] | None) -> list[str]:
    """The splits to write, which are there and whose names can be those of folders.

    Raises:
        InputError: one is neither, or there are none.
    """
    found = reader.find_splits(root)
    chosen = found if wanted is None else wanted
    for split in chosen:
        if split not in found:
            raise InputError(f"{root} ({reader.NAME}) has no split {split!r}; it has {', '.join(found)}")
        if not SPLIT_NAME.fullmatch(split):
            raise InputError(
                f"the split name {split!r} cannot be that of a folder; leave it out with --split"
            )
    if not chosen:
        raise InputError(f"{root} ({reader.NAME}) has no splits")
    return chosen


def _with_common_classes(contents: dict[str, Annotations]) -> dict[str, Annotations]:
    """The same classes for all splits, in the order in which they first come; under their ids if they can."""
    if len({content.classes for content in contents.values()}) == 1:
        return contents
    ids: dict[str, int | str] = {}
    for content in contents.values():
        for name, category_id in zip(content.classes.names, content.classes.category_ids, strict=True):
            ids.setdefault(name, category_id)
    if len(set(ids.values())) < len(ids):
        ids = {name: number for number, name in enumerate(ids, 1)}
    classes = ClassMap(tuple(ids), tuple(ids.values()))
    label_of = {name: label for label, name in enumerate(classes.names, 1)}
    common = {}
    for split, content in contents.items():
        labels = np.array([0] + [label_of[name] for name in content.classes.names])
        common[split] = replace(content, classes=classes, labels=labels[content.labels])
    return common


def _place_images(folder: Path, annotations: Annotations, places: list[str], how: ImagePlacement) -> None:
    hidden = not Console().is_terminal
    for row, place in enumerate(track(places, description="images", transient=True, disable=hidden)):
        if not (folder / place).exists():  # an image of several splits lies there already
            place_image(annotations.path(row), folder / place, how)

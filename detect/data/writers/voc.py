"""Pascal VOC folders: `Annotations/`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`, `labels.txt` for the order.

Numbers are written as they are, not counted from 1: only the official sets are read that way by themselves.
A crowd becomes `difficult`, the nearest that VOC has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from detect.data.annotations import Annotations
from detect.data.readers.voc import LABELS_FILE
from detect.data.writers import FileNames, require_plain_names, short


class VocObject(NamedTuple):
    """A box and what it holds."""

    name: str
    """The class."""
    box: Sequence[float]
    """xyxy px."""
    difficult: bool = False


def split_names(splits: list[str]) -> dict[str, str]:
    """Any name will do."""
    return {split: split for split in splits}


def write(folder: Path, splits: dict[str, Annotations]) -> dict[str, list[str]]:
    """One XML file per image, also where it is in several splits, and a list of ids per split.

    Raises:
        InputError: a class name cannot be written.
    """
    for place in ("Annotations", "JPEGImages"):
        (folder / place).mkdir()
    file_names, places = FileNames(), {}
    for split, content in splits.items():
        require_plain_names(content.classes.names, "VOC")
        names = file_names.of_split(content)
        for row, name in enumerate(names):
            xml_file = (folder / "Annotations" / name).with_suffix(".xml")
            xml = xml_text(name, content.sizes[row].tolist(), _objects(content, row), folder="JPEGImages")
            xml_file.write_text(xml, encoding="utf-8")
        write_list(folder, split, [Path(name).stem for name in names])
        (folder / LABELS_FILE).write_text("\n".join(content.classes.names) + "\n", encoding="utf-8")
        places[split] = [f"JPEGImages/{name}" for name in names]
    return places


def write_list(folder: Path, split: str, ids: Iterable[str]) -> None:
    """The list that makes images a split, by their names without suffix."""
    place = folder / "ImageSets" / "Main"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")


def xml_text(
    name: str, size: Sequence[int], objects: Iterable[VocObject], *, folder: str | None = None
) -> str:
    """The annotation file of an image.

    Args:
        name: of the image's file.
        size: (H, W) in px.
        objects: on it.
        folder: that holds the image; None leaves it out.
    """
    height, width = size
    place = "" if folder is None else f"  <folder>{escape(folder)}</folder>\n"
    return (
        f"<annotation>\n{place}  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{''.join(map(_object_text, objects))}</annotation>\n"
    )


def _objects(annotations: Annotations, row: int) -> Iterator[VocObject]:
    rows = annotations.rows(row)
    names = map(annotations.classes.name, annotations.labels[rows].tolist())
    return map(VocObject, names, annotations.boxes[rows].tolist(), annotations.ignore[rows].tolist())


def _object_text(thing: VocObject) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True)
    numbers = "".join(f"<{corner}>{short(value)}</{corner}>" for corner, value in corners)
    return (
        f"  <object>\n    <name>{escape(thing.name)}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>0</truncated>\n    <difficult>{int(thing.difficult)}</difficult>\n"
        f"    <bndbox>{numbers}</bndbox>\n  </object>\n"
    )

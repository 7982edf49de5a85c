"""Pascal VOC folders: `Annotations/`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`, `labels.txt` for the order.

Numbers are written as they are, not counted from 1: only the official sets are read that way by themselves.
A crowd becomes `difficult`, the nearest that VOC has.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from detect.data.annotations import Annotations
from detect.data.readers.voc import LABELS_FILE
from detect.data.writers import FileNames, require_plain_names, short


def split_names(splits: list[str]) -> dict[str, str]:
    """Any name will do."""
    return {split: split for split in splits}


def write(folder: Path, splits: dict[str, Annotations]) -> dict[str, list[str]]:
    """One XML an image, though it be in several splits, and a list of ids a split.

    Raises:
        InputError: a class name cannot be written.
    """
    lists = folder / "ImageSets" / "Main"
    for place in (folder / "Annotations", folder / "JPEGImages", lists):
        place.mkdir(parents=True)
    file_names, places = FileNames(), {}
    for split, content in splits.items():
        require_plain_names(content.classes.names, "VOC")
        names = file_names.of_split(content)
        for row, name in enumerate(names):
            xml_file = (folder / "Annotations" / name).with_suffix(".xml")
            xml_file.write_text(_xml(content, row, name), encoding="utf-8")
        ids = [Path(name).stem for name in names]
        (lists / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
        (folder / LABELS_FILE).write_text("\n".join(content.classes.names) + "\n", encoding="utf-8")
        places[split] = [f"JPEGImages/{name}" for name in names]
    return places


def _xml(annotations: Annotations, row: int, name: str) -> str:
    height, width = annotations.sizes[row].tolist()
    rows = annotations.rows(row)
    objects = "".join(
        _object(annotations.classes.name(label), box, bool(ignore))
        for label, box, ignore in zip(
            annotations.labels[rows].tolist(),
            annotations.boxes[rows].tolist(),
            annotations.ignore[rows].tolist(),
            strict=True,
        )
    )
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(name: str, box: list[float], difficult: bool) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    numbers = "".join(f"<{corner}>{short(value)}</{corner}>" for corner, value in corners)
    return (
        f"  <object>\n    <name>{escape(name)}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>0</truncated>\n    <difficult>{int(difficult)}</difficult>\n"
        f"    <bndbox>{numbers}</bndbox>\n  </object>\n"
    )

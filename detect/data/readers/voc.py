"""Pascal VOC folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`.

Boxes are the file's own numbers. The devkit counts pixels from 1; `voc_one_based` subtracts that 1 from
xmin and ymin (xmax and ymax then are the right and lower edge), by itself for the official sets alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from detect.data.checks.conventions import to_corners
from detect.data.checks.findings import Finding
from detect.data.readers import (
    IMAGE_SUFFIXES,
    UNDIVIDED,
    RawAnnotations,
    SplitSource,
    byte_array,
    find_rows,
    plain_text,
    read_bytes_of_file,
    read_text_file,
)
from detect.data.readers.tails import SPLIT_FOLDERS, Tails
from detect.errors import InputError
from detect.types import ClassMap

NAME = "voc"
LAYOUT = "Annotations/, JPEGImages/, ImageSets/Main/SPLIT.txt, or images and VOC's XML files in any folders"
LABELS_FILE = "labels.txt"
"""One class name a line, beside `Annotations`: sets the order; otherwise names are sorted."""
MAX_XML_MB = 4.0
"""Largest XML file: room for more than 10,000 objects. A parsed file takes 50 times its size in memory."""
MAX_LIST_MB = 256.0
ANNOTATION_ELEMENT = re.compile(rb"<annotation[\s>]")
HEAD_BYTES = 4096
"""Of an XML file, in which its first element stands."""
OFFICIAL_FOLDER = re.compile(r"VOC20\d\d")
OFFICIAL_DATABASE = re.compile(r"The VOC20\d\d Database")


class VocObject(NamedTuple):
    """One <object> of an XML file."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocFile(NamedTuple):
    """One XML file; `height` and `width` are 0 where it does not say."""

    filename: str
    """The image that it names; "" where it does not say."""
    height: int
    width: int
    database: str
    objects: list[VocObject]


def recognises(root: Path) -> bool:
    """Whether `root` holds `Annotations` with XML files, and `JPEGImages`."""
    return (root / "JPEGImages").is_dir() and any((root / "Annotations").rglob("*.xml"))


def recognises_loosely(root: Path) -> bool:
    """Whether VOC's XML files lie anywhere in `root`."""
    return any(_is_annotation(path) for path in _xml_below(root))


def find_splits(root: Path) -> list[str]:
    """The lists in `ImageSets/Main`, sorted, without the official sets' lists of one class (`cat_train`).

    Without lists: the folders `train`, `valid` and so on that XML files lie in, else one split of all.
    """
    names = {path.stem for path in _lists(root).glob("*.txt")}
    if not names:
        return sorted({_split_of(path, root) for path in _xml_below(root)})
    return sorted(name for name in names if "_" not in name or name.rsplit("_", 1)[1] not in names)


def locate(root: Path, split: str) -> SplitSource:
    """The list and the image folder of `split`; `root` is both where there are no lists."""
    if not any(_lists(root).glob("*.txt")):
        return SplitSource(root, root, split=split, root=root)
    images = root / "JPEGImages"
    return SplitSource(_lists(root) / f"{split}.txt", images if images.is_dir() else root, root=root)


def watched(source: SplitSource) -> list[Path]:
    """The list, the labels and every XML file, and the folders that more of them may come to."""
    root = _root(source)
    files = _xml_files(source)
    return [source.annotations, root / LABELS_FILE, *files, *sorted({path.parent for path in files})]


def read(source: SplitSource) -> RawAnnotations:
    """Read the XML files that the list names; the classes come from all XML files of the folder.

    So every split of a folder has the same classes, whichever of them its images show.

    Raises:
        InputError: the list is missing or empty.
    """
    root = _root(source)
    parsed: dict[str, VocFile] = {}
    unread: list[tuple[str, str]] = []
    files = _xml_files(source)
    for path in files:
        try:
            parsed[_image_id(path, source)] = _parse(path)
        except InputError as error:
            unread.append((str(path), str(error)))
    broken = {_image_id(Path(file), source) for file, _ in unread}
    if source.annotations.is_dir():
        ids = {_image_id(path, source): _split_of(path, root) for path in files}
        listed = [image_id for image_id, split in ids.items() if split == source.split]
    else:
        listed = _listed(source.annotations, parsed.keys() | broken)
    known = [image_id for image_id in listed if image_id in parsed]
    absent = [image_id for image_id in listed if image_id not in parsed and image_id not in broken]
    wanted = set(listed)
    unread = [(file, reason) for file, reason in unread if _image_id(Path(file), source) in wanted]
    unread += [(str(_xml_folder(source) / f"{image_id}.xml"), "no such file") for image_id in absent]
    classes = _class_map(root, parsed)
    one_based = source.voc_one_based if source.voc_one_based is not None else _is_official(root, parsed)
    return _flatten(source, known, parsed, classes, one_based=one_based, unread=tuple(unread))


def _lists(root: Path) -> Path:
    return root / "ImageSets" / "Main"


def _xml_folder(source: SplitSource) -> Path:
    """Where the paths of XML files start from: `Annotations` where a list names them."""
    return _root(source) if source.annotations.is_dir() else _root(source) / "Annotations"


def _xml_below(folder: Path) -> Iterator[Path]:
    """The XML files below `folder`, sorted within each; links to folders and hidden ones are not entered."""
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if name.lower().endswith(".xml"))


def _xml_files(source: SplitSource) -> list[Path]:
    """The XML files of VOC's kind; beside lists, all below `Annotations`."""
    files = _xml_below(_xml_folder(source))
    return sorted(path for path in files if not source.annotations.is_dir() or _is_annotation(path))


def _is_annotation(path: Path) -> bool:
    """Whether an XML file starts as VOC's do, or is too broken to tell."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return ANNOTATION_ELEMENT.search(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _image_id(path: Path, source: SplitSource) -> str:
    """What a list calls the image of an XML file: its path below the folder of XML files, without suffix."""
    return path.relative_to(_xml_folder(source)).with_suffix("").as_posix()


def _split_of(path: Path, root: Path) -> str:
    """The first folder above `path` that is called like a split."""
    names = path.relative_to(root).parts[:-1]
    return next((name for name in names if name.lower() in SPLIT_FOLDERS), UNDIVIDED)


def _flatten(
    source: SplitSource,
    image_ids: list[str],
    parsed: dict[str, VocFile],
    classes: ClassMap,
    *,
    one_based: bool,
    unread: tuple[tuple[str, str], ...],
) -> RawAnnotations:
    files = [parsed[image_id] for image_id in image_ids]
    objects = [found for file in files for found in file.objects]
    counts = [len(file.objects) for file in files]
    image_rows = np.repeat(np.arange(len(files), dtype=np.int64), counts)
    convention = source.convention or "xyxy"
    numbers = np.array([found.box for found in objects], dtype=np.float64).reshape(len(objects), 4)
    boxes = to_corners(numbers, convention)
    boxes[:, :2] -= float(one_based)
    names = byte_array([found.name for found in objects])
    ids = byte_array(image_ids)
    folder = _xml_folder(source)
    images, file_names, notes = _find_images(source, image_ids, files)
    return RawAnnotations(
        source=source._replace(images=images),
        classes=classes,
        file_names=byte_array(file_names),
        annotation_files=byte_array([str(folder / f"{image_id}.xml") for image_id in image_ids]),
        image_ids=ids,
        sizes=np.array([(file.height, file.width) for file in files], dtype=np.int32).reshape(-1, 2),
        image_rows=image_rows,
        box_image_ids=ids[image_rows],
        boxes=boxes,
        labels=find_rows(names, byte_array(list(classes.names))) + 1,
        box_category_ids=names,
        ignore=np.array([found.difficult for found in objects], dtype=np.bool_),
        areas=np.full(len(objects), np.nan),
        annotation_ids=np.array([i for count in counts for i in range(1, count + 1)], dtype=np.int64),
        convention=convention,
        file_per_image=True,
        unread=unread,
        notes=tuple(notes),
    )


def _root(source: SplitSource) -> Path:
    """ROOT of ROOT/ImageSets/Main/SPLIT.txt; without lists, the folder that is given."""
    if source.annotations.is_dir():
        return source.annotations.absolute()
    return source.annotations.absolute().parents[2]


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file that defines no entities: a few lines of them can stand for gigabytes.

    Raises:
        InputError: not readable, too large, not XML, or with entities.
    """
    data = read_bytes_of_file(path, limit_mb=MAX_XML_MB)
    # Encodings that expat takes hold these letters as ASCII bytes, alone or each with a zero byte.
    if b"<!ENTITY" in data.replace(b"\0", b""):
        raise InputError(f"cannot read {path}: it defines XML entities, which annotations have no use for")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"cannot read {path} as XML: {error}") from error


def _parse(path: Path) -> VocFile:
    root = parse_xml(path)
    size = root.find("size")
    return VocFile(
        filename=plain_text(root.findtext("filename", "").strip()),
        height=_whole_number(size, "height"),
        width=_whole_number(size, "width"),
        database=root.findtext("source/database", "").strip(),
        # Direct children only: the person layout of VOC nests <part> with a <bndbox> of its own.
        objects=[_parse_object(element) for element in root.findall("object")],
    )


def _parse_object(element: ElementTree.Element) -> VocObject:
    x0, y0, x1, y1 = (_number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax"))
    return VocObject(
        name=plain_text(element.findtext("name", "").strip()),
        box=(x0, y0, x1, y1),
        difficult=element.findtext("difficult", "0").strip() == "1",
    )


def _number(element: ElementTree.Element, place: str) -> float:
    """The number at `place`, NaN where there is none: the check names the file and the object."""
    try:
        return float(element.findtext(place, "nan"))
    except ValueError:
        return float("nan")


def _whole_number(element: ElementTree.Element | None, place: str) -> int:
    value = _number(element, place) if element is not None else 0.0
    return int(np.clip(np.nan_to_num(value), 0, np.iinfo(np.int32).max))


def _listed(path: Path, known: set[str]) -> list[str]:
    """The image ids of a list; a line may be an id, a file name, either in quotes."""
    text = read_text_file(path, limit_mb=MAX_LIST_MB)
    lines = [line.strip().strip('"') for line in text.splitlines()]
    listed = [line if line in known else _without_suffix(line) for line in lines if line]
    if not listed:
        raise InputError(f"the list of images {path} is empty")
    return listed


def _without_suffix(line: str) -> str:
    return line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in IMAGE_SUFFIXES else line


def _find_images(
    source: SplitSource, image_ids: list[str], files: list[VocFile]
) -> tuple[Path, list[str], list[Finding]]:
    """The folder and the names of the images, with whichever suffix exists; ID.jpg where none does.

    An image has the name of its XML file; where there is none, it is the one that <filename> names.
    """
    present = _images_by_id(source.images)
    names = [present.get(image_id, "") for image_id in image_ids]
    if all(names):
        return source.images, names, []
    tails = Tails(source.root or source.images)
    folder = _xml_folder(source)
    renamed: list[tuple[str, str]] = []
    found: list[str] = []
    for image_id, name, file in zip(image_ids, names, files, strict=True):
        place = PurePosixPath(os.path.relpath((folder / image_id).absolute(), tails.root))
        same = tails.image(f"{place}.jpg", near=place.parent)
        named = tails.image(file.filename, near=place.parent) if file.filename and len(same) != 1 else []
        if name:
            found.append(os.path.relpath((source.images / name).absolute(), tails.root))
        elif len(same) == 1:
            found.append(str(same[0]))
        elif len(named) == 1:
            found.append(str(named[0]))
            renamed.append((f"{image_id}.xml", str(named[0])))
        else:
            found.append(f"{image_id}.jpg")
    notes = []
    if renamed:
        xml, image = renamed[0]
        detail = f"{len(renamed)} images were found by the <filename> of their XML file: {xml!r} -> {image!r}"
        notes.append(Finding("path-found-by-end", "note", str(folder), None, detail, "read from there"))
    common = os.path.commonpath([os.path.dirname(name) for name in found])
    return tails.root / common, [os.path.relpath(name, common or ".") for name in found], notes


def _images_by_id(images: Path) -> dict[str, str]:
    """Path without suffix to path, of the images in a folder itself; the likeliest suffix wins."""
    present = [path for path in images.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    present.sort(key=lambda path: -IMAGE_SUFFIXES.index(path.suffix.lower()))
    return {path.stem: path.name for path in present}


def _class_map(root: Path, parsed: dict[str, VocFile]) -> ClassMap:
    labels = root / LABELS_FILE
    if labels.exists():
        lines = read_text_file(labels, limit_mb=MAX_LIST_MB).splitlines()
        names = [plain_text(line.strip()) for line in lines if line.strip()]
    else:
        names = sorted({found.name for file in parsed.values() for found in file.objects if found.name})
    if not names:
        raise InputError(f"no <object> with a <name> in the XML files of {root}, and no {labels}")
    try:
        return ClassMap(tuple(names), tuple(range(1, len(names) + 1)))
    except InputError as error:
        raise InputError(f"{labels}: {error}") from error


def _is_official(root: Path, parsed: dict[str, VocFile]) -> bool:
    database = next((file.database for file in parsed.values()), "")
    return bool(OFFICIAL_FOLDER.fullmatch(root.name) or OFFICIAL_DATABASE.fullmatch(database))

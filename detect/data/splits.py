"""From a folder to the annotations of one split: recognise the format, choose the split, read, check."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, cast

from detect.data import annotation_cache
from detect.data.annotations import Annotations
from detect.data.checks.boxes import clean
from detect.data.checks.conventions import BoxConvention
from detect.data.checks.findings import Finding
from detect.data.readers import UNDIVIDED, Reader, SplitSource, coco, voc, yolo
from detect.data.readers.foreign import foreign_format
from detect.data.split_folder import XML_FOLDERS
from detect.errors import InputError

READERS: tuple[Reader, ...] = (cast(Reader, coco), cast(Reader, voc), cast(Reader, yolo))
Role = Literal["train", "val"]
DEFAULT_SPLITS: dict[Role, tuple[str, ...]] = {
    "train": ("train2017", "train", UNDIVIDED),
    "val": ("val2017", "val", "valid", "test"),
}
"""The first that exists is taken."""


class OpenedSplit(NamedTuple):
    """One split, ready to load."""

    annotations: Annotations
    findings: list[Finding]
    split: str
    """Its name; for files given explicitly, the stem of the annotation file."""
    format: str


def open_split(
    root: Path | None,
    split: str | None = None,
    *,
    role: Role,
    annotations: Path | None = None,
    images: Path | None = None,
    voc_one_based: bool | None = None,
    box_convention: BoxConvention | None = None,
    reader: Reader | None = None,
) -> OpenedSplit:
    """Read and check one split, from the cache where its files have not changed.

    Args:
        root: the data set's folder; not needed where `annotations` and `images` are both given.
        split: its name; None takes the first of `DEFAULT_SPLITS[role]` that exists.
        role: what the split is for.
        annotations: the annotation file, instead of the one below `root`.
        images: the image folder, instead of the one below `root`.
        voc_one_based: VOC: subtract 1 from xmin and ymin; None: for the official sets.
        box_convention: how the files write boxes; None: as their format says, unless that cannot be.
        reader: of the format; None: the one that recognises `root`.

    Raises:
        InputError: a folder, file or split does not exist, or nothing usable is in it; lists what there is.
    """
    if annotations is not None:
        reader, source = _explicit(root, split, annotations, images, role=role)
        split = split or source.split or annotations.stem
    else:
        if root is None:
            raise InputError(f"no {role} data: give --data.root, or --data.{role}_annotations with images")
        reader = reader or recognise(root)
        split = _choose_split(reader, root, split, role)
        source = reader.locate(root, split)
        if images is not None:
            source = source._replace(images=images)
    source = source._replace(voc_one_based=voc_one_based, convention=box_convention)
    if not source.annotations.exists():
        raise InputError(f"no annotation file {source.annotations}")
    if not source.images.is_dir():
        raise InputError(
            f"no image folder {source.images} for {source.annotations}; name it with --data.{role}_images"
        )
    checked, findings = _read_or_load(reader, source)
    return OpenedSplit(checked, findings, split, reader.NAME)


def recognise(root: Path) -> Reader:
    """The reader whose format `root` has.

    Raises:
        InputError: no folder, or no known format; lists what was looked for and what is there.
    """
    if not root.is_dir():
        raise InputError(f"no data folder {root}")
    for reader in READERS:
        if reader.recognises(root):
            return reader
    for reader in READERS:
        if reader.recognises_loosely(root):
            return reader
    looked_for = "\n".join(f"    {reader.NAME}: {reader.LAYOUT}" for reader in READERS)
    found = ", ".join(sorted(path.name for path in root.iterdir())[:20]) or "nothing"
    known = foreign_format(root)
    raise InputError(
        f"{root} has no format that is known{known}\n  looked for\n{looked_for}\n  found {found}"
        + ("" if known else split_hint(root))
    )


def not_divided(reader: Reader, root: Path) -> str:
    """What is missing in a folder of a known format without a single split, and what to do."""
    return f"{root} ({reader.NAME}) has no split; looked for {reader.LAYOUT}{split_hint(root)}"


def split_hint(root: Path, *, divided: bool = False) -> str:
    """What divides the images; "" where there are neither a split nor images with XML files.

    Labelling tools leave images and XML files side by side, or in the folders of VOC without `ImageSets`.

    Args:
        root: the data set's folder.
        divided: it has a split, but one only.
    """
    if divided:
        return f"\n  `detect data split {root} --out E` divides a single split into training and validation"
    if not any(next((root / name).glob("*.xml"), None) for name in XML_FOLDERS):
        return ""
    return (
        f"\n  it has XML files: `detect data split {root} --out E` makes a data set with a training and a "
        "validation split of images that have one each"
    )


def _choose_split(reader: Reader, root: Path, split: str | None, role: Role) -> str:
    found = reader.find_splits(root)
    wanted = (split,) if split is not None else DEFAULT_SPLITS[role]
    for name in wanted:
        if name in found:
            return name
    if not found:
        raise InputError(not_divided(reader, root))
    raise InputError(
        f"{root} ({reader.NAME}) has no {role} split {' or '.join(wanted)}; it has "
        f"{', '.join(found)}. Name one with --data.{role}_split"
        + ("" if len(found) > 1 else split_hint(root, divided=True))
    )


def _explicit(
    root: Path | None, split: str | None, annotations: Path, images: Path | None, *, role: Role
) -> tuple[Reader, SplitSource]:
    """JSON is COCO, YAML is YOLO, a list of images is VOC; images lie as the format has them in `root`."""
    if annotations.suffix in (".yaml", ".yml"):
        reader = cast(Reader, yolo)
        split = _choose_split(reader, annotations.parent, split, role)
        source = reader.locate(annotations.parent, split)
        return reader, source if images is None else source._replace(images=images)
    reader = cast(Reader, coco if annotations.suffix == ".json" else voc)
    if images is None and root is not None:
        images = reader.locate(root, split or annotations.stem.removeprefix(coco.PREFIX)).images
    if images is None:
        raise InputError(f"the images of {annotations} are not known: give --data.root or the image folder")
    return reader, SplitSource(annotations, images, root=root)


def _read_or_load(reader: Reader, source: SplitSource) -> tuple[Annotations, list[Finding]]:
    files = [str(path.absolute()) for path in (source.annotations, source.images)]
    key = [reader.NAME, *files, *(str(value) for value in source[2:])]
    cached = annotation_cache.load(key)
    if cached is not None:
        return cached
    annotations, findings = clean(reader.read(source))
    watched = [*reader.watched(source), *_image_folders(annotations)]
    annotation_cache.save(key, watched, annotations, findings)
    return annotations, findings


def _image_folders(annotations: Annotations) -> list[Path]:
    """Every folder with images: its time changes when a file comes or goes."""
    names = {str(Path(name.decode()).parent) for name in annotations.file_names}
    return sorted({annotations.root, *(annotations.root / name for name in names)})

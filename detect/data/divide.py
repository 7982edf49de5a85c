"""`detect data split`: one split of a data set divided into training and validation.

What belongs together stays on one side: images that are equal or nearly so, and those of a group that the
user names. Units of such images are dealt out, the rarest classes first, so that both sides show every class.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.checks.findings import Finding
from detect.data.checks.repeated_images import repeated_rows
from detect.data.checks.splits import class_counts, without_images
from detect.data.convert import WRITERS, Format, choose_splits, keep_readable, write_copy
from detect.data.readers import Reader, SplitSource, byte_array, voc
from detect.data.split_folder import XML_FOLDERS, collect
from detect.data.splits import READERS
from detect.data.writers.voc import write_list
from detect.errors import InputError
from detect.system.output_folder import ImagePlacement, new_folder, place_image

TRAIN, VAL = "train", "val"


class Side(NamedTuple):
    """One of the splits that were written."""

    images: int
    boxes: int
    """Without regions to ignore."""
    classes: dict[str, int]
    """Boxes of each class."""

    @classmethod
    def of(cls, annotations: Annotations) -> Side:
        """Counts of a split."""
        counts = class_counts(annotations).tolist()
        return cls(len(annotations), sum(counts), dict(zip(annotations.classes.names, counts, strict=True)))


@dataclass(frozen=True)
class Division:
    """What was written, and what was not."""

    sides: dict[str, Side]
    """Of "train" and "val"."""
    together: int
    """Images that are not alone in their unit."""
    units: int
    """Units of several images."""
    left_out: list[str] = field(default_factory=list)
    """Sentences about files without a partner."""
    findings: list[Finding] = field(default_factory=list)
    """What could not be written."""

    def __str__(self) -> str:
        train, val = self.sides[TRAIN], self.sides[VAL]
        lines = [
            f"  {name}: {side.images:,} images, {side.boxes:,} boxes, "
            f"{sum(count > 0 for count in side.classes.values())} classes"
            for name, side in self.sides.items()
        ]
        if self.units:
            lines.append(
                f"  {self.together} images in {self.units} groups stay together: equal, nearly equal, or of "
                "one --group"
            )
        absent = [name for name, count in train.classes.items() if count and not val.classes.get(name)]
        if absent:
            shown = ", ".join(f"{name} ({train.classes[name]} boxes in train)" for name in absent[:8])
            lines.append(f"  not in val: {shown}" + ", ..." * (len(absent) > 8))
        return "\n".join(lines)


@dataclass(frozen=True)
class DivideOptions:
    """How a split is divided."""

    val_share: float = 0.2
    """Of the images, rounded; at least one image is on each side."""
    seed: int = 0
    """Another gives another division."""
    groups: Sequence[str] = ()
    """Patterns of file names, such as "cam1_*": all images of one stay on one side."""
    images: ImagePlacement = "link"

    def check(self) -> None:
        """Stop at a share that is none.

        Raises:
            InputError: names the option.
        """
        if not 0 < self.val_share < 1:
            raise InputError(
                f"--val_share {self.val_share}: a share of the images, above 0 and below 1, such as 0.2"
            )


def divide(
    source: Path, output: Path, options: DivideOptions = DivideOptions(), *, split: str | None = None
) -> Division:
    """Write `output`, a data set with the splits train and val; `source` is only read.

    A data set whose format is recognised is written in that format (COCO where it cannot be written), its
    other splits as they are. Images and XML files that no list divides become a VOC folder.

    Args:
        source: folder of a data set, or of images with an XML file each.
        output: a new or empty folder outside of it.
        options: share, seed and groups.
        split: what is divided; None: the only one.

    Raises:
        InputError: nothing to divide, an option is wrong, or a folder cannot be read or written.
    """
    options.check()
    if not source.is_dir():
        raise InputError(f"no folder {source}")
    reader = next((reader for reader in READERS if reader.recognises(source)), None)
    if reader is None and not any(next((source / name).glob("*.xml"), None) for name in XML_FOLDERS):
        reader = next((reader for reader in READERS if reader.recognises_loosely(source)), None)
    if reader is not None and (found := reader.find_splits(source)):
        return _divide_split(reader, source, output, options, _chosen(source, found, split))
    return _divide_files(source, output, options)


def _chosen(source: Path, found: list[str], split: str | None) -> str:
    """The split to divide.

    Raises:
        InputError: there are several, none of that name, or one that would be written over.
    """
    if split is None and len(found) > 1:
        raise InputError(
            f"{source} has the splits {', '.join(found)} already; name the one to divide with --split"
        )
    chosen = split or found[0]
    if chosen not in found:
        raise InputError(f"{source} has no split {chosen!r}; it has {', '.join(found)}")
    if taken := {TRAIN, VAL} & set(found) - {chosen}:
        raise InputError(
            f"{source} has a split {', '.join(sorted(taken))} already, beside {chosen}: nothing to divide"
        )
    return chosen


def _divide_split(reader: Reader, source: Path, output: Path, options: DivideOptions, split: str) -> Division:
    """A split of a known format, through its reader and writer."""
    findings: list[Finding] = []
    contents = {
        name: keep_readable(reader.read(reader.locate(source, name)), findings)
        for name in choose_splits(reader, source, None)
    }
    whole = contents.pop(split)
    in_val, units = choose_val(whole, options)
    sides = {TRAIN: without_images(whole, in_val), VAL: without_images(whole, ~in_val)}
    to: Format = next((name for name in WRITERS if name == reader.NAME), "coco")
    with new_folder(output, source) as folder:
        write_copy(folder, sides | contents, to, options.images)
    return _describe(sides, units, findings=findings)


def _divide_files(source: Path, output: Path, options: DivideOptions) -> Division:
    """Images and XML files side by side, which stay as they are."""
    files = collect(source)
    with new_folder(output, source) as folder:
        for stem, pair in files.pairs.items():
            place_image(pair.xml, folder / "Annotations" / f"{stem}.xml", "copy")
            place_image(pair.image, folder / "JPEGImages" / pair.image.name, options.images)
        write_list(folder, TRAIN, files.pairs)
        listed = SplitSource(folder / "ImageSets" / "Main" / f"{TRAIN}.txt", folder / "JPEGImages")
        whole = keep_readable(voc.read(listed), [])  # what is wrong with them is for `data check` to say
        originals = [files.pairs[Path(name.decode()).stem].image for name in whole.file_names]
        names = byte_array([os.path.relpath(path, source) for path in originals])
        whole = replace(whole, root=source, file_names=names)
        in_val, units = choose_val(whole, options)
        val = {whole.path(int(row)).stem for row in np.flatnonzero(in_val)}
        write_list(folder, TRAIN, [stem for stem in files.pairs if stem not in val])
        write_list(folder, VAL, [stem for stem in files.pairs if stem in val])
    sides = {TRAIN: without_images(whole, in_val), VAL: without_images(whole, ~in_val)}
    return _describe(sides, units, left_out=files.left_out)


def _describe(
    sides: dict[str, Annotations],
    units: NDArray[np.int64],
    *,
    left_out: list[str] | None = None,
    findings: list[Finding] | None = None,
) -> Division:
    sizes = np.bincount(units)
    several = sizes[sizes > 1]
    counts = {name: Side.of(content) for name, content in sides.items()}
    return Division(counts, int(several.sum()), len(several), left_out or [], findings or [])


def choose_val(
    annotations: Annotations, options: DivideOptions
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N,) images that are for validation, and (N,) the unit of each.

    Neither the order of the images nor the machine matters: ties are broken by a hash of names and seed.
    Units are dealt out one by one, those of the rarest class first, each to the side that lacks more of its
    rarest class. A class that two units show is on both sides.

    Source: Sechidis et al., "On the Stratification of Multi-Label Data" (2011), algorithm 1.

    Raises:
        InputError: there is only one unit.
    """
    units = units_of(annotations, options.groups)
    count = int(units.max(initial=-1)) + 1
    if count < 2:
        raise InputError(
            f"{annotations.source}: {len(annotations)} images, all of one group: nothing can be divided"
        )
    shown = _shown(annotations)  # (N, 1 + K)
    content = np.zeros((count, shown.shape[1]))
    np.add.at(content, units, shown)
    total = content.sum(axis=0)
    wanted = np.where((content > 0).sum(axis=0) > 1, np.maximum(1, options.val_share * total), 0)
    wanted[0] = min(max(1, round(options.val_share * len(annotations))), len(annotations) - 1)
    lacks = np.stack([total - wanted, wanted])  # (2, 1 + K): training, validation
    of_class = np.where(content[:, 1:] > 0, total[1:], np.inf)
    rarest = np.where(np.isfinite(of_class).any(axis=1), 1 + of_class.argmin(axis=1), 0)  # 0: shows nothing
    side = np.zeros(count, dtype=np.int64)
    for unit in _dealing_order(annotations, units, total[rarest], options.seed):
        train, val = lacks[:, [rarest[unit], 0]].tolist()
        fits = content[unit, 0] <= lacks[1, 0]  # many rare classes must not fill validation beyond its share
        side[unit] = int(val > train and fits)
        lacks[side[unit]] -= content[unit]
    if side.all() or not side.any():
        side[np.argmin(content[:, 0])] = 1 - side[0]
    return side[units].astype(np.bool_), units


def units_of(annotations: Annotations, groups: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the unit of each image, from 0: images of one unit stay together.

    Raises:
        InputError: a pattern fits no image.
    """
    first = np.arange(len(annotations))

    def unite(rows: Sequence[int]) -> None:
        joined = np.isin(first, first[list(rows)])
        first[joined] = first[joined].min()

    names = [name.decode() for name in annotations.file_names]
    for pattern in groups:
        rows = [
            row
            for row, name in enumerate(names)
            if fnmatch(name, pattern) or fnmatch(Path(name).name, pattern)
        ]
        if not rows:
            raise InputError(f"--group {pattern}: no image has such a name; the first is {names[0]}")
        unite(rows)
    for pair in repeated_rows(annotations):
        unite(pair)
    return np.unique(first, return_inverse=True)[1]


def _shown(annotations: Annotations) -> NDArray[np.float64]:
    """(N, 1 + K): 1, and 1 for each class that an image shows."""
    trained = ~annotations.ignore
    shown = np.zeros((len(annotations), annotations.classes.num_classes + 1))
    rows = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    shown[rows[trained], annotations.labels[trained]] = 1
    shown[:, 0] = 1
    return shown


def _dealing_order(
    annotations: Annotations, units: NDArray[np.int64], rarity: NDArray[np.float64], seed: int
) -> list[int]:
    """Units with the rarest class first, of those the largest, then by the hash of a name."""
    names: dict[int, bytes] = {}
    for unit, name in zip(units.tolist(), annotations.file_names.tolist(), strict=True):
        names[unit] = min(name, names.get(unit, name))
    sizes = np.bincount(units)

    def key(unit: int) -> tuple[float, int, bytes]:
        stem = Path(names[unit].decode()).stem
        return rarity[unit], -int(sizes[unit]), hashlib.sha256(f"{seed} {stem}".encode()).digest()

    return sorted(range(len(sizes)), key=key)

"""What only the whole of a split, or several together, can show: broken images, rare and unknown classes.

`boxes.py` and `headers.py` look at one box and one header. Repeated images and leaks: `repeated_images.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.checks.duplicates import duplicate_boxes
from detect.data.checks.findings import Finding, summarise
from detect.data.checks.headers import plain
from detect.data.checks.scan import scan_images
from detect.data.splits import OpenedSplit, Role
from detect.errors import InputError

FEW_BOXES = 20
"""Below it, the average precision of a class says little: one box is more than 5 % of its recall."""
UNBALANCED = 10
"""Times that the commonest class has the boxes of the rarest, from which on sampling is worth a thought."""


def without_images(annotations: Annotations, dropped: NDArray[np.bool_]) -> Annotations:
    """The split without the images that `dropped` (N,) marks, and without their boxes."""
    counts = np.diff(annotations.offsets)
    boxes = np.repeat(~dropped, counts)
    kept = ~dropped
    return replace(
        annotations,
        file_names=annotations.file_names[kept],
        image_ids=annotations.image_ids[kept],
        sizes=annotations.sizes[kept],
        offsets=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
        boxes=annotations.boxes[boxes],
        labels=annotations.labels[boxes],
        ignore=annotations.ignore[boxes],
        areas=annotations.areas[boxes],
        annotation_ids=annotations.annotation_ids[boxes],
    )


def drop_undecodable(annotations: Annotations) -> tuple[Annotations, list[Finding]]:
    """Decode every image, or recall that it was decoded; images that cannot be are left out."""
    failures = scan_images([annotations.path(row) for row in range(len(annotations))]).failures
    findings = [
        Finding(
            "image-undecodable",
            "error",
            annotations.file_names[row].decode(),
            None,
            reason,
            "image dropped",
        )
        for row, reason in failures.items()
    ]
    if not failures:
        return annotations, []
    dropped = np.zeros(len(annotations), dtype=np.bool_)
    dropped[list(failures)] = True
    return without_images(annotations, dropped), findings


def without_undecodable(opened: OpenedSplit) -> OpenedSplit:
    """The split without the images that cannot be decoded, which its findings then name.

    Raises:
        InputError: none is left.
    """
    annotations, undecodable = drop_undecodable(opened.annotations)
    findings = [*opened.findings, *undecodable]
    if len(annotations) == 0:
        raise InputError(f"no usable image in {annotations.source}\n{summarise(findings)}")
    return opened._replace(annotations=annotations, findings=findings)


def require_trainable(opened: OpenedSplit, role: Role) -> None:
    """Refuse what no detector can be made of.

    Raises:
        InputError: there are no classes, or nothing to learn in the training split.
    """
    annotations = opened.annotations
    if annotations.classes.num_classes == 0:
        raise InputError(f"{annotations.source} names no classes: a detector needs at least one")
    if role == "train" and not (~annotations.ignore).any():
        raise InputError(
            f"the training split {opened.split} of {annotations.source} has no usable box in "
            f"{len(annotations)} images\n{summarise(opened.findings)}"
        )


def repeated_boxes(annotations: Annotations) -> list[Finding]:
    """Boxes that another box of their image and class covers with IoU > 0.95; crowds are not compared."""
    rows = np.flatnonzero(~annotations.ignore)
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    repeats = duplicate_boxes(annotations.boxes[rows], annotations.labels[rows], images[rows])
    findings = []
    for row, other in zip(rows[repeats >= 0], rows[repeats[repeats >= 0]], strict=True):
        x0, y0, x1, y1 = annotations.boxes[row]
        detail = (
            f"{annotations.classes.name(int(annotations.labels[row]))} at xmin {x0:g}, ymin {y0:g}, "
            f"xmax {x1:g}, ymax {y1:g} repeats annotation {plain(annotations.annotation_ids[other])}"
        )
        name = annotations.file_names[images[row]].decode()
        findings.append(
            Finding(
                "box-repeated",
                "warning",
                name,
                plain(annotations.annotation_ids[row]),
                detail,
                "kept",
                image=str(annotations.path(int(images[row]))),
                box=annotations.boxes[row].tolist(),
            )
        )
    return findings


def class_counts(annotations: Annotations) -> NDArray[np.int64]:
    """(K,) boxes of each class, without regions to ignore."""
    labels = annotations.labels[~annotations.ignore]
    return np.bincount(labels, minlength=annotations.classes.num_classes + 1)[1:]


def balance(annotations: Annotations) -> list[Finding]:
    """Images without boxes, rare classes, and the ratio of the commonest class to the rarest."""
    source, classes, counts = str(annotations.source), annotations.classes, class_counts(annotations)
    findings = []
    empty = int((np.diff(annotations.offsets) == 0).sum())
    if empty:
        detail = f"{empty} of {len(annotations)} images have no boxes"
        findings.append(
            Finding("images-without-boxes", "note", source, None, detail, "kept; they train the background")
        )
    rare = [i for i in np.argsort(counts, kind="stable").tolist() if 0 < counts[i] < FEW_BOXES]
    if rare:
        named = ", ".join(f"{classes.names[i]} {counts[i]}" for i in rare[:8]) + ", ..." * (len(rare) > 8)
        detail = f"{len(rare)} of {len(counts)} classes have fewer than {FEW_BOXES} boxes: {named}"
        findings.append(Finding("class-rare", "note", source, None, detail, "kept; expect noisy AP"))
    present = counts[counts > 0]
    if len(present) > 1 and present.max() >= UNBALANCED * present.min():
        most, least = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, counts.max() + 1)))
        detail = (
            f"{counts[most]} boxes of {classes.names[most]}, {counts[least]} of {classes.names[least]}: "
            f"{counts[most] / counts[least]:.0f} to 1"
        )
        findings.append(Finding("classes-unbalanced", "note", source, None, detail, "kept"))
    return findings


def compare_classes(train: str, splits: dict[str, Annotations]) -> list[Finding]:
    """Class names of every split against those of the training split, whose order the labels follow."""
    reference = splits[train].classes.names
    trained = Counter(dict(zip(reference, class_counts(splits[train]).tolist(), strict=True)))
    findings = []
    for name, content in splits.items():
        if name == train:
            continue
        source, names = str(content.source), content.classes.names
        present = set(names)
        unknown = [other for other in names if other not in trained]
        if unknown:
            spelt = {other.strip().lower(): other for other in reference}
            hints = [
                f"{o!r} may be {spelt[o.strip().lower()]!r}" for o in unknown if o.strip().lower() in spelt
            ]
            detail = f"{name} has classes that {train} lacks: {', '.join(unknown[:8])}" + "".join(
                f"; {hint}" for hint in hints[:3]
            )
            findings.append(Finding("class-not-trained", "error", source, None, detail, "cannot be scored"))
        elif [other for other in reference if other in present] != list(names):
            detail = f"{name} lists the classes in another order than {train}"
            findings.append(
                Finding("class-order-differs", "note", source, None, detail, "matched by name, not by place")
            )
        counts = dict(zip(names, class_counts(content).tolist(), strict=True))
        absent = [
            other for other, count in counts.items() if count and other in trained and not trained[other]
        ]
        if absent:
            detail = f"{name} has boxes of {', '.join(absent[:8])}, {train} has none"
            findings.append(
                Finding("class-without-training-boxes", "warning", source, None, detail, "kept; AP will be 0")
            )
    return findings

"""The page of `detect data preview`: images as the network sees them, and what becomes of the boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detect.data.dataset import Sample, SampleKey
from detect.evaluation.draw import PALETTE, draw_detections, draw_outlines
from detect.inspection.anchor_layout import MATCH_IOU
from detect.inspection.augmentation_audit import QUANTILES, AugmentationAudit, BoxCounts
from detect.inspection.preview import Preview, matched_anchors
from detect.report.album import EncodedImage, encode_image, resized
from detect.report.html import DASH, percent, write_page
from detect.report.plots import Plot, plot, share_by_size, size_distribution
from detect.report.sections import Rows

IGNORED_LABEL = len(PALETTE)
"""Its colour, pink, is that of ignored regions; classes share the others."""

LABELLED = 8
"""Boxes of an image that are named, the largest: more names would hide what they name."""
SIDE_PX = 400
"""Larger inputs are shown reduced to this."""


def write_preview(path: Path, preview: Preview, *, epochs: int, anchors: bool) -> None:
    """Write the page.

    Args:
        path: file to write.
        preview: from `open_preview`.
        epochs: showings of each image.
        anchors: draw those that are positive for each box.
    """
    dataset, audit = preview.dataset, preview.audit
    height, width = dataset.image_size
    values = {
        "title": f"Preview of {preview.root.absolute().name}: {preview.split}",
        "subtitle": f"{len(dataset.annotations)} images, input {width} x {height} px, seed {dataset.seed}",
        "facts": _facts(audit),
        "assigner": _in_words(type(preview.assigner), preview.assigner.init_args) if anchors else None,
        "strips": [_strip(preview, row, epochs=epochs, anchors=anchors) for row in preview.rows],
        "samples": audit.samples,
        "emptied": audit.emptied,
        "anchor_iou": MATCH_IOU,
        "plots": _plots(audit),
        "quantiles": [f"{q} %" for q in QUANTILES],
        "quantile_rows": _quantile_rows(audit),
        "size_rows": _kept_rows({"all": audit.counts(), **audit.by_size()}),
        "class_rows": _kept_rows(audit.by_class()),
        "seed": dataset.seed,
        "augmentations": [_in_words(type(step), vars(step)) for step in dataset.augmentations or []],
        "weak_from": None if dataset.weak_from is None else dataset.weak_from + 1,
        "weak": [type(step).__name__ for step in dataset.weak_augmentations],
        "sizes": [f"{w} x {h}" for h, w in preview.multi_scale.sizes] if preview.multi_scale else [],
        "input": f"{width} x {height}",
    }
    write_page(path, "preview.html", values)


def _facts(audit: AugmentationAudit) -> list[tuple[str, str]]:
    counts = audit.counts()
    return [
        ("samples followed", f"{audit.samples:,}"),
        ("boxes in them", f"{counts.shown:,}"),
        ("boxes kept", f"{percent(_share(counts.kept, counts.shown))} %"),
        ("left without a box", f"{percent(audit.emptied / audit.samples)} %"),
        ("anchor recall, whole", f"{percent(_share(counts.met_before, counts.shown))} %"),
        ("anchor recall, augmented", f"{percent(_share(counts.met_after, counts.kept))} %"),
    ]


def _strip(preview: Preview, row: int, *, epochs: int, anchors: bool) -> dict[str, Any]:
    """Name of an image, and a panel and caption of it whole, in each epoch and in the first weak one."""
    whole = preview.whole[SampleKey(0, row, 0)]
    panels = [_panel(preview, whole, "whole", anchors=anchors)]
    weak_from = preview.dataset.weak_from
    shown = [*range(epochs), *([] if weak_from is None or weak_from < epochs else [weak_from])]
    scales = preview.multi_scale
    for epoch in shown:
        key = SampleKey(epoch, row, 0, image_size=scales.size(epoch, row) if scales else None)
        images = len(preview.dataset.layout(key))
        name = f"epoch {epoch + 1}" + (f", {images} images" if images > 1 else "")
        name += ", weak" if weak_from is not None and epoch >= weak_from else ""
        if key.image_size is not None:
            name += f", {key.image_size[1]} x {key.image_size[0]} px"
        panels.append(_panel(preview, preview.dataset[key], name, anchors=anchors))
    return {"name": preview.dataset.annotations.file_names[row].decode(errors="replace"), "panels": panels}


def _panel(preview: Preview, sample: Sample, name: str, *, anchors: bool) -> tuple[EncodedImage, str]:
    """One sample with its boxes, and with its anchors where they are asked for; and its caption."""
    scale = min(1.0, SIDE_PX / max(sample.image.shape[:2]))
    image = Image.fromarray(np.asarray(sample.image, dtype=np.uint8))
    if scale < 1:
        image, scale = resized(image, SIDE_PX)
    caption = f"{name}: {len(sample.boxes)} boxes"
    colours = np.where(sample.ignore, IGNORED_LABEL, (sample.labels - 1) % (IGNORED_LABEL - 1) + 1)
    if anchors:
        matched = matched_anchors(sample, preview.layout, preview.assigner)
        image = draw_outlines(image, matched.boxes * scale, labels=colours[matched.owners])
        caption += f", {len(matched.boxes)} anchors"
        if matched.below_match_iou:
            caption += f", {matched.below_match_iou} of them below IoU {MATCH_IOU:g}"
    classes = preview.dataset.annotations.classes
    areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
    named = set(np.argsort(-areas, kind="stable")[:LABELLED].tolist())
    names = [classes.name(label) if i in named else "" for i, label in enumerate(sample.labels.tolist())]
    image = draw_detections(image, sample.boxes * scale, names, labels=colours)
    return encode_image(image, f"{caption}, image {sample.key.row}"), caption


def _plots(audit: AugmentationAudit) -> list[Plot]:
    kept = ~np.isnan(audit.after_px)
    size = "root of the area, px of the input"
    distributions = [("whole images", audit.before_px), ("augmented", audit.after_px[kept])]
    return [
        plot(
            "Sizes of the boxes",
            size_distribution(distributions, x_label=size),
            caption="Whole images are stretched onto the input, as in validation.",
        ),
        plot(
            "Boxes kept, by their size",
            share_by_size(audit.before_px, kept, x_label=f"{size}, whole image", y_label="% kept"),
            caption="A box is kept where its centre is in the view, 1 px of it is left each way, and no more "
            "than half of it is covered.",
        ),
    ]


def _quantile_rows(audit: AugmentationAudit) -> Rows:
    kept = audit.after_px[~np.isnan(audit.after_px)]
    return [
        (name, *(f"{np.percentile(values, q):.0f}" if len(values) else DASH for q in QUANTILES))
        for name, values in (("whole images", audit.before_px), ("augmented", kept))
    ]


def _kept_rows(groups: dict[str, BoxCounts]) -> Rows:
    return [
        (
            name,
            f"{counts.shown:,}",
            percent(_share(counts.kept, counts.shown)),
            f"{counts.median_before_px:.0f}",
            f"{counts.median_after_px:.0f}" if counts.kept else DASH,
            percent(_share(counts.met_before, counts.shown)),
            percent(_share(counts.met_after, counts.kept)),
        )
        for name, counts in groups.items()
        if counts.shown
    ]


def _in_words(cls: type, settings: dict[str, object]) -> tuple[str, str]:
    return cls.__name__, ", ".join(f"{name} {value}" for name, value in settings.items())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None

"""The page of `detect data preview`: pictures as the network sees them, and what becomes of the boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from detect.data.dataset import Sample, SampleKey
from detect.evaluation.draw import PALETTE, draw_detections, draw_outlines
from detect.inspection.anchor_layout import MATCH_IOU
from detect.inspection.augmentation_audit import QUANTILES, AugmentationAudit, BoxFate
from detect.inspection.preview import Preview, matched_anchors
from detect.report.html import (
    DASH,
    cards,
    figures,
    long_table,
    paragraph,
    percent,
    table,
    text,
    write_page,
)
from detect.report.pictures import picture_tag
from detect.report.plots import figure, share_by_size, size_distribution

IGNORED_LABEL = len(PALETTE)
"""Its colour, pink, is that of ignored regions; classes share the others."""

LABELLED = 8
"""Boxes of a picture that are named, the largest: more names would hide what they name."""
SIDE_PX = 400
"""Larger inputs are shown reduced to this."""


def write_preview(path: Path, preview: Preview, *, epochs: int, anchors: bool) -> None:
    """Write the page.

    Args:
        path: file to write.
        preview: of `open_preview`.
        epochs: showings of each image.
        anchors: draw those that answer for each box.
    """
    dataset, annotations = preview.dataset, preview.dataset.annotations
    height, width = dataset.image_size
    parts = {
        "pictures": ("What the network sees", _pictures(preview, epochs=epochs, anchors=anchors)),
        "audit": ("What augmentation does to the boxes", _audit(preview.audit)),
        "settings": ("Settings", _settings(preview)),
    }
    write_page(
        path,
        title=f"Preview of {preview.root.absolute().name}: {preview.split}",
        subtitle=f"{len(annotations)} images, input {width} x {height} px, seed {dataset.seed}",
        head=cards(_facts(preview.audit)),
        parts=parts,
    )


def _facts(audit: AugmentationAudit) -> list[tuple[str, str]]:
    fate = audit.fate()
    return [
        ("samples followed", f"{audit.samples:,}"),
        ("boxes in them", f"{fate.shown:,}"),
        ("boxes kept", f"{percent(_share(fate.kept, fate.shown))} %"),
        ("left without a box", f"{percent(audit.emptied / audit.samples)} %"),
        ("met by an anchor, whole", f"{percent(_share(fate.met_before, fate.shown))} %"),
        ("met, augmented", f"{percent(_share(fate.met_after, fate.kept))} %"),
    ]


def _pictures(preview: Preview, *, epochs: int, anchors: bool) -> str:
    words = [
        "Each row is one image: whole, as in validation, then as training shows it in its first epochs.",
        "Boxes are those that the loss is given; regions to ignore are pink.",
    ]
    if anchors:
        words.append(
            "Thin lines are the anchors that answer for a box, in its colour: those of IoU "
            f"{preview.match_iou:g} and more, and for every box its best one."
        )
    strips = []
    for row in preview.rows:
        whole = preview.whole[SampleKey(0, row, 0)]
        panels = [_panel(preview, whole, "whole", anchors=anchors)]
        for key in (SampleKey(epoch, row, 0) for epoch in range(epochs)):
            images = len(preview.dataset.layout(key))
            name = f"epoch {key.epoch + 1}" + (f", {images} images" if images > 1 else "")
            panels.append(_panel(preview, preview.dataset[key], name, anchors=anchors))
        name = preview.dataset.annotations.file_names[row].decode(errors="replace")
        strips.append(
            f'<figure class="strip-row"><figcaption>{text(name)}</figcaption>'
            f'<div class="strip">{"".join(panels)}</div></figure>\n'
        )
    return paragraph(*words) + "".join(strips)


def _panel(preview: Preview, sample: Sample, name: str, *, anchors: bool) -> str:
    """One sample with its boxes, and with its anchors where they are asked for."""
    scale = min(1.0, SIDE_PX / max(sample.image.shape[:2]))
    picture = Image.fromarray(np.asarray(sample.image, dtype=np.uint8))
    if scale < 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    caption = f"{name}: {len(sample.boxes)} boxes"
    colours = np.where(sample.ignore, IGNORED_LABEL, (sample.labels - 1) % (IGNORED_LABEL - 1) + 1)
    if anchors:
        matched = matched_anchors(sample, preview.layout, preview.match_iou)
        picture = draw_outlines(picture, matched.boxes * scale, labels=colours[matched.owners])
        caption += f", {len(matched.boxes)} anchors"
        if matched.forced:
            caption += f", {matched.forced} of them below IoU {preview.match_iou:g}"
    classes = preview.dataset.annotations.classes
    areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
    named = set(np.argsort(-areas, kind="stable")[:LABELLED].tolist())
    names = [classes.name(label) if i in named else "" for i, label in enumerate(sample.labels.tolist())]
    picture = draw_detections(picture, sample.boxes * scale, names, labels=colours)
    description = f"{caption}, image {sample.key.row}"
    return f"<figure>{picture_tag(picture, description)}<figcaption>{text(caption)}</figcaption></figure>"


def _audit(audit: AugmentationAudit) -> str:
    kept = ~np.isnan(audit.after_px)
    size = "root of the area, px of the input"
    plots = figures(
        figure(
            "Sizes of the boxes",
            size_distribution(
                [("whole images", audit.before_px), ("augmented", audit.after_px[kept])], x_label=size
            ),
            caption="Whole images are stretched onto the input, as in validation.",
        ),
        figure(
            "Boxes kept, by their size",
            share_by_size(audit.before_px, kept, x_label=f"{size}, whole image", y_label="% kept"),
            caption="A box is kept where its centre is in the view and 1 px of it is left each way.",
        ),
    )
    return (
        paragraph(
            f"{audit.samples:,} samples were followed without their pixels; {audit.emptied:,} lost all boxes "
            f"that their image has. A box is met where some anchor has an IoU of {MATCH_IOU} with it."
        )
        + plots
        + _quantile_table(audit)
        + _fate_table("size in the file", {"all": audit.fate(), **audit.by_size()})
        + _fate_table("class", audit.by_class())
    )


def _quantile_table(audit: AugmentationAudit) -> str:
    kept = audit.after_px[~np.isnan(audit.after_px)]
    rows = []
    for name, values in (("whole images", audit.before_px), ("augmented", kept)):
        numbers = [f"{np.percentile(values, q):.0f}" if len(values) else DASH for q in QUANTILES]
        rows.append([text(name), *numbers])
    return table(["size, px of the input", *(f"{q} %" for q in QUANTILES)], rows)


def _fate_table(heading: str, fates: dict[str, BoxFate]) -> str:
    headings = [heading, "boxes", "kept, %", "median px, whole", "median px, augmented"]
    headings += ["met, whole, %", "met, augmented, %"]
    rows = [[text(name), *_cells(fate)] for name, fate in fates.items() if fate.shown]
    return long_table(headings, rows)


def _cells(fate: BoxFate) -> list[str]:
    return [
        f"{fate.shown:,}",
        percent(_share(fate.kept, fate.shown)),
        f"{fate.median_before_px:.0f}",
        f"{fate.median_after_px:.0f}" if fate.kept else DASH,
        percent(_share(fate.met_before, fate.shown)),
        percent(_share(fate.met_after, fate.kept)),
    ]


def _settings(preview: Preview) -> str:
    steps = preview.dataset.augmentations or []
    rows = [
        [text(type(step).__name__), text(", ".join(f"{name} {value}" for name, value in vars(step).items()))]
        for step in steps
    ]
    words = paragraph(
        f"In this order. Every picture is a function of the seed ({preview.dataset.seed}), the epoch and the "
        "image: the same settings give the same pictures here and in training."
    )
    nothing = paragraph("No augmentation: every image is shown whole.")
    return words + table(["augmentation", "settings"], rows, left=2) if rows else nothing


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None

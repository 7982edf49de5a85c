"""`detect data preview`: augmented samples as the network sees them, and what becomes of their boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from detect.boxes import box_iou
from detect.config.model_section import read_config
from detect.config.unknown_keys import build
from detect.data.checks.conventions import BoxConvention
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, Sample
from detect.data.multi_scale import MultiScale
from detect.data.splits import DEFAULT_SPLITS, recognise
from detect.errors import InputError
from detect.inspection.anchor_advice import settled
from detect.inspection.anchor_layout import MATCH_IOU, AnchorLayout
from detect.inspection.augmentation_audit import AugmentationAudit, audit
from detect.inspection.data_check import read_layout
from detect.training.assigners import Assigner
from detect.training.losses import DetectionLoss, MultiBoxLoss
from detect.types import Target

OF_AUGMENTATION = ("augmentations", "weak_epochs", "weak_augmentations", "multi_scale")
"""Keys of a `data:` section that change what the network is shown."""


class PreviewOptions(NamedTuple):
    """What to show.

    Args:
        config: a YAML of `detect fit`, for augmentations, input size, anchors, split and seed.
        split: the split; null: the config's, else the one that `detect fit` would take.
        seed: of the augmentations; null: the config's, else 0.
        images: how many, evenly over the split.
        epochs: showings of each image.
        samples: how many are followed, without their pixels, to count what becomes of the boxes.
        voc_one_based: VOC: count from 1; null: for the official sets alone.
        box_convention: how the files write boxes; null: as their format says.
    """

    config: Path | None = None
    split: str | None = None
    seed: int | None = None
    images: int = 8
    epochs: int = 4
    samples: int = 4000
    voc_one_based: bool | None = None
    box_convention: BoxConvention | None = None


class Preview(NamedTuple):
    """All that a page about augmentation is made of."""

    root: Path
    split: str
    dataset: DetectionDataset
    """The training split as `detect fit` would show it."""
    whole: DetectionDataset
    """The same images without augmentation."""
    rows: list[int]
    """Images to show."""
    multi_scale: MultiScale | None
    """The sizes of the input; they are drawn per image here, and per step in training."""
    layout: AnchorLayout
    assigner: Assigner
    """Decides which anchors are positive."""
    audit: AugmentationAudit


def open_preview(root: Path, options: PreviewOptions) -> Preview:
    """Open the training split of `root` with the settings of a config, and follow its boxes.

    Args:
        root: folder of a data set whose format is recognised; only read.
        options: what to show.

    Raises:
        InputError: nothing to read, a number below 1, or the config is not one.
    """
    for name in ("images", "epochs", "samples"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)}: at least 1")
    settings = {} if options.config is None else read_config(options.config)
    layout = read_layout(options.config)
    section = settings.get("data") or {}
    split = _choose_split(root, options.split or section.get("train_split"))
    seed = options.seed if options.seed is not None else settings.get("seed_everything")
    data = DetectionData(
        root,
        train_split=split,
        voc_one_based=options.voc_one_based,
        box_convention=options.box_convention,
        **_augmentations(options.config, section),
        image_size=layout.image_size,
        seed=seed if isinstance(seed, int) else 0,
    )
    data.open(("train",))
    strong = data.train_dataset()
    data.run_epochs = (settings.get("trainer") or {}).get("max_epochs")
    layout = settled(layout, data.train)
    dataset = data.train_dataset()
    images = min(options.images, len(dataset))
    return Preview(
        root=root,
        split=split,
        dataset=dataset,
        whole=DetectionDataset(data.train, layout.image_size),
        multi_scale=data.scales(),
        rows=np.linspace(0, len(dataset) - 1, images).round().astype(int).tolist(),
        layout=layout,
        assigner=_assigner(options.config, settings),
        audit=audit(strong, layout, samples=options.samples),
    )


def _choose_split(root: Path, wanted: str | None) -> str:
    reader = recognise(root)
    found = reader.find_splits(root)
    for name in (wanted,) if wanted is not None else DEFAULT_SPLITS["train"]:
        if name in found:
            return name
    raise InputError(
        f"{root} ({reader.NAME}) has no split {wanted or ' or '.join(DEFAULT_SPLITS['train'])}; it has "
        f"{', '.join(found) or 'none'}. Name one with --split"
    )


def _augmentations(config: Path | None, section: dict[str, Any]) -> dict[str, Any]:
    """The section's settings of augmentation, with instances of its classes."""
    wanted = {key: section[key] for key in OF_AUGMENTATION if key in section}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionData, "data")
    data = build(parser, {"data": wanted}, what=f"{config}, data.augmentations").data
    return {key: getattr(data, key) for key in wanted}


def _assigner(config: Path | None, settings: dict[str, Any]) -> Assigner:
    """The assigner of the config's loss, or of the default loss."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=DetectionLoss | None)
    given = {"loss": (settings.get("model") or {}).get("loss")}
    loss: DetectionLoss = build(parser, given, what=f"{config}, model.loss").loss or MultiBoxLoss()
    return loss.assigner


class MatchedAnchors(NamedTuple):
    """The anchors of one sample that are positive for a box in the loss."""

    boxes: NDArray[np.float32]
    """(P, 4) xyxy px of the input."""
    owners: NDArray[np.int64]
    """(P,) the box of the sample that each is positive for."""
    below_match_iou: int
    """Anchors whose IoU with it is below MATCH_IOU, as the best anchor of a box may be."""


def matched_anchors(sample: Sample, layout: AnchorLayout, assigner: Assigner) -> MatchedAnchors:
    """Match as the loss does, with the anchors of the sample's size."""
    layout = replace(layout, image_size=sample.image.shape[:2])
    levels = [torch.from_numpy(level.reshape(-1, 4)) for level in layout.levels()]
    anchors = torch.cat(levels)
    boxes = torch.from_numpy(sample.boxes)
    if not len(boxes):
        return MatchedAnchors(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64), 0)
    labels, ignore = torch.from_numpy(sample.labels), torch.from_numpy(sample.ignore)
    target = Target(boxes[None], labels[None], ignore[None])
    matched = assigner(None, anchors, tuple(map(len, levels)), target).matched[0]
    chosen = torch.where(matched >= 0)[0]
    owners = matched[chosen]
    iou = box_iou(anchors[chosen], boxes)[torch.arange(len(chosen)), owners]
    return MatchedAnchors(anchors[chosen].numpy(), owners.numpy(), int((iou < MATCH_IOU).sum()))

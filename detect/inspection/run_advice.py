"""What a run that ends near its baseline lacks, by what its own figures show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from detect.data.datamodule import DetectionData
from detect.evaluation.evaluator import Metrics
from detect.inspection.anchor_advice import advise
from detect.inspection.anchor_fit import LOW_SHARE
from detect.inspection.anchor_layout import AnchorLayout, anchor_recall, trained_boxes
from detect.inspection.first_config import STEPS, WANTED_CELLS, box_sides
from detect.inspection.starts import Kind

NEAR_BASELINE = 1.5
"""A detector below so many times the mAP of constant boxes has learnt little of what it sees."""
NEAR_ZERO = 0.05
"""Likewise below this mAP, whatever the constant boxes score."""
ENOUGH = 0.7
"""Share of the steps of `STEPS` that counts as enough."""
STILL_RISING = 0.9
"""The best mAP came in the last tenth of the epochs."""
LEARNT_LITTLE = 0.75
"""A last loss above this share of the first."""
LOW_RATE, HIGH_RATE = 0.005, 0.1
"""Learning rates of SGD outside of what batches of 8 to 32 train well with."""
OVERFITTED = 1.2
"""Times its least value that the validation loss ends at."""
FEW_IMAGES = 100
CHECKED_BOXES = 50_000


class RunFacts(NamedTuple):
    """The figures of a run that tell why it is weak."""

    steps: int
    steps_wanted: int
    epochs: int
    best_epoch: int
    train_losses: list[float]
    """Of each epoch."""
    val_losses: list[float]
    """Of each epoch that was validated."""
    rate: float | None
    """Learning rate of SGD; null of another optimizer, whose rates are others."""
    warmup_steps: int
    recall: float
    """Anchor recall of the training boxes."""
    anchor_flags: str | None
    """What would raise it."""
    median_px: float
    """Half of the training boxes are larger on the input."""
    side: int
    """Shorter side of the input, px."""
    finest_stride: int
    """Input px per cell of the first map."""
    images: int
    started: bool
    """From a detector, or with pretrained weights in the backbone."""
    unfound: list[str]
    """Classes with boxes and an AP50 of zero."""


def is_weak(metrics: Metrics) -> bool:
    """Whether a detector is near the constant boxes, or near zero."""
    baseline = metrics.baseline.mAP if metrics.baseline is not None else 0.0
    return 0 <= metrics.mAP < max(NEAR_BASELINE * baseline, NEAR_ZERO)


def explain_weak(metrics: Metrics, facts: RunFacts) -> list[str]:
    """The verdict, and the reasons that the figures show, the likeliest first."""
    baseline = metrics.baseline
    beside = "" if baseline is None else f"; constant boxes, without looking, score {baseline.mAP:.3f}"
    reasons = list(_reasons(facts)) or [
        "none of the usual reasons shows in the figures: look at the worst images in report.html, and at "
        "what the network is shown (`detect data preview`)"
    ]
    return [
        f"mAP {metrics.mAP:.3f} is low{beside}. Likely reasons:",
        *(f"  - {reason}" for reason in reasons),
    ]


def _reasons(facts: RunFacts) -> Iterator[str]:
    yield from _of_length(facts)
    yield from _of_loss(facts)
    yield from _of_boxes(facts)
    if not facts.started and facts.images < 20 * FEW_IMAGES:
        yield (
            f"{facts.images:,} images from random weights: start from a published or an own detector "
            "(`detect init FOLDER`, or --model.init_from CKPT)"
        )
    if facts.images < FEW_IMAGES:
        yield f"{facts.images} training images are few: label more, {FEW_IMAGES} at least"
    if facts.unfound:
        names = ", ".join(facts.unfound[:5]) + (", ..." if len(facts.unfound) > 5 else "")
        yield (
            f"no box is found of {names}: check their boxes and names in both splits (`detect data check`, "
            "`detect data preview`)"
        )


def _of_length(facts: RunFacts) -> Iterator[str]:
    few = facts.steps < ENOUGH * facts.steps_wanted
    rising = facts.best_epoch >= STILL_RISING * facts.epochs and facts.epochs > 5
    if few:
        epochs = -(-facts.epochs * facts.steps_wanted // max(1, facts.steps))
        yield (
            f"{facts.steps:,} steps are few, about {facts.steps_wanted:,} are needed: "
            f"--trainer.max_epochs {epochs}"
        )
    elif rising:
        yield (
            f"the best epoch is the {facts.best_epoch}th of {facts.epochs}, mAP was still rising: "
            f"--trainer.max_epochs {2 * facts.epochs}"
        )
    if 2 * facts.warmup_steps > facts.steps:
        yield (
            f"the warm-up takes {facts.warmup_steps:,} of {facts.steps:,} steps: "
            f"--model.schedule.warmup_steps {max(1, facts.steps // 30)}"
        )


def _of_loss(facts: RunFacts) -> Iterator[str]:
    first, last = facts.train_losses[0], facts.train_losses[-1]
    rate = "" if facts.rate is None else f", {facts.rate:g},"
    key = "--model.optimizer.init_args.lr"
    if not last <= 2 * first:
        lower = "" if facts.rate is None else f": {key} {facts.rate / 3:.2g}"
        yield f"the loss rose from {first:.3g} to {last:.3g}: the learning rate{rate} is too high{lower}"
    elif len(facts.train_losses) > 1 and last > LEARNT_LITTLE * first:
        what = f"the loss only went from {first:.3g} to {last:.3g}"
        if facts.rate is not None and facts.rate < LOW_RATE:
            yield f"{what}: the learning rate{rate} is low, {key} 0.02"
        elif facts.rate is not None and facts.rate > HIGH_RATE:
            yield f"{what}: the learning rate{rate} is high, {key} 0.05"
        elif facts.steps >= ENOUGH * facts.steps_wanted:
            yield f"{what}: try other learning rates, 3 times as high and a third of it"
    if facts.val_losses and facts.val_losses[-1] > OVERFITTED * min(facts.val_losses) and last < first:
        yield (
            f"the validation loss rose from {min(facts.val_losses):.3g} to {facts.val_losses[-1]:.3g} while "
            "the training loss fell: learnt by heart, so fewer epochs, more images or more augmentation"
        )


def _of_boxes(facts: RunFacts) -> Iterator[str]:
    if facts.recall < LOW_SHARE:
        what = f"anchors overlap only {facts.recall:.0%} of the training boxes with IoU 0.5 or more"
        yield what + (f": {facts.anchor_flags}" if facts.anchor_flags else "")
    if facts.median_px < WANTED_CELLS * facts.finest_stride:
        side = round(facts.side * 1.5 / 32) * 32
        yield (
            f"half of the boxes are smaller than {facts.median_px:.0f} px on the input: "
            f"--model.image_size '[{side},{side}]'"
        )


def gather_facts(
    settings: dict[str, Any],
    data: DetectionData,
    layout: AnchorLayout,
    *,
    rows: Sequence[dict[str, str]],
    metrics: Metrics,
) -> RunFacts:
    """The facts of a run.

    Args:
        settings: its configuration, plain values.
        data: opened.
        layout: of its anchors.
        rows: of its metrics.csv, one per epoch.
        metrics: of its best checkpoint.
    """
    model = settings["model"]
    scored = [(float(row["val/mAP"]), int(row["epoch"])) for row in rows if row.get("val/mAP")]
    weights = _arguments(model["backbone"]).get("weights")
    started: Kind = "detector" if model.get("init_from") else "imagenet" if weights else "none"
    recall = anchor_recall(trained_boxes(data.train, at_most=CHECKED_BOXES), layout)
    advice = advise(data.train, layout) if recall < LOW_SHARE else []
    advice = [one for one in advice if one.keeps_anchors or started != "detector"]
    return RunFacts(
        steps=int(rows[-1]["step"]),
        steps_wanted=STEPS[started],
        epochs=int(rows[-1]["epoch"]),
        best_epoch=max(scored)[1] if scored else 0,
        train_losses=[float(row["train/loss"]) for row in rows],
        val_losses=[float(row["val/loss"]) for row in rows if row.get("val/loss")],
        rate=_arguments(model.get("optimizer"), "SGD").get("lr"),
        warmup_steps=_arguments(model.get("schedule")).get("warmup_steps") or 0,
        recall=recall,
        anchor_flags=advice[0].flags if advice else None,
        median_px=float(np.median(box_sides(data.train, min(layout.image_size)))),
        side=min(layout.image_size),
        finest_stride=min(layout.strides),
        images=len(data.train),
        started=started != "none",
        unfound=[name for name, own in metrics.per_class.items() if own.boxes and own.AP50 <= 0],
    )


def _arguments(settings: dict[str, Any] | str | None, name: str = "") -> dict[str, Any]:
    """Arguments of a class in a configuration; none where it is not the class `name`, or a name alone."""
    if not isinstance(settings, dict) or not settings["class_path"].endswith(name):
        return {}
    return settings.get("init_args") or {}

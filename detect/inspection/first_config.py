"""`detect init`: a first configuration for a data set, from its boxes, its size and this machine.

Every choice is a function of its own and comes with its reason; `first_config_text` writes them down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data import augment
from detect.data.annotations import Annotations
from detect.data.datamodule import DetectionData
from detect.data.splits import DEFAULT_SPLITS, Role, recognise
from detect.errors import InputError
from detect.inspection.anchor_advice import TRIED_SIDES, choose_scales
from detect.inspection.anchor_layout import AnchorLayout, trained_boxes
from detect.inspection.recipes import SMALL_MEDIAN, SSDLITE, SSDLITE_PLUS, Recipe
from detect.inspection.starts import Kind, Start, choose_start
from detect.inspection.step_time import measure_step, without_log
from detect.model.anchors import AnchorConfig
from detect.model.backbones.mobilenet_v3 import Size
from detect.model.checkpoint import without_weights
from detect.training.run_time import RunTime

Budget = Literal["phone", "laptop", "gpu"]

SIDES = TRIED_SIDES[1:]
"""Inputs to choose from, px."""
WANTED_CELLS = 2
"""Cells of the finest map that half of the boxes should exceed."""
STEPS: dict[Kind, int] = {"none": 3000, "imagenet": 2000, "detector": 1500}
"""Optimizer steps that a small set needs from each start."""
FEW_IMAGES = 1000
"""From random weights, fewer images than this train the smaller SSDLite better (docs/results.md); the figures
for SSDLite+ and the starter are from fewer, too."""
QUICK_NORM = {"bn_momentum": 0.1}
"""From random weights, running statistics must follow within a few hundred steps."""
LEAST_BATCH = 2
"""BatchNorm on a map of one cell needs two images."""
EPOCHS = (20, 500)
"""No fewer on a large set, no more on a tiny one."""
VALIDATIONS = 30
WARMUP_SHARE = 1 / 30
LEAST_WARMUP = 50
MIRRORED = {"left", "right"}
"""Words in the names of classes that a mirror image would make wrong."""


class BudgetSettings(NamedTuple):
    """What a budget allows."""

    size: Size
    reduced_tail: bool
    largest_side: int


BUDGETS: dict[Budget, BudgetSettings] = {
    "phone": BudgetSettings("small", True, SIDES[0]),
    "laptop": BudgetSettings("large", True, 512),
    "gpu": BudgetSettings("large", False, 640),
}


@dataclass(frozen=True)
class FirstConfig:
    """The sections of a configuration, and the reasons for what is in them."""

    root: Path
    data_line: str
    """The data set in a sentence."""
    model: dict[str, Any]
    data: dict[str, Any]
    trainer: dict[str, Any]
    reasons: dict[str, str]
    """By the path of a key, such as "model.image_size", and of "start"."""
    time: RunTime


class Splits(NamedTuple):
    """Names of the two splits that a training needs."""

    train: str
    val: str


def choose_splits(root: Path, train: str | None = None, val: str | None = None) -> Splits:
    """The named splits, or the first of the usual names that exist.

    Raises:
        InputError: there are not two; says how to divide the folder.
    """
    found = recognise(root).find_splits(root)
    if absent := [name for name in (train, val) if name not in (None, *found)]:
        raise InputError(f"{root} has no split {', '.join(map(str, absent))}; it has {', '.join(found)}")
    train, val = train or _usual(found, "train"), val or _usual(found, "val")
    if train is not None and val is not None:
        return Splits(train, val)
    if len(found) > 1:
        raise InputError(
            f"{root} has the splits {', '.join(found)}: say which is which with --data.train_split and "
            "--data.val_split"
        )
    what = f"one split, {found[0]}" if found else "no split"
    divided = f"{root.absolute().name}-split"
    raise InputError(
        f"{root} has {what}, and training needs another to validate on. First\n"
        f"  detect data split {root} --out {divided}\n"
        f"  detect init {divided}"
    )


def _usual(found: list[str], role: Role) -> str | None:
    return next((name for name in DEFAULT_SPLITS[role] if name in found), None)


def first_config(root: Path, splits: Splits, *, budget: Budget, start: str) -> FirstConfig:
    """Choose every setting for the data set in `root`, and time a few training steps.

    Args:
        root: folder of the data set.
        splits: of it.
        budget: what the detector is to run on.
        start: what its training starts from; see `choose_start`.

    Raises:
        InputError: the data cannot be trained on, or the start cannot be had.
    """
    with without_log():
        data = DetectionData(root, train_split=splits.train, val_split=splits.val)
        data.open()
        few = len(data.train) < FEW_IMAGES
        begin = choose_start(start, BUDGETS[budget].size, few_images=few)
        reasons = {"start": begin.why}
        recipe = choose_recipe(data.train, begin)
        model = choose_backbone(budget, begin, len(data.train), recipe, reasons)
        model["image_size"] = choose_input(data.train, BUDGETS[budget], recipe, reasons)
        model["anchors"] = choose_anchors(data.train, model, reasons)
        batch = data.total_batch_size = choose_batch(len(data.train), recipe)
        length = choose_length(len(data.train), len(data.val), batch=batch, kind=begin.kind)
        model |= choose_optimizer(recipe, batch, length.steps)
        augmentations = choose_augmentations(data.classes.names, recipe, reasons)
        data.image_size = (model["image_size"][0], model["image_size"][1])
        data.augmentations = [
            getattr(augment, name)(**arguments) for name, arguments in augmentations.items()
        ]
        length = length._replace(step_s=measure_step(model, data))
    reasons["trainer.max_epochs"] = f"{length.steps:,} steps; {_why_so_long(begin.kind)}"
    data_section = {
        "root": str(root),
        "train_split": splits.train,
        "val_split": splits.val,
        "total_batch_size": batch,
        "augmentations": [
            {"class_path": f"detect.data.augment.{name}"} | ({"init_args": arguments} if arguments else {})
            for name, arguments in augmentations.items()
        ],
    }
    every = length.epochs // length.validations
    trainer: dict[str, Any] = {"max_epochs": length.epochs, "check_val_every_n_epoch": every}
    if recipe.weak_share:
        data_section["weak_epochs"] = round(length.epochs * recipe.weak_share)
    if recipe.callbacks:
        trainer["callbacks"] = [{"class_path": name} for name in recipe.callbacks]
    return FirstConfig(root, describe_data(data, splits), model, data_section, trainer, reasons, time=length)


def describe_data(data: DetectionData, splits: Splits) -> str:
    """The data set in a sentence."""
    names = data.classes.names
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    errors = sum(finding.severity == "error" for found in data.findings.values() for finding in found)
    wrong = f"; {errors} error{'s' if errors > 1 else ''}, see detect data check" if errors else ""
    return (
        f"{len(data.train):,} images to train on ({splits.train}), {len(data.val):,} to validate on "
        f"({splits.val}); {len(names)} class{'es' if len(names) > 1 else ''}: {listed}{wrong}"
    )


def choose_recipe(train: Annotations, start: Start) -> Recipe:
    """SSDLite+ for few images of small objects, from no start or one that has its maps; else SSDLite."""
    has_maps = start.kind == "none" or start.model.get("taps") == SSDLITE_PLUS.small["taps"]
    if has_maps and len(train) < FEW_IMAGES and float(np.median(box_sides(train, SIDES[0]))) < SMALL_MEDIAN:
        return SSDLITE_PLUS
    return SSDLITE


def choose_backbone(
    budget: Budget, start: Start, images: int, recipe: Recipe, reasons: dict[str, str]
) -> dict[str, Any]:
    """MobileNetV3 in the size of the budget, or the network of the detector that is started from.

    SSDLite from random weights and few images gets the smallest: it learns more in the steps that there are.
    """
    if start.kind == "detector":
        reasons["model.backbone"] = "that of the start, whose weights fit no other"
        return dict(start.model)
    from_nothing = start.kind == "none"
    few = from_nothing and images < FEW_IMAGES and recipe is SSDLITE
    settings = BUDGETS["phone" if few else budget]
    arguments: dict[str, Any] = {"size": settings.size, "reduced_tail": settings.reduced_tail}
    arguments |= start.model.get("backbone", {}).get("init_args", {})
    tail = ", reduced tail" if settings.reduced_tail else ""
    why = "which learns most from few images and random weights" if few else f"for a {budget}"
    reasons["model.backbone"] = f"MobileNetV3-{settings.size.title()}{tail}, {why}"
    model: dict[str, Any] = {
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": arguments}
    }
    if recipe is SSDLITE_PLUS:
        reasons["model.backbone"] += "; SSDLite+, with a map of stride 8 for small objects"
        return model | (recipe.small if settings.size == "small" else recipe.large)
    if not from_nothing:
        return model
    arguments["settings"] = QUICK_NORM
    return model | {"norm": QUICK_NORM}


def choose_input(
    train: Annotations, budget: BudgetSettings, recipe: Recipe, reasons: dict[str, str]
) -> list[int]:
    """[H, W]: the smallest square in which half of the boxes exceed `WANTED_CELLS`, within the budget.

    No larger than the images, for to enlarge them shows nothing more.
    """
    native = float(np.median(train.sizes.min(axis=1)))
    allowed = [side for side in SIDES if side == SIDES[0] or side <= min(native, budget.largest_side)]
    medians = {side: float(np.median(box_sides(train, side))) for side in allowed}
    wanted = WANTED_CELLS * recipe.finest_stride
    side = next((side for side in allowed if medians[side] >= wanted), allowed[-1])
    reasons["model.image_size"] = f"half of the boxes are larger than {medians[side]:.0f} px there"
    if side > SIDES[0]:
        reasons["model.image_size"] += f", at {SIDES[0]} than {medians[SIDES[0]]:.0f}"
    if medians[side] < wanted:
        reasons["model.image_size"] += f"; {wanted} would be better: small objects will be missed"
    return [side, side]


def box_sides(train: Annotations, side: int) -> NDArray[np.float32]:
    """(M,) root of the area of each box on a square input, px."""
    boxes = trained_boxes(train).on_input((side, side))
    sides: NDArray[np.float32] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return sides


def choose_anchors(train: Annotations, model: dict[str, Any], reasons: dict[str, str]) -> dict[str, Any]:
    """The usual scales, or others where they fit better; those of the start where it has learnt some."""
    if (learnt := model.get("anchors")) is not None:
        reasons["model.anchors"] = "those that the start has learnt"
        return dict(learnt)
    config = AnchorConfig(style="torchvision")
    layout = AnchorLayout.of_settings(without_weights(model) | {"anchors": {"style": config.style}})
    chosen = choose_scales(train, layout)
    scales = chosen.layout.config.scales
    what = "the usual ones" if scales is None else f"fitted to the boxes (the usual ones: {chosen.usual:.0%})"
    reasons["model.anchors"] = f"{what}; anchor recall at IoU 0.5, mean of the classes: {chosen.share:.0%}"
    return {"style": config.style} | ({} if scales is None else {"scales": scales})


def choose_batch(images: int, recipe: Recipe) -> int:
    """Images per step.

    Raises:
        InputError: too few for any.
    """
    if images < LEAST_BATCH:
        raise InputError(
            f"{images} image to train on: at least {LEAST_BATCH} are needed, and 100 for a start"
        )
    wanted = next(batch for least, batch in reversed(recipe.batches.items()) if images >= least)
    return min(wanted, images)


def choose_length(images: int, val_images: int, *, batch: int, kind: Kind) -> RunTime:
    """Epochs for the steps that the start needs, a multiple of the epochs between two validations."""
    per_epoch = images // batch
    epochs = min(max(math.ceil(STEPS[kind] / per_epoch), EPOCHS[0]), EPOCHS[1])
    every = max(1, round(epochs / VALIDATIONS))
    epochs = math.ceil(epochs / every) * every
    return RunTime(epochs, epochs * per_epoch, 0.0, epochs // every, math.ceil(val_images / batch))


def choose_optimizer(recipe: Recipe, batch: int, steps: int) -> dict[str, Any]:
    """SGD with a learning rate for the batch, and its warm-up."""
    rate = recipe.learning_rate * min(1.0, batch / recipe.batches[0])
    return {
        "loss": recipe.loss,
        "optimizer": {
            "class_path": "torch.optim.SGD",
            "init_args": {"lr": round(rate, 4), "momentum": 0.9, "weight_decay": 4e-5, "fused": True},
        },
        "schedule": {"warmup_steps": max(LEAST_WARMUP, round(steps * WARMUP_SHARE))},
    }


def choose_augmentations(
    names: Sequence[str], recipe: Recipe, reasons: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Colour, crops, and mirror images where they stay true, with their arguments; nothing upside down."""
    crop = {} if recipe.min_crop is None else {"min_scale": recipe.min_crop}
    chosen: dict[str, dict[str, Any]] = {"PhotometricDistort": {}, "RandomIoUCrop": crop}
    words = {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    characters = sum(len(name) == 1 for name in names)
    if words & MIRRORED or 2 * characters > len(names):
        what = "characters" if characters else "left and right"
        reasons["data.augmentations"] = f"colour and crops; no mirror images, for the classes tell {what}"
    else:
        chosen["RandomHorizontalFlip"] = {}
        reasons["data.augmentations"] = (
            "colour, crops, mirror images; RandomVerticalFlip too where your images have no up"
        )
    return chosen


def _why_so_long(kind: Kind) -> str:
    if kind == "none":
        return "from random weights a small set needs about 3,000"
    return f"from {'a detector' if kind == 'detector' else 'ImageNet'} about {STEPS[kind]:,} are enough"

"""Everything `--data.*` sets: opens both splits, makes their classes agree, and builds the loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from detect.data.annotations import Annotations
from detect.data.augment.plan import layout_of
from detect.data.augment.transforms import Augmentation, default_augmentations, flips_of
from detect.data.cache import GB, CachePlace, NothingFitsError, PixelCache
from detect.data.checks.conventions import BoxConvention
from detect.data.checks.findings import Finding, summarise
from detect.data.checks.repeated_images import repeated_findings
from detect.data.checks.splits import (
    balance,
    compare_classes,
    require_trainable,
    without_undecodable,
)
from detect.data.dataset import DetectionDataset, collate, padded_box_count
from detect.data.multi_scale import MultiScale, sizes_between
from detect.data.repeats import describe_repeats, repeat_factors
from detect.data.sampler import BatchPlan, DetectionLoader, TrainLoader, TrainSampler, ValSampler
from detect.data.splits import OpenedSplit, Role, open_split
from detect.data.workers import LoaderSettings, choose_workers, start_worker
from detect.errors import InputError
from detect.system.cores import available_cores
from detect.system.shared_memory import batch_bytes, bytes_in_flight, require_shared_memory
from detect.types import INPUT_SIZE, ClassMap, ResizeRule


class DetectionData(LightningDataModule):
    """A training and a validation split of one data set.

    Args:
        root: folder of the data set; COCO, Pascal VOC and YOLO are recognised.
        train_split: name of the training split; null takes train2017 or train.
        val_split: name of the validation split; null takes val2017, val, valid or test.
        train_annotations: annotation file of the training split, instead of the one below root.
        train_images: image folder of the training split, instead of the one below root.
        val_annotations: annotation file of the validation split, instead of the one below root.
        val_images: image folder of the validation split, instead of the one below root.
        voc_one_based: subtract the VOC devkit's 1 from xmin and ymin; null: for the official sets alone.
        box_convention: how the files write boxes; null: as their format says, unless that cannot be.
        check_images: decode every image once before it is used and leave broken ones out; what was seen is
            kept, so that only new files are decoded the next time.
        total_batch_size: images per optimizer step over all devices. The learning rate belongs to it.
        batch_size: images per device and forward pass; null: total_batch_size over the devices. Give less
            where memory runs out: gradients of several passes are then added up to the same step. auto, in
            detect fit: the most that fits into the GPU, by an estimate; without a GPU as null.
        workers: loading processes per device; null chooses by the cores, 0 loads in the training process.
        prefetch: batches that each worker prepares ahead; more smooths slow disks and takes memory.
        augmentations: classes of detect.data.augment, in order, first what shows several images, such as
            Mosaic; null takes SSD's.
        weak_epochs: epochs at the end of a run that show `weak_augmentations` in place of `augmentations`, so
            that it ends on images as validation sees them. A resumed run counts from its own last epoch.
        weak_augmentations: the same kind of list; null takes the flips of `augmentations`.
        multi_scale: least and greatest shorter side of the input in training, drawn per step among the
            multiples of 32; null: model.image_size. Validation and weak epochs keep model.image_size.
        repeat_threshold: show training images of classes that fewer than this share of the images hold more
            often, by LVIS's rule; null shows each once per epoch.
        cache: keep decoded images in ram (/dev/shm) or on disk ($DETECT_CACHE); null decodes every time.
        cache_gb: most that the cache may take, in 1e9 bytes; training images come first.
        image_size: height and width of the network input; set by model.image_size.
        seed: of order and augmentation; set by seed_everything.
        resize_rule: how validation images are resized; torchvision is for checkpoints from there.
    """

    train: Annotations
    val: Annotations
    classes: ClassMap

    def __init__(
        self,
        root: Path | str | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        train_annotations: Path | None = None,
        train_images: Path | None = None,
        val_annotations: Path | None = None,
        val_images: Path | None = None,
        voc_one_based: bool | None = None,
        box_convention: BoxConvention | None = None,
        check_images: bool = True,
        total_batch_size: int = 32,
        batch_size: int | Literal["auto"] | None = None,
        workers: int | None = None,
        prefetch: int = 2,
        augmentations: list[Augmentation] | None = None,
        weak_epochs: int = 0,
        weak_augmentations: list[Augmentation] | None = None,
        multi_scale: tuple[int, int] | None = None,
        repeat_threshold: float | None = None,
        cache: CachePlace | None = None,
        cache_gb: float = 8.0,
        image_size: tuple[int, int] = INPUT_SIZE,
        seed: int = 0,
        resize_rule: ResizeRule = "antialias",
    ) -> None:
        super().__init__()
        _require_at_least(1, total_batch_size=total_batch_size, prefetch=prefetch)
        _require_at_least(0, workers=workers or 0, weak_epochs=weak_epochs)
        if cache is not None and not cache_gb > 0:
            raise InputError(f"data.cache_gb is {cache_gb}; give more than 0, or leave data.cache out")
        for steps in (augmentations, weak_augmentations):
            layout_of(steps or [])  # refuses an order that cannot be
        if multi_scale is not None:
            sizes_between(multi_scale, image_size)  # refuses what is no range
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no validation image
        self.root = None if root is None else Path(root)
        self.split_names = {"train": train_split, "val": val_split}
        self.annotation_files = {"train": train_annotations, "val": val_annotations}
        self.image_folders = {"train": train_images, "val": val_images}
        self.voc_one_based = voc_one_based
        self.box_convention = box_convention
        self.check_images = check_images
        self.total_batch_size = total_batch_size
        self.batch_size: int | None = None if batch_size == "auto" else batch_size
        """With auto from the moment on that a run has settled it."""
        self.workers = workers
        self.prefetch = prefetch
        self.augmentations = augmentations
        self.weak_epochs, self.weak_augmentations = weak_epochs, weak_augmentations
        self.multi_scale = multi_scale
        self.run_epochs: int | None = None
        """Epochs of the run, which the module says at set-up; None: there is none, and no last epoch."""
        self.repeat_threshold = repeat_threshold
        self.cache = cache
        self.cache_gb = cache_gb
        self.image_size = image_size
        self.seed = seed
        self.resize_rule = resize_rule
        self.findings: dict[str, list[Finding]] = {}
        self._opened: dict[str, OpenedSplit] = {}
        self._caches: dict[Role, PixelCache | None] = {}

    def open(self, roles: Sequence[Role] = ("train", "val")) -> None:
        """Read the splits of `roles`, once; `train`, `val`, `classes` and `findings` are there afterwards.

        Validation labels follow the order of the training classes; with "val" alone the classes are its own.

        Raises:
            InputError: a split cannot be read, or validation has classes that training lacks.
        """
        for role in roles:
            if role not in self._opened:
                self._opened[role] = self._open(role)
        if "train" in self._opened:
            self.train = self._opened["train"].annotations
            self.classes = self.train.classes
        if "val" in self._opened:
            self.val = self._opened["val"].annotations
            if "train" in self._opened:
                self.val = align_classes(self.val, self.classes)
                self._compare_splits()
            else:
                self.classes = self.val.classes

    def _compare_splits(self) -> None:
        """Say once how the classes of the splits differ, and which images and boxes repeat across them."""
        if not self.check_images or "both" in self.findings:
            return
        as_read = {"train": self.train, "val": self._opened["val"].annotations}
        self.findings["both"] = [
            *compare_classes("train", as_read),
            *repeated_findings({"train": self.train, "val": self.val}, train="train"),
        ]
        if self.findings["both"]:
            rank_zero_info(summarise(self.findings["both"]))

    def setup(self, stage: str | None = None) -> None:
        self.open(("train", "val") if stage in ("fit", None) else ("val",))

    def plan_batches(self) -> BatchPlan:
        """The shares of `total_batch_size` on the trainer's devices; alone, all on one.

        Where `batch_size` is given, the trainer's accumulation follows from it and is set.
        """
        trainer = self.trainer
        world_size = trainer.world_size if trainer else 1
        accumulate = trainer.accumulate_grad_batches if trainer else 1
        if self.batch_size is None:
            return BatchPlan.derive(self.total_batch_size, world_size=world_size, accumulate=accumulate)
        plan = BatchPlan.derive(
            self.total_batch_size,
            world_size=world_size,
            batch_size=self.batch_size,
            accumulate=accumulate if accumulate > 1 else None,
        )
        if trainer:
            trainer.accumulate_grad_batches = plan.accumulate
        return plan

    def train_dataloader(self) -> TrainLoader:
        plan = self.plan_batches()
        rank = self.trainer.global_rank if self.trainer else 0
        repeats = None
        if self.repeat_threshold is not None:
            repeats = repeat_factors(self.train, self.repeat_threshold)
        dataset = self.train_dataset()
        sampler = TrainSampler(
            np.diff(self.train.offsets),
            plan,
            rank=rank,
            seed=self.seed,
            repeats=repeats,
            count_boxes=dataset.count_boxes if dataset.shows_several else None,
            multi_scale=self.scales(),
        )
        rank_zero_info(f"{plan}; {sampler.steps_per_epoch} steps per epoch")
        if repeats is not None:
            rank_zero_info(describe_repeats(repeats))
        elif sampler.dropped_per_epoch:
            rank_zero_info(
                f"{sampler.dropped_per_epoch} images of each epoch, others each time, fill no batch"
            )
        if dataset.weak_from is not None:
            names = ", ".join(type(step).__name__ for step in dataset.weak_augmentations) or "none"
            rank_zero_info(f"weak augmentations from epoch {dataset.weak_from + 1} on: {names}")
        dataset.cache = self._open_cache(dataset, "train")
        self._require_shared_memory(plan.batch_size, dataset.most_boxes)
        return TrainLoader(dataset, batch_sampler=sampler, **self._loader_options())

    def train_dataset(self) -> DetectionDataset:
        """The training split as the network is shown it."""
        augmentations = self.augmentations if self.augmentations is not None else default_augmentations()
        weak = self.weak_augmentations
        return DetectionDataset(
            self.train,
            self.image_size,
            largest_size=self.train_sizes[-1],
            augmentations=augmentations,
            weak_augmentations=flips_of(augmentations) if weak is None else weak,
            weak_from=self._weak_from,
            seed=self.seed,
        )

    def val_dataset(self) -> DetectionDataset:
        """The validation split, every image whole."""
        return DetectionDataset(self.val, self.image_size, resize_rule=self.resize_rule)

    @property
    def train_sizes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every input that training may have, the largest last."""
        if self.multi_scale is None:
            return (self.image_size,)
        return tuple(sorted({*sizes_between(self.multi_scale, self.image_size), self.image_size}))

    def scales(self) -> MultiScale | None:
        """The size of the input in each step; None: always `image_size`."""
        if self.multi_scale is None:
            return None
        sizes = sizes_between(self.multi_scale, self.image_size)
        return MultiScale(sizes, self.seed, until=self._weak_from)

    @property
    def _weak_from(self) -> int | None:
        """The first epoch of the run, from 0, with weak augmentations."""
        if self.run_epochs is None or not self.weak_epochs:
            return None
        return max(0, self.run_epochs - self.weak_epochs)

    def val_dataloader(self) -> DetectionLoader:
        trainer = self.trainer
        world_size, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        batch_size = self._val_batch_size(world_size)
        sampler = ValSampler(np.diff(self.val.offsets), batch_size, rank=rank, world_size=world_size)
        dataset = self.val_dataset()
        dataset.cache = self._open_cache(dataset, "val")
        return DetectionLoader(dataset, batch_sampler=sampler, **self._loader_options())

    def _open(self, role: Role) -> OpenedSplit:
        opened = open_split(
            self.root,
            self.split_names[role],
            role=role,
            annotations=self.annotation_files[role],
            images=self.image_folders[role],
            voc_one_based=self.voc_one_based,
            box_convention=self.box_convention,
        )
        if self.check_images:
            opened = without_undecodable(opened)
        require_trainable(opened, role)
        self.findings[role] = [*opened.findings, *balance(opened.annotations)]
        found = opened.annotations
        rank_zero_info(
            f"{role}: {opened.split} ({opened.format}) in {found.root}: {len(found)} images, "
            f"{len(found.boxes)} boxes, {found.classes.num_classes} classes"
        )
        if self.findings[role]:
            rank_zero_info(summarise(self.findings[role]))
        return opened

    def _open_cache(self, dataset: DetectionDataset, role: Role) -> PixelCache | None:
        """The cache of a split, opened once; None where none is wanted or the other split left no room."""
        if self.cache is None or role in self._caches:
            return self._caches.get(role)
        others = [cache.size_bytes for cache in self._caches.values() if cache is not None]
        limit_gb = self.cache_gb - sum(others) / GB
        cache = None
        try:
            cache = PixelCache(dataset.annotations, dataset.draft_scales, place=self.cache, limit_gb=limit_gb)
        except NothingFitsError:
            if not others:
                raise
        self._caches[role] = cache
        cached, size_gb = (0, 0.0) if cache is None else (cache.num_cached, cache.size_bytes / GB)
        rank_zero_info(
            f"cache of {role} in {self.cache}: {cached} of {len(dataset)} images, {size_gb:.3g} GB; "
            "the others are decoded every time"
            if cached < len(dataset)
            else f"cache of {role} in {self.cache}: all {cached} images, {size_gb:.3g} GB"
        )
        return cache

    def _val_batch_size(self, world_size: int) -> int:
        return self.batch_size or max(1, self.total_batch_size // world_size)

    def loader_settings(self) -> LoaderSettings:
        """How this machine's ranks load."""
        ranks_here = self.trainer.num_devices if self.trainer else 1
        workers = self.workers if self.workers is not None else choose_workers(available_cores(), ranks_here)
        return LoaderSettings(workers, ranks_here, cached=self.cache is not None)

    def _require_shared_memory(self, train_batch_size: int, most_boxes: int) -> None:
        """Check before a worker starts that there is room for what the workers of both loaders prepare."""
        settings = self.loader_settings()
        world_size = self.trainer.world_size if self.trainer else 1
        size = self.train_sizes[-1]
        batches = [batch_bytes(train_batch_size, size, boxes=padded_box_count(most_boxes))]
        if "val" in self._opened:
            value_bytes = 1 if self.resize_rule == "antialias" else 4
            val_batch_size = self._val_batch_size(world_size)
            boxes = padded_box_count(int(np.diff(self.val.offsets).max(initial=0)))
            batches.append(batch_bytes(val_batch_size, self.image_size, boxes=boxes, value_bytes=value_bytes))
        workers, prefetch = settings.workers, self.prefetch
        needed = sum(bytes_in_flight(batch, workers=workers, prefetch=prefetch) for batch in batches)
        require_shared_memory(settings.ranks_here * needed, workers=workers, prefetch=prefetch)

    def _loader_options(self) -> dict[str, Any]:
        trainer = self.trainer
        workers = self.loader_settings().workers
        return {
            "collate_fn": collate,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "prefetch_factor": self.prefetch if workers else None,
            "pin_memory": trainer is not None and trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": start_worker,
        }


def _require_at_least(least: int, **values: int) -> None:
    """Raise InputError where a setting is smaller than it can be."""
    for name, value in values.items():
        if value < least:
            raise InputError(f"data.{name} is {value}; give {least} or more")


def align_classes(annotations: Annotations, classes: ClassMap) -> Annotations:
    """The same boxes with labels of `classes`, matched by name.

    Raises:
        InputError: `annotations` has a class that `classes` lacks; names the difference.
    """
    if annotations.classes == classes:
        return annotations
    label_of = {name: label for label, name in enumerate(classes.names, 1)}
    unknown = [name for name in annotations.classes.names if name not in label_of]
    if unknown:
        own = set(annotations.classes.names)
        absent = [name for name in classes.names if name not in own]
        raise InputError(
            f"{annotations.source} has classes that are not trained: {', '.join(unknown)}; "
            f"trained but not in it: {', '.join(absent) or 'none'}. Names must be spelt alike"
        )
    new_labels = np.array([0] + [label_of[name] for name in annotations.classes.names])
    return replace(annotations, classes=classes, labels=new_labels[annotations.labels].astype(np.int64))

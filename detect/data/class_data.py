"""Images with one label each: what `detect pretrain` learns from, by the loader of the detectors.

An image is read as one box that covers it, and so is every sample, whatever a crop leaves of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from detect.data.annotations import Annotations
from detect.data.augment.crops import CentreCrop, RandomResizedCrop
from detect.data.augment.plan import Layout, Plan
from detect.data.augment.transforms import Augmentation, RandomHorizontalFlip
from detect.data.cache import CachePlace
from detect.data.checks.duplicates import equal_groups
from detect.data.checks.findings import Finding, summarise
from detect.data.checks.scan import scan_images
from detect.data.checks.splits import compare_classes, without_undecodable
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, Sample, SampleKey
from detect.data.readers import Reader, class_folder
from detect.data.splits import OpenedSplit, Role, open_split
from detect.errors import InputError
from detect.types import Target

INPUT_SIZE = (224, 224)
"""(H, W) px: the papers'."""
ERASED_RGB = [124, 116, 104]
"""What a random erasing leaves: ImageNet's mean, which a network sees as nothing."""
PIXEL_STREAM = 0x91CE1
"""Sets the random numbers of the pixel steps apart from those of the crop, for the same sample."""


def class_of_samples(target: Target) -> Tensor:
    """(B,) int64 0..K-1, the class of each sample of a batch."""
    return target.labels[:, 0] - 1


class ClassDataset(DetectionDataset):
    """Samples of a split with one label per image, and steps that change pixels after the one resize.

    Args:
        annotations: the split, one box per image.
        image_size: (H, W) of the network input.
        pixel_steps: modules from (3, H, W) uint8 to the same, that draw from torch's generator.
        augmentations: changes of the view, in order.
        seed: of both.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_size: tuple[int, int],
        *,
        pixel_steps: list[nn.Module],
        augmentations: list[Augmentation],
        seed: int = 0,
    ) -> None:
        super().__init__(annotations, image_size, augmentations=augmentations, seed=seed)
        self.pixel_steps = pixel_steps

    def show(self, plan: Plan, decoded: Mapping[int, NDArray[np.uint8]], key: SampleKey) -> Sample:
        """As DetectionDataset's, with the pixel steps: a function of (seed, epoch, row, copy) alone."""
        sample = super().show(plan, decoded, key)
        height, width = sample.image.shape[:2]
        sample = sample._replace(
            boxes=np.array([[0, 0, width, height]], np.float32),
            labels=self.annotations.labels[key.row : key.row + 1],
            ignore=np.zeros(1, np.bool_),
        )
        if not self.pixel_steps:
            return sample
        place = (self.seed, key.epoch, key.row, key.copy, PIXEL_STREAM)
        image: Tensor = torch.from_numpy(sample.image).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
            for step in self.pixel_steps:
                image = step(image)
        return sample._replace(image=image.permute(1, 2, 0).contiguous().numpy())


class ClassificationData(DetectionData):
    """A training and a validation split of a folder of classes.

    Args:
        root: folder with train/NAME/* and val/NAME/*, a folder per class.
        train_split: name of the training split; null takes train.
        val_split: name of the validation split; null takes val, valid or test.
        licence: terms of the images, noted in the weights that are made from them.
        check_images: decode every image once before it is used and leave broken ones out; what was seen is
            kept, so that only new files are decoded the next time.
        total_batch_size: images per optimizer step over all devices. The learning rate belongs to it.
        batch_size: images per device and forward pass; null: total_batch_size over the devices.
        workers: loading processes per device; null chooses by the cores, 0 loads in the training process.
        prefetch: batches that each worker prepares ahead.
        augmentations: classes of detect.data.augment, in order; null: the Inception crop and a flip.
        trivial_augment: after them one change of drawn kind and strength (arXiv 2103.10158).
        erasing_probability: how often a rectangle is erased after that (arXiv 1708.04896).
        val_crop: share of the shorter side that validation sees, from the middle.
        cache: keep decoded images in ram (/dev/shm) or on disk ($DETECT_CACHE); null decodes every time.
        cache_gb: most that the cache may take, in 1e9 bytes; training images come first.
        image_size: height and width of the network input; set by model.image_size.
        seed: of order and augmentation; set by seed_everything.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        licence: str | None = None,
        check_images: bool = True,
        total_batch_size: int = 256,
        batch_size: int | None = None,
        workers: int | None = None,
        prefetch: int = 2,
        augmentations: list[Augmentation] | None = None,
        trivial_augment: bool = False,
        erasing_probability: float = 0.0,
        val_crop: float = 0.875,
        cache: CachePlace | None = None,
        cache_gb: float = 8.0,
        image_size: tuple[int, int] = INPUT_SIZE,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root=root,
            train_split=train_split,
            val_split=val_split,
            check_images=check_images,
            total_batch_size=total_batch_size,
            batch_size=batch_size,
            workers=workers,
            prefetch=prefetch,
            augmentations=augmentations,
            cache=cache,
            cache_gb=cache_gb,
            image_size=image_size,
            seed=seed,
        )
        if not 0 <= erasing_probability <= 1:
            raise InputError(f"data.erasing_probability is {erasing_probability}; give a share from 0 to 1")
        for step in augmentations or []:
            if isinstance(step, Layout):
                raise InputError(
                    f"data.augmentations: {type(step).__name__} shows several images with boxes; images are "
                    "mixed by model.mixup_alpha and model.cutmix_alpha"
                )
        height, width = image_size
        self.licence = licence
        self.trivial_augment, self.erasing_probability = trivial_augment, erasing_probability
        self.val_step = CentreCrop(val_crop, aspect_ratio=width / height)

    def train_dataset(self) -> ClassDataset:
        """The training split as the network is shown it."""
        steps: list[nn.Module] = []
        if self.trivial_augment:
            steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
        if self.erasing_probability:
            steps.append(v2.RandomErasing(self.erasing_probability, value=ERASED_RGB))
        augmentations = self.augmentations
        if augmentations is None:
            augmentations = [RandomResizedCrop(), RandomHorizontalFlip()]
        return ClassDataset(
            self.train, self.image_size, pixel_steps=steps, augmentations=augmentations, seed=self.seed
        )

    def val_dataset(self) -> ClassDataset:
        """The validation split: the middle of every image."""
        return ClassDataset(self.val, self.image_size, pixel_steps=[], augmentations=[self.val_step])

    def _open(self, role: Role) -> OpenedSplit:
        opened = open_split(self.root, self.split_names[role], role=role, reader=cast(Reader, class_folder))
        if self.check_images:
            opened = without_undecodable(opened)
        self.findings[role] = opened.findings
        found = opened.annotations
        rank_zero_info(
            f"{role}: {opened.split} ({opened.format}) in {found.root}: {len(found)} images, "
            f"{found.classes.num_classes} classes"
        )
        if self.findings[role]:
            rank_zero_info(summarise(self.findings[role]))
        return opened

    def _compare_splits(self) -> None:
        """Say once how the classes of the splits differ, and which files of validation are trained on."""
        if "both" in self.findings:
            return
        as_read = {"train": self.train, "val": self._opened["val"].annotations}
        self.findings["both"] = compare_classes("train", as_read)
        if self.check_images:
            self.findings["both"] += leaked_files(self.train, self.val)
        if self.findings["both"]:
            rank_zero_info(summarise(self.findings["both"]))


def leaked_files(train: Annotations, val: Annotations) -> list[Finding]:
    """Files of validation with the same bytes as one of training.

    Images that merely look alike, as `detect data check` finds, are too many pairs in a million images.
    """
    names = [*train.file_names.tolist(), *val.file_names.tolist()]
    # Each by itself: a scan recalls what it saw of the files of one folder.
    scans = [scan_images([split.path(row) for row in range(len(split))]) for split in (train, val)]
    digests = np.concatenate([scan.digests for scan in scans])
    first = equal_groups(digests, digests != b"")
    return [
        Finding(
            "image-in-two-splits",
            "warning",
            names[row].decode(),
            None,
            f"equals {names[first[row]].decode()} of training: what is scored was trained on",
            "kept",
        )
        for row in range(len(train), len(names))
        if first[row] < len(train)
    ]

"""Where loading spends its time: decode, augment and collate, each alone, in this process and on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, SampleKey, collate, padded_box_count
from detect.system.cores import available_cores

MS = 1e3


@dataclass(frozen=True)
class LoaderProfile:
    """Processor time of one image in each step, ms; means over `images`."""

    decode_ms: float
    """File to pixels, or from the cache."""
    augment_ms: float
    """Pixels to what the network sees: plan, crop, resize, flip, colour, boxes."""
    collate_ms: float
    """Samples to a batch."""
    images: int
    cores: int
    """Cores that this process may use."""

    @property
    def images_per_s(self) -> float:
        """Images per second of one core."""
        return MS / (self.decode_ms + self.augment_ms + self.collate_ms)

    def __str__(self) -> str:
        rows = (("decode", self.decode_ms), ("augment", self.augment_ms), ("collate", self.collate_ms))
        lines = [f"{name:8} {value:8.2f} ms per image" for name, value in rows]
        return "\n".join(
            [*lines, f"{self.images_per_s:.0f} images/s per core, {self.cores} core(s), {self.images} images"]
        )


def profile(data: DetectionData, *, images: int = 256) -> LoaderProfile:
    """Time the training loader's steps over `images` images, in batches of `data.total_batch_size`.

    With a cache the files are decoded once before, so that what is timed is a later epoch.

    Args:
        data: its training split is opened here if it is not yet.
        images: how many; the split is gone through again where it is smaller.
    """
    data.open(("train",))
    return profile_dataset(data.train_dataloader().dataset, data.total_batch_size, images=images)


def profile_dataset(dataset: DetectionDataset, batch_size: int, *, images: int) -> LoaderProfile:
    """`profile` of a data set that is in use; nothing of it changes."""
    padded = padded_box_count(dataset.most_boxes)
    keys = [SampleKey(*divmod(i, len(dataset)), padded) for i in range(images)]
    if dataset.cache is not None:
        for key in keys:
            dataset.decode(dataset.layout(key))
    spent = {"decode": 0.0, "augment": 0.0, "collate": 0.0}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent[step] += time.process_time() - start

    for batch in _batches(keys, batch_size):
        samples = []
        for key in batch:
            with timed("augment"):
                plan = dataset.plan(key)
            with timed("decode"):
                decoded = dataset.decode(plan)
            with timed("augment"):
                samples.append(dataset.show(plan, decoded, key))
        with timed("collate"):
            collate(samples)
    mean_ms = {f"{step}_ms": seconds * MS / len(keys) for step, seconds in spent.items()}
    return LoaderProfile(**mean_ms, images=len(keys), cores=available_cores())


def _batches(keys: Sequence[SampleKey], size: int) -> Iterator[Sequence[SampleKey]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]

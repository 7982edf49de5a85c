"""Which images make which batch: the same on any number of workers and ranks, and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from detect.data.dataset import DetectionDataset, Sample, SampleKey, padded_box_count
from detect.data.multi_scale import MultiScale
from detect.data.repeats import draw_repeats
from detect.data.stall import InHand, stall_reported
from detect.errors import InputError
from detect.types import Batch

SHUFFLE_STREAM = 0x5EED
"""Sets the shuffle's random numbers apart from those of sample 0, 1, ... of the same seed and epoch."""
TOO_SMALL = "BatchNorm on the last map, which is 1 x 1, needs at least 2 images per device"


@dataclass(frozen=True)
class BatchPlan:
    """How `total_batch_size` images are shared out: total = batch_size x world_size x accumulate."""

    total_batch_size: int
    """Images per optimizer step over all devices: what learning rate and warm-up belong to."""
    batch_size: int
    """Images per device and forward pass."""
    world_size: int
    accumulate: int

    @classmethod
    def derive(
        cls,
        total_batch_size: int,
        *,
        world_size: int,
        batch_size: int | None = None,
        accumulate: int | None = None,
    ) -> BatchPlan:
        """Find what is not given; without either, no accumulation.

        Raises:
            InputError: the numbers do not divide, or a device would see fewer than 2 images.
        """
        if batch_size is not None:
            parts, given = world_size * batch_size, f"batch_size {batch_size}"
        else:
            parts, given = world_size * (accumulate or 1), f"accumulate_grad_batches {accumulate or 1}"
        if batch_size is not None and batch_size < 2:
            raise InputError(f"data.batch_size {batch_size}: {TOO_SMALL}; raise it")
        if total_batch_size < 1 or total_batch_size % parts:
            raise InputError(
                f"total_batch_size {total_batch_size} does not divide over {world_size} device(s) with "
                f"{given}: it must be a multiple of {parts}, such as {_near(total_batch_size, parts)}"
            )
        rest = total_batch_size // parts
        plan = cls(
            total_batch_size,
            batch_size=batch_size if batch_size is not None else rest,
            world_size=world_size,
            accumulate=rest if batch_size is not None else accumulate or 1,
        )
        if accumulate is not None and plan.accumulate != accumulate:
            raise InputError(
                f"total_batch_size {total_batch_size} on {world_size} device(s) with batch_size {batch_size} "
                f"takes {plan.accumulate} forward passes per step, not accumulate_grad_batches {accumulate}: "
                "leave one of the two out"
            )
        if plan.batch_size < 2:
            raise InputError(
                f"{plan}: {TOO_SMALL}; raise data.total_batch_size to {2 * parts}, or use fewer devices or "
                "forward passes per step"
            )
        return plan

    def __str__(self) -> str:
        return (
            f"{self.total_batch_size} images per step = {self.batch_size} per device x {self.world_size} "
            f"device(s) x {self.accumulate} forward pass(es)"
        )


class TrainSampler(Sampler[list[SampleKey]]):
    """Batches of one rank: the epoch's permutation cut into global batches, those into micro-steps and ranks.

    Global batch g is `permutation[g * T:(g + 1) * T]`; in its micro-step m rank r takes the
    (m * world_size + r)-th slice. The rest of the permutation that fills no global batch is left out.

    With `repeats` the permutation is one of all showings, and an epoch still has the steps that N images
    fill: schedules, checkpoints and comparisons keep their meaning, and other images give way.

    Args:
        box_counts: (N,) boxes of each image, for the padding of its global batch.
        plan: the shares.
        rank: of this process.
        seed: of the order.
        repeats: (N,) of `repeats.repeat_factors`; None shows no image twice in an epoch.
        count_boxes: boxes of all images that a sample shows; None: each shows its own image alone.
        multi_scale: the size of each global batch; None: all have the data set's.

    Raises:
        InputError: fewer images than one global batch.
    """

    def __init__(
        self,
        box_counts: NDArray[np.int64],
        plan: BatchPlan,
        *,
        rank: int = 0,
        seed: int = 0,
        repeats: NDArray[np.float64] | None = None,
        count_boxes: Callable[[SampleKey], int] | None = None,
        multi_scale: MultiScale | None = None,
    ) -> None:
        require_full_batch(len(box_counts), plan.total_batch_size)
        self.box_counts = box_counts
        self.plan, self.rank, self.seed, self.repeats = plan, rank, seed, repeats
        self.count_boxes, self.multi_scale = count_boxes, multi_scale
        self.epoch = 0
        self.start_batch = 0
        """Batches of this epoch that were trained on already; iteration starts after them."""

    @property
    def steps_per_epoch(self) -> int:
        """Global batches, that is optimizer steps."""
        return len(self.box_counts) // self.plan.total_batch_size

    @property
    def dropped_per_epoch(self) -> int:
        """Images of each epoch's permutation that fill no global batch."""
        return len(self.box_counts) % self.plan.total_batch_size

    def of_rank(self, rank: int) -> TrainSampler:
        """The same plan for another process, at the start of epoch 0."""
        return TrainSampler(
            self.box_counts,
            self.plan,
            rank=rank,
            seed=self.seed,
            repeats=self.repeats,
            count_boxes=self.count_boxes,
            multi_scale=self.multi_scale,
        )

    def order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and, of each, which showing it is, both (M,) in the order of `epoch`.

        M = N without repeats; with them at least N, of which the first N are used.
        """
        rows = np.arange(len(self.box_counts))
        copies = np.zeros_like(rows)
        if self.repeats is not None:
            counts = draw_repeats(self.repeats, seed=self.seed, epoch=epoch)
            rows = np.repeat(rows, counts)
            copies = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.random.default_rng((self.seed, epoch, SHUFFLE_STREAM)).permutation(len(rows))
        return rows[order], copies[order]

    @property
    def sampler(self) -> TrainSampler:
        """Itself: Lightning looks for `set_epoch` at `loader.batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; no change where it is the current one, so that a restart resumes."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, wherever iteration starts."""
        return self.steps_per_epoch * self.plan.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self.epoch
        rows, copies = self.order(epoch)
        for batch in range(self.start_batch, len(self)):
            step, micro_step = divmod(batch, self.plan.accumulate)
            first = step * self.plan.total_batch_size
            together = slice(first, first + self.plan.total_batch_size)
            size = self.multi_scale.size(epoch, step) if self.multi_scale else None
            padded = padded_box_count(self._most_boxes(epoch, rows[together], copies[together], size))
            first += (micro_step * self.plan.world_size + self.rank) * self.plan.batch_size
            own = slice(first, first + self.plan.batch_size)
            yield [
                SampleKey(epoch, row, padded, copy, size)
                for row, copy in zip(rows[own].tolist(), copies[own].tolist(), strict=True)
            ]

    def _most_boxes(
        self,
        epoch: int,
        rows: NDArray[np.int64],
        copies: NDArray[np.int64],
        image_size: tuple[int, int] | None,
    ) -> int:
        """No sample of a global batch has more boxes."""
        if self.count_boxes is None:
            return int(self.box_counts[rows].max())
        return max(
            self.count_boxes(SampleKey(epoch, row, 0, copy, image_size))
            for row, copy in zip(rows.tolist(), copies.tolist(), strict=True)
        )


class ValSampler(Sampler[list[SampleKey]]):
    """Batches of rank r: rows r, r + world_size, ... in order, none twice; a rank may have none.

    Args:
        box_counts: (N,) boxes of each image.
        batch_size: images per forward pass; the last batch may be smaller.
        rank: of this process.
        world_size: how many processes share the split.
    """

    def __init__(
        self, box_counts: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.box_counts, self.batch_size = box_counts, batch_size
        self.rows = np.arange(rank, len(box_counts), world_size)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.rows), self.batch_size):
            rows = self.rows[start : start + self.batch_size]
            padded = padded_box_count(int(self.box_counts[rows].max()))
            yield [SampleKey(0, int(row), padded) for row in rows]


class DetectionLoader(DataLoader[Sample]):
    """A DataLoader whose workers' input errors arrive as the sentence they were, and that says who stalls."""

    dataset: DetectionDataset

    def __init__(self, dataset: DetectionDataset, **settings: Any) -> None:
        super().__init__(dataset, **settings)
        dataset.in_hand = InHand(self.num_workers)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is all that is needed
        assert self.dataset.in_hand is not None
        batches = super().__iter__()  # starts the workers
        try:
            while True:
                with stall_reported(self.dataset.in_hand, self.dataset.annotations.path):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        except InputError as error:
            # torch prefixes the worker's traceback; the sentence follows the exception's name.
            raise InputError(str(error).rpartition(f"{InputError.__name__}: ")[2].strip()) from error


class TrainLoader(DetectionLoader):
    """A loader that knows how many batches it has handed out, and can resume from there.

    Batches that wait in workers are not counted: a checkpoint written after a step holds exactly the place
    of the next one.
    """

    batch_sampler: TrainSampler

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.batch_sampler
        for batch in super().__iter__():
            sampler.start_batch += 1
            yield batch
        sampler.start_batch = 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many images of it were handed out over all ranks."""
        plan = self.batch_sampler.plan
        images = self.batch_sampler.start_batch * plan.batch_size * plan.world_size
        return {"epoch": self.batch_sampler.epoch, "images": images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the images of `state`, on whatever number of devices.

        Raises:
            InputError: they do not fill whole global batches.
        """
        sampler = self.batch_sampler
        steps, rest = divmod(state["images"], sampler.plan.total_batch_size)
        if rest:
            raise InputError(
                f"the checkpoint stands {rest} images into a batch of {sampler.plan.total_batch_size}: it "
                "has another total_batch_size, or was written inside an accumulation window"
            )
        sampler.epoch, sampler.start_batch = state["epoch"], steps * sampler.plan.accumulate


def require_full_batch(images: int, total_batch_size: int) -> None:
    """Refuse a data set that is smaller than one optimizer step.

    Raises:
        InputError: it is; names both numbers.
    """
    if images < total_batch_size:
        raise InputError(
            f"{images} training images do not fill one batch of total_batch_size {total_batch_size}: lower "
            "it with --data.total_batch_size, and the learning rate with it"
        )


def _near(value: int, factor: int) -> str:
    """The multiples of `factor` on both sides of `value`, with at least two images a part."""
    below = max(value // factor, 2) * factor
    return f"{below} or {below + factor}"

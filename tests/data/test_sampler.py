from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data.augment.transforms import default_augmentations
from detect.data.dataset import DetectionDataset, collate, padded_box_count
from detect.data.sampler import BatchPlan, DetectionLoader, TrainLoader, TrainSampler, ValSampler
from detect.data.splits import open_split
from detect.errors import InputError
from detect.types import Batch
from tests.conftest import make_coco

# BatchPlan


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"world_size": 1}, (32, 1)),
        ({"world_size": 4}, (8, 1)),
        ({"world_size": 2, "accumulate": 4}, (4, 4)),
        ({"world_size": 2, "batch_size": 4}, (4, 4)),
        ({"world_size": 2, "batch_size": 4, "accumulate": 4}, (4, 4)),
    ],
)
def test_batch_plan__derives_what_is_not_given(arguments: dict[str, int], expected: tuple[int, int]) -> None:
    plan = BatchPlan.derive(32, **arguments)
    assert (plan.batch_size, plan.accumulate) == expected
    assert plan.batch_size * plan.world_size * plan.accumulate == 32


def test_batch_plan__reads_as_a_sentence() -> None:
    plan = BatchPlan.derive(64, world_size=2, batch_size=8)
    assert str(plan) == "64 images per step = 8 per device x 2 device(s) x 4 forward pass(es)"


@pytest.mark.parametrize(
    ("total", "arguments", "message"),
    [
        (30, {"world_size": 4}, r"30 does not divide over 4 device\(s\).*multiple of 4, such as 28 or 32"),
        (30, {"world_size": 1, "batch_size": 8}, r"with batch_size 8: .*multiple of 8, such as 24 or 32"),
        (2, {"world_size": 1, "accumulate": 4}, r"accumulate_grad_batches 4: .*such as 8 or 12"),
        (0, {"world_size": 1}, r"total_batch_size 0 does not divide"),
        (
            32,
            {"world_size": 1, "batch_size": 0},
            r"data.batch_size 0: BatchNorm on the last map",
        ),
        (
            4,
            {"world_size": 4},
            r"= 1 per device x 4 .*needs at least 2 images per device; raise data.total_batch_size to 8",
        ),
        (
            32,
            {"world_size": 2, "batch_size": 4, "accumulate": 2},
            r"takes 4 forward passes per step, not accumulate_grad_batches 2",
        ),
    ],
)
def test_batch_plan__says_what_would_work(total: int, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchPlan.derive(total, **arguments)


# TrainSampler


def box_counts(num_images: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 40, num_images)


def sampler(num_images: int = 50, *, world_size: int = 1, accumulate: int = 1, rank: int = 0) -> TrainSampler:
    plan = BatchPlan.derive(12, world_size=world_size, accumulate=accumulate)
    return TrainSampler(box_counts(num_images), plan, rank=rank, seed=7)


def test_train_sampler__an_epoch_shows_each_image_at_most_once() -> None:
    batches = list(sampler())
    rows = [key.row for batch in batches for key in batch]
    assert len(batches) == len(sampler()) == 4  # 50 // 12
    assert len(rows) == len(set(rows)) == 48
    assert sampler().dropped_per_epoch == 2
    assert sampler().steps_per_epoch == 4


def test_train_sampler__epochs_differ_and_repeat_themselves() -> None:
    ours = sampler()
    first = list(ours)
    ours.set_epoch(1)
    second = list(ours)
    assert {key.epoch for batch in second for key in batch} == {1}
    assert [[k.row for k in b] for b in first] != [[k.row for k in b] for b in second]
    ours.set_epoch(0)
    assert list(ours) == first


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 3), (3, 2), (6, 1)])
def test_train_sampler__global_batches_do_not_depend_on_devices(world_size: int, accumulate: int) -> None:
    alone = list(sampler())
    ranks = [list(sampler(world_size=world_size, accumulate=accumulate, rank=r)) for r in range(world_size)]
    for step, expected in enumerate(alone):
        together = [
            key
            for micro_step in range(accumulate)
            for rank in ranks
            for key in rank[step * accumulate + micro_step]
        ]
        assert together == expected  # the padding too: it is the global batch's


def test_train_sampler__pads_for_the_fullest_image_of_the_global_batch() -> None:
    counts = box_counts(50)
    for batch in sampler():
        most = max(int(counts[key.row]) for key in batch)
        (padded,) = {key.padded_boxes for key in batch}
        assert padded >= most
        assert padded == 8 or padded // 2 < most


@pytest.mark.parametrize(
    ("most", "padded"), [(0, 8), (8, 8), (9, 16), (16, 16), (17, 32), (100, 128), (1000, 1024)]
)
def test_padded_box_count(most: int, padded: int) -> None:
    assert padded_box_count(most) == padded


def test_train_sampler__starts_where_it_is_told() -> None:
    whole, rest = sampler(), sampler()
    rest.start_batch = 3
    assert list(rest) == list(whole)[3:]
    assert len(rest) == len(whole)
    rest.set_epoch(0)  # the same epoch: a restart resumes
    assert rest.start_batch == 3
    rest.set_epoch(1)
    assert rest.start_batch == 0


def test_train_sampler__refuses_a_set_smaller_than_a_batch() -> None:
    with pytest.raises(InputError, match="5 training images do not fill one batch of total_batch_size 12"):
        sampler(5)


REPEATS = np.where(np.arange(50) < 5, 2.5, np.where(np.arange(50) < 20, 1.2, 1.0))


def repeating(*, world_size: int = 1, accumulate: int = 1, rank: int = 0) -> TrainSampler:
    plan = BatchPlan.derive(12, world_size=world_size, accumulate=accumulate)
    return TrainSampler(box_counts(50), plan, rank=rank, seed=7, repeats=REPEATS)


def test_train_sampler__repeats_of_one__change_nothing() -> None:
    plan = BatchPlan.derive(12, world_size=1)
    ones = TrainSampler(box_counts(50), plan, seed=7, repeats=np.ones(50))
    assert list(ones) == list(sampler())


def test_train_sampler__repeats__keep_the_length_and_number_the_showings() -> None:
    ours = repeating()
    assert len(ours) == len(list(ours)) == ours.steps_per_epoch == 4
    for epoch in range(20):
        ours.set_epoch(epoch)
        keys = [key for batch in ours for key in batch]
        assert len({(key.row, key.copy) for key in keys}) == len(keys) == 48
        assert all(key.copy < np.ceil(REPEATS[key.row]) for key in keys)


def test_train_sampler__repeats__images_come_in_proportion_to_their_factors() -> None:
    ours = repeating()
    shown = np.zeros(50)
    for epoch in range(400):
        ours.set_epoch(epoch)
        shown += np.bincount([key.row for batch in ours for key in batch], minlength=50)
    expected = 400 * 48 * REPEATS / REPEATS.sum()
    assert shown == pytest.approx(expected, rel=0.15)  # 400 draws each: some 4 standard deviations


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 3)])
def test_train_sampler__repeats__global_batches_do_not_depend_on_devices(
    world_size: int, accumulate: int
) -> None:
    ranks = [list(repeating(world_size=world_size, accumulate=accumulate, rank=r)) for r in range(world_size)]
    for step, expected in enumerate(repeating()):
        parts = [rank[step * accumulate + micro] for micro in range(accumulate) for rank in ranks]
        assert [key for part in parts for key in part] == expected


def test_train_sampler__repeats__starts_where_it_is_told() -> None:
    whole, rest = repeating(), repeating()
    whole.set_epoch(3)
    rest.set_epoch(3)
    rest.start_batch = 2
    assert list(rest) == list(whole)[2:]


def test_train_sampler__of_rank__is_the_plan_of_another_process() -> None:
    assert list(repeating(world_size=2).of_rank(1)) == list(repeating(world_size=2, rank=1))


# ValSampler


@pytest.mark.parametrize("world_size", [1, 2, 3, 11])
def test_val_sampler__each_image_once_over_the_ranks(world_size: int) -> None:
    samplers = [ValSampler(box_counts(10), 4, rank=rank, world_size=world_size) for rank in range(world_size)]
    rows = [key.row for one in samplers for batch in one for key in batch]
    assert sorted(rows) == list(range(10))
    assert [len(one) for one in samplers] == [len(list(one)) for one in samplers]
    if world_size == 11:
        assert len(samplers[10]) == 0


# Loaders


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    annotations = open_split(make_coco(tmp_path / "coco", train=14), role="train").annotations
    return DetectionDataset(annotations, (32, 40), augmentations=default_augmentations(), seed=5)


def train_loader(dataset: DetectionDataset, *, workers: int = 0, **shares: int) -> TrainLoader:
    rank = shares.pop("rank", 0)
    plan = BatchPlan.derive(4, **{"world_size": 1, **shares})
    order = TrainSampler(np.diff(dataset.annotations.offsets), plan, rank=rank, seed=5)
    return TrainLoader(
        dataset, batch_sampler=order, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0
    )


def assert_equal(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        tensors = zip(
            [*batch.target, *batch[:1], *batch[2:]], [*other.target, *other[:1], *other[2:]], strict=True
        )
        for ours, theirs in tensors:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # torch, on few cores
def test_train_loader__workers_change_nothing(dataset: DetectionDataset, workers: int) -> None:
    alone, helped = train_loader(dataset), train_loader(dataset, workers=workers)
    for epoch in (0, 1):
        for loader in (alone, helped):
            loader.batch_sampler.set_epoch(epoch)
        assert_equal(list(helped), list(alone))


def test_train_loader__two_ranks_see_the_batches_of_one(dataset: DetectionDataset) -> None:
    loaders = [train_loader(dataset), *(train_loader(dataset, world_size=2, rank=rank) for rank in (0, 1))]
    steps = 0
    for epoch in range(7):  # of 3 steps
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        for whole, *shares in zip(*loaders, strict=True):
            steps += 1
            assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
            for field, expected in enumerate(whole.target):
                assert torch.equal(expected, torch.cat([share.target[field] for share in shares]))
            assert torch.equal(whole.sample_idx, torch.cat([share.sample_idx for share in shares]))
    assert steps > 20


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("consumed", [0, 1, 2, 3])
def test_train_loader__resumes_after_what_was_consumed(
    dataset: DetectionDataset, workers: int, consumed: int
) -> None:
    whole = train_loader(dataset)
    whole.batch_sampler.set_epoch(2)
    expected = list(whole)
    stopped = train_loader(dataset, workers=workers)
    stopped.batch_sampler.set_epoch(2)
    batches = iter(stopped)
    seen = [next(batches) for _ in range(consumed)]
    resumed = train_loader(dataset, workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    resumed.batch_sampler.set_epoch(2)
    assert_equal([*seen, *resumed], expected)
    resumed.batch_sampler.set_epoch(3)
    whole.batch_sampler.set_epoch(3)
    assert_equal(list(resumed), list(whole))


def test_train_loader__resumes_with_other_shares(dataset: DetectionDataset) -> None:
    expected = list(train_loader(dataset))
    stopped = train_loader(dataset, accumulate=2)
    batches = iter(stopped)
    for _ in range(2):  # one step of two forward passes
        next(batches)
    resumed = train_loader(dataset)
    resumed.load_state_dict(stopped.state_dict())
    assert_equal(list(resumed), expected[1:])


def test_train_loader__refuses_to_resume_inside_a_step(dataset: DetectionDataset) -> None:
    stopped = train_loader(dataset, accumulate=2)
    next(iter(stopped))
    with pytest.raises(
        InputError, match="stands 2 images into a batch of 4: it has another total_batch_size"
    ):
        train_loader(dataset).load_state_dict(stopped.state_dict())


def test_train_loader__counts_from_nought_after_a_whole_pass(dataset: DetectionDataset) -> None:
    loader = train_loader(dataset)
    first = list(loader)
    assert loader.state_dict() == {"epoch": 0, "images": 0}
    assert_equal(list(loader), first)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader__a_worker_names_the_broken_file_in_one_sentence(
    dataset: DetectionDataset, workers: int
) -> None:
    path = dataset.annotations.path(3)
    path.write_bytes(path.read_bytes()[:400])
    order = ValSampler(np.diff(dataset.annotations.offsets), 4)
    loader = DetectionLoader(dataset, batch_sampler=order, collate_fn=collate, num_workers=workers)
    with pytest.raises(InputError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"cannot read image {path}: ")
    assert "Traceback" not in str(caught.value)

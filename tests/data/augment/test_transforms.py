from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from detect.data.augment.transforms import (
    PhotometricDistort,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomVerticalFlip,
    RandomZoomOut,
)
from detect.data.augment.view import View
from detect.errors import InputError

NO_BOXES = np.zeros((0, 4))


# Crop


@pytest.mark.parametrize("min_iou", [0.0, 0.3, 0.7])
def test_iou_crop__keeps_its_promises(min_iou: float) -> None:
    boxes = np.array([[30.0, 20, 130, 140], [150, 100, 180, 130]])
    crop, view = RandomIoUCrop(min_ious=(min_iou, 1.0)), View(10, 5, 210, 155)
    changed = 0
    for seed in range(200):
        new = crop(view, boxes, np.random.default_rng(seed))
        if new == view:
            continue
        changed += 1
        assert view.x0 <= new.x0 < new.x1 <= view.x1
        assert view.y0 <= new.y0 < new.y1 <= view.y1
        assert 0.3 - 1e-9 <= new.width / view.width <= 1
        assert 0.3 - 1e-9 <= new.height / view.height <= 1
        assert 0.5 <= new.width / new.height <= 2
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        held = ((centres > (new.x0, new.y0)) & (centres < (new.x1, new.y1))).all(axis=1)
        sides = np.minimum(boxes[:, 2:], (new.x1, new.y1)) - np.maximum(boxes[:, :2], (new.x0, new.y0))
        shared = sides.clip(0).prod(axis=1)
        iou = shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + new.width * new.height - shared)
        assert iou[held].max() >= min_iou
    assert changed > 20


@pytest.mark.slow
def test_iou_crop__draws_as_torchvision_does() -> None:
    boxes = np.array([[50.0, 40, 300, 400], [400, 200, 460, 260]])
    view = View.whole((480, 640))
    ours = [RandomIoUCrop()(view, boxes, np.random.default_rng(seed)) for seed in range(800)]
    torch.manual_seed(0)
    theirs = v2.RandomIoUCrop()
    target = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(480, 640))
    image = tv_tensors.Image(torch.zeros(3, 480, 640, dtype=torch.uint8))
    sizes = np.array([theirs(image, target)[0].shape[-2:] for _ in range(800)])
    our_sizes = np.array([(v.height, v.width) for v in ours])
    # 800 draws of a value that spreads over about 130 px: 30 is 4.6 errors of the difference.
    np.testing.assert_allclose(our_sizes.mean(axis=0), sizes.mean(axis=0), atol=30)
    np.testing.assert_allclose(our_sizes.std(axis=0), sizes.std(axis=0), atol=20)
    uncropped = (our_sizes == (480, 640)).all(axis=1).mean(), (sizes == (480, 640)).all(axis=1).mean()
    assert uncropped[0] == pytest.approx(uncropped[1], abs=0.09)


def test_iou_crop__without_boxes_or_with_1_alone_does_nothing() -> None:
    view, boxes = View.whole((48, 64)), np.array([[3.0, 4, 30, 40]])
    assert RandomIoUCrop()(view, NO_BOXES, np.random.default_rng(0)) == view
    assert RandomIoUCrop(min_ious=(1.0,))(view, boxes, np.random.default_rng(0)) == view


def test_iou_crop__panorama_that_no_crop_fits__shown_whole() -> None:
    crop, view = RandomIoUCrop(), View.whole((10, 200))  # 20 : 1; a crop is at least 6 : 1
    for seed in range(20):
        assert crop(view, np.array([[5.0, 2, 40, 8]]), np.random.default_rng(seed)) == view


def test_iou_crop__refuses_a_search_without_end() -> None:
    with pytest.raises(InputError, match=r"min_ious \[0.5\] need one of at least 1"):
        RandomIoUCrop(min_ious=(0.5,))
    with pytest.raises(InputError, match=r"min_scale <= max_scale <= 1, got 0.5 and 0.2"):
        RandomIoUCrop(0.5, 0.2)


# Zoom-out and flips


def test_zoom_out__holds_the_old_view_at_the_drawn_ratio() -> None:
    zoom, view = RandomZoomOut(3.0, fill=(9, 8, 7)), View(10, 20, 110, 70)
    ratios = []
    for seed in range(300):
        new = zoom(view, NO_BOXES, np.random.default_rng(seed))
        if new == view:
            continue
        assert new.fill == (9, 8, 7)
        assert new.x0 <= view.x0
        assert new.x1 >= view.x1 - 1e-9
        assert new.y0 <= view.y0
        assert new.y1 >= view.y1 - 1e-9
        assert new.width / view.width == pytest.approx(new.height / view.height)
        ratios.append(new.width / view.width)
    assert 100 < len(ratios) < 200  # half of 300
    assert min(ratios) >= 1
    assert 2.9 < max(ratios) <= 3


def test_zoom_out__refuses_to_zoom_in() -> None:
    with pytest.raises(InputError, match=r"at least 1, got 0.5"):
        RandomZoomOut(0.5)


@pytest.mark.parametrize(
    ("flip", "name"), [(RandomHorizontalFlip(), "flip_horizontal"), (RandomVerticalFlip(), "flip_vertical")]
)
def test_flip__turns_half_of_the_views_around(flip: RandomHorizontalFlip, name: str) -> None:
    for start in (False, True):
        view = replace(View.whole((10, 10)), **{name: start})
        turned = [getattr(flip(view, NO_BOXES, np.random.default_rng(seed)), name) for seed in range(400)]
        assert 160 < sum(turned) < 240


# Colour


def test_photometric_distort__each_of_the_four_half_of_the_time() -> None:
    view = View.whole((10, 10))
    views = [PhotometricDistort()(view, NO_BOXES, np.random.default_rng(seed)) for seed in range(800)]
    unchanged = sum(v == view for v in views) / 800
    assert unchanged == pytest.approx(1 / 16, abs=0.03)
    assert all((v.x0, v.y0, v.x1, v.y1) == (0, 0, 10, 10) for v in views)


def test_photometric_distort__only_what_is_asked_for() -> None:
    same = (1.0, 1.0)
    distort = PhotometricDistort((2.0, 2.0), same, saturation=same, hue=(0.0, 0.0), probability=1.0)
    view = distort(View.whole((10, 10)), NO_BOXES, np.random.default_rng(0))
    np.testing.assert_allclose(view.colour, [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0], atol=1e-9)


# Arguments


@pytest.mark.parametrize(
    "augmentation", [RandomHorizontalFlip, RandomVerticalFlip, RandomZoomOut, PhotometricDistort]
)
@pytest.mark.parametrize("probability", [-0.1, 50])
def test_probability__no_share__refused(augmentation: type, probability: float) -> None:
    with pytest.raises(InputError, match=f"probability of {augmentation.__name__} is {probability}"):
        augmentation(probability=probability)


def test_ranges__turned_around_or_empty__refused() -> None:
    with pytest.raises(InputError, match="hue of a distortion is a range"):
        PhotometricDistort(hue=(0.1, -0.1))
    with pytest.raises(InputError, match="min_aspect_ratio <= max_aspect_ratio and 1 trial, got 3, 2"):
        RandomIoUCrop(min_aspect_ratio=3, max_aspect_ratio=2)
    with pytest.raises(InputError, match=r"and 1 trial, got 0\.5, 2\.0 and 0"):
        RandomIoUCrop(trials=0)

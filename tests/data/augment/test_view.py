from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detect.boxes import rescale_boxes
from detect.data.augment.colour import IDENTITY_COLOUR, colour_matrix
from detect.data.augment.transforms import default_augmentations
from detect.data.augment.view import View, boxes_to_input, input_batch, render, resize_pixels, snap_view

NO_BOXES = np.zeros((0, 4))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise: an image in which a shift by a pixel shows."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8
    )
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def random_boxes(rng: np.random.Generator, count: int, width: int, height: int) -> NDArray[np.float64]:
    corners = rng.random((count, 2, 2)) * (width, height)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def augmented_view(seed: int, orig_size: tuple[int, int], boxes: NDArray[np.float64]) -> View:
    rng = np.random.default_rng(seed)
    view = View.whole(orig_size)
    for augment in default_augmentations():
        view = augment(view, boxes, rng)
    return view


# Boxes


def test_boxes_to_input__is_the_inverse_of_rescale_boxes_for_the_whole_image() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 50, 640, 427)
    mapped = boxes_to_input(boxes, View.whole((427, 640)), (320, 300))
    back = rescale_boxes(torch.from_numpy(mapped.boxes)[None], (320, 300), torch.tensor([[427, 640]]))
    np.testing.assert_allclose(back[0].numpy(), boxes[mapped.kept], atol=1e-3)


def test_boxes_to_input__by_hand() -> None:
    # 100 x 50 px of the file from (20, 10) fill 200 x 200: x doubles, y quadruples.
    view = View(20, 10, 120, 60)
    mapped = boxes_to_input(np.array([[30.0, 20, 50, 30]]), view, (200, 200))
    assert mapped.boxes.tolist() == [[20, 40, 60, 80]]
    flipped = boxes_to_input(np.array([[30.0, 20, 50, 30]]), replace(view, flip_horizontal=True), (200, 200))
    assert flipped.boxes.tolist() == [[140, 40, 180, 80]]
    upside_down = boxes_to_input(
        np.array([[30.0, 20, 50, 30]]), replace(view, flip_vertical=True), (200, 200)
    )
    assert upside_down.boxes.tolist() == [[20, 120, 60, 160]]


@pytest.mark.parametrize(
    ("box", "ignore", "expected"),
    [
        ([-40, 10, 30, 30], False, None),  # centre at x = -5, outside
        ([-40, 10, 30, 30], True, [0, 10, 30, 30]),  # a region to ignore is kept and clipped
        ([-20, 10, 30, 30], False, [0, 10, 30, 30]),  # centre at x = 5, inside
        ([10, 10, 10.9, 30], False, None),  # less than 1 px wide
        ([10, 10, 11, 30], False, [10, 10, 11, 30]),
        ([-50, 10, 0.5, 30], True, None),  # half a pixel is left
    ],
)
def test_boxes_to_input__keeps_and_drops(
    box: list[float], ignore: bool, expected: list[float] | None
) -> None:
    mapped = boxes_to_input(np.array([box]), View(0, 0, 100, 100), (100, 100), ignore=np.array([ignore]))
    assert mapped.kept.tolist() == [expected is not None]
    assert mapped.boxes.tolist() == ([] if expected is None else [expected])


def test_boxes_to_input__no_boxes() -> None:
    mapped = boxes_to_input(NO_BOXES, View.whole((10, 20)), (30, 40))
    assert mapped.boxes.shape == (0, 4)
    assert mapped.boxes.dtype == np.float32
    assert mapped.kept.shape == (0,)


# Pixels


def reference_render(pixels: NDArray[np.uint8], view: View, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pillow's crop and resize of the part that can be seen, on a canvas of the view's size."""
    height, width = image_size
    edges = np.array([view.x0, view.y0, view.x1, view.y1])
    limits = np.tile([pixels.shape[1], pixels.shape[0]], 2)
    source = np.clip(edges, 0, limits)
    scale = np.tile([width / view.width, height / view.height], 2)
    x0, y0, x1, y1 = ((source - np.tile(edges[:2], 2)) * scale).round().astype(int).tolist()
    canvas = Image.new("RGB", (width, height), view.fill)
    left, top, right, bottom = source.round().astype(int).tolist()
    part = Image.fromarray(pixels[top:bottom, left:right])
    part = part.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
    canvas.paste(part, (x0, y0))
    if view.flip_horizontal:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if view.flip_vertical:
        canvas = canvas.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return np.array(canvas)


@pytest.mark.parametrize("seed", range(25))
def test_render__equals_pillow_on_random_views(seed: int) -> None:
    pixels = noise(97, 143, seed)
    boxes = random_boxes(np.random.default_rng(seed), 4, 143, 97)
    view = replace(
        augmented_view(seed, (97, 143), boxes), flip_vertical=seed % 3 == 0, colour=IDENTITY_COLOUR
    )
    view = snap_view(view, (97, 143), (64, 80))
    difference = render(pixels, view, (64, 80)).astype(int) - reference_render(pixels, view, (64, 80))
    assert np.abs(difference).max() <= 1  # the last bit of fixed-point weights


@pytest.mark.parametrize("seed", range(25))
def test_render__boxes_lie_on_the_pixels_they_describe(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0, y0 = rng.integers(5, 80, 2).tolist()
    x1, y1 = x0 + int(rng.integers(20, 60)), y0 + int(rng.integers(20, 35))
    pixels = np.zeros((120, 150, 3), dtype=np.uint8)
    pixels[y0:y1, x0:x1] = 255
    boxes = np.array([[x0, y0, x1, y1]], dtype=np.float64)
    view = replace(augmented_view(seed, (120, 150), boxes), colour=IDENTITY_COLOUR, fill=(0, 0, 0))
    view = snap_view(view, (120, 150), (96, 96))
    (mapped,) = boxes_to_input(boxes, view, (96, 96), ignore=np.array([True])).boxes
    bright = render(pixels, view, (96, 96))[:, :, 0] > 127
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(mapped, seen, atol=0.51)  # half a pixel: where the threshold falls


def test_render__whole_image_of_the_same_size_is_the_image() -> None:
    pixels = noise(32, 48)
    np.testing.assert_array_equal(render(pixels, View.whole((32, 48)), (32, 48)), pixels)


@pytest.mark.parametrize("flips", [{"flip_horizontal": True}, {"flip_vertical": True}])
def test_render__flip_twice_is_the_identity(flips: dict[str, bool]) -> None:
    pixels = noise(32, 48)
    view = replace(View.whole((32, 48)), **flips)
    once = render(pixels, view, (32, 48))
    assert (once != pixels).any()
    np.testing.assert_array_equal(render(once.copy(), view, (32, 48)), pixels)
    boxes = np.array([[3.0, 5, 17, 30]])
    box = boxes_to_input(boxes, view, (32, 48)).boxes
    np.testing.assert_array_equal(boxes_to_input(box.astype(np.float64), view, (32, 48)).boxes, boxes)


def test_render__shows_fill_where_there_is_no_image() -> None:
    pixels = np.full((10, 10, 3), 200, dtype=np.uint8)
    shown = render(pixels, View(-10, 0, 10, 10, fill=(1, 2, 3)), (10, 20))
    assert (shown[:, :10] == (1, 2, 3)).all()
    assert (shown[:, 10:] == 200).all()
    assert (render(pixels, View(20, 20, 30, 30, fill=(1, 2, 3)), (10, 20)) == (1, 2, 3)).all()


def test_render__colours_the_image_and_not_the_fill() -> None:
    pixels = np.full((10, 10, 3), 100, dtype=np.uint8)
    brighter = colour_matrix(1.5, 1, 1, 0)
    shown = render(pixels, View(-10, 0, 10, 10, colour=brighter, fill=(1, 2, 3)), (10, 20))
    assert (shown[:, :10] == (1, 2, 3)).all()
    assert (shown[:, 10:] == 150).all()


def test_render__leaves_the_given_pixels_alone() -> None:
    pixels = noise(32, 48)
    before = pixels.copy()
    render(pixels, View(0, 0, 48, 32, flip_horizontal=True, colour=colour_matrix(1.1, 1, 1, 0)), (32, 48))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("grid_px", [1, 2, 8])
@pytest.mark.parametrize("seed", range(10))
def test_snap_view__is_near_and_snaps_once(seed: int, grid_px: int) -> None:
    orig_size, image_size = (501, 703), (64, 96)
    view = augmented_view(seed, orig_size, random_boxes(np.random.default_rng(seed), 3, 703, 501))
    snapped = snap_view(view, orig_size, image_size, grid_px=grid_px)
    again = snap_view(snapped, orig_size, image_size, grid_px=grid_px)
    before, after = (np.array([v.x0, v.y0, v.x1, v.y1]) for v in (snapped, again))
    np.testing.assert_allclose(before, after, atol=1e-6)
    decoded = -(-np.array([703, 501, 703, 501]) // grid_px)
    visible = np.clip(before / grid_px, 0, decoded)
    np.testing.assert_allclose(visible % 1, np.round(visible % 1), atol=1e-6)
    # Two pixels of either side over what is seen of the image, and in proportion over the whole view.
    edges = np.array([view.x0, view.y0, view.x1, view.y1])
    shown = np.clip(edges, 0, [703, 501, 703, 501])
    stretch = np.tile((edges[2:] - edges[:2]) / (shown[2:] - shown[:2]), 2)
    step = np.tile([view.width / image_size[1], view.height / image_size[0]], 2)
    assert (np.abs(before - edges) <= 2 * (step + grid_px) * stretch).all()


def test_snap_view__without_a_visible_pixel_stays() -> None:
    view = View(-100, -100, -1, -1)
    assert snap_view(view, (50, 50), (10, 10)) == view


# Whole images


@pytest.mark.parametrize(("height", "width"), [(61, 97), (40, 40), (300, 211)])
def test_resize_pixels__torchvision_rule_equals_torchvision(height: int, width: int) -> None:
    pixels = noise(height, width)
    transform = GeneralizedRCNNTransform(40, 40, [0.5] * 3, [0.5] * 3, size_divisible=1, fixed_size=(40, 40))
    planes = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    expected = transform([planes])[0].tensors[0]
    ours = torch.from_numpy(resize_pixels(pixels, (40, 40), "torchvision")).permute(2, 0, 1)
    assert ours.dtype == torch.float32
    torch.testing.assert_close((ours / 255 - 0.5) / 0.5, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(61, 97), (40, 50), (300, 211), (7, 3)])
def test_resize_pixels__antialias_rule_equals_pillow(height: int, width: int) -> None:
    image = Image.fromarray(noise(height, width))
    ours = resize_pixels(np.array(image), (40, 50), "antialias")
    assert ours.dtype == np.uint8
    assert ours.shape == (40, 50, 3)
    expected = np.array(image.resize((50, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_input_batch__images_of_any_size_as_a_network_takes_them() -> None:
    images = [np.full((h, w, 3), value, dtype=np.uint8) for h, w, value in ((8, 4, 10), (5, 9, 20))]
    batch = input_batch(images, (6, 7), "antialias")
    assert (tuple(batch.shape), batch.dtype) == ((2, 3, 6, 7), torch.uint8)
    assert batch.flatten(1).unique(dim=1).tolist() == [[10], [20]]

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from detect.evaluation import draw
from detect.evaluation.draw import (
    BLACK,
    PALETTE,
    WHITE,
    contrasting,
    draw_detections,
    draw_outlines,
    label_colour,
)


def holds(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == colour).all(axis=-1).any())


def plates_of(
    monkeypatch: pytest.MonkeyPatch, image: Image.Image, boxes: list[list[float]], names: list[str]
) -> list[draw.Rect]:
    """Where the plates of the labels were drawn, surest first."""
    plates: list[draw.Rect] = []
    monkeypatch.setattr(draw, "_draw_label", lambda _draw, _label, place, _font: plates.append(place))
    scores = np.linspace(0.9, 0.5, len(boxes)).tolist()
    draw_detections(image, boxes, labels=[1] * len(boxes), names=names, scores=scores)
    return plates


@pytest.mark.parametrize("ground", [BLACK, WHITE, (128, 128, 128), PALETTE[0]])
def test_draw__box__shows_on_any_ground(ground: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (200, 160), ground)
    drawn = draw_detections(image, [[40, 50, 150, 120]], labels=[1], names=["cat"], scores=[0.5])
    row, column = np.asarray(drawn)[85], np.asarray(drawn)[:, 145]
    for line, first, last in ((row, 40, 149), (column, 50, 119)):
        assert tuple(line[first]) == tuple(line[last]) == PALETTE[0]
        assert tuple(line[first - 1]) == tuple(line[last + 1]) == contrasting(PALETTE[0])
    # Inside and well outside of the lines nothing is painted.
    assert tuple(np.asarray(drawn)[100, 100]) == ground
    assert tuple(np.asarray(drawn)[150, 20]) == ground


def test_draw__nothing__keeps_every_pixel() -> None:
    image = Image.effect_noise((60, 40), 50).convert("RGB")
    drawn = draw_detections(image, np.zeros((0, 4)), labels=[], names=[], scores=[])
    assert drawn.tobytes() == image.tobytes()


def test_draw__empty_name__box_without_label() -> None:
    image = Image.new("RGB", (200, 160), WHITE)
    drawn = np.asarray(draw_detections(image, [[40, 50, 150, 120]], labels=[1], names=[""]))
    outside = drawn[:40]
    assert (outside == WHITE).all()
    assert tuple(drawn[85, 40]) == PALETTE[0]


def test_draw__leaves_the_given_image_alone() -> None:
    image = Image.new("RGB", (60, 40), WHITE)
    draw_detections(image, [[5, 5, 50, 30]], labels=[2], names=["cat"])
    assert image.getcolors() == [(60 * 40, WHITE)]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_draw__any_mode__gives_rgb_of_the_same_size(mode: str) -> None:
    drawn = draw_detections(Image.new(mode, (60, 40)), [[5, 5, 50, 30]], labels=[1], names=["cat"])
    assert (drawn.mode, drawn.size) == ("RGB", (60, 40))
    assert holds(drawn, PALETTE[0])


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (8, 300), (6000, 40), (4000, 6000)])
def test_draw__any_size__box_is_drawn(size: tuple[int, int]) -> None:
    box = [size[0] * 0.1, size[1] * 0.1, size[0] * 0.9, size[1] * 0.9]
    drawn = draw_detections(Image.new("RGB", size), [box], labels=[3], names=["a cat"], scores=[1.0])
    assert drawn.size == size
    assert holds(drawn, PALETTE[2])


def test_draw__large_picture__larger_writing_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    heights = []
    for side in (300, 3000):
        image = Image.new("RGB", (side, side))
        (plate,) = plates_of(monkeypatch, image, [[side / 4, side / 4, side / 2, side / 2]], ["cat"])
        heights.append(plate[3] - plate[1])
    assert heights[0] >= 10
    assert heights[1] > 4 * heights[0]


@pytest.mark.parametrize(
    "box",
    [[-50, -50, 30, 30], [180, 140, 400, 300], [0, 0, 200, 160], [300, 300, 320, 320], [90, 80, 90, 80]],
)
def test_draw__box_over_the_border__label_stays_inside(
    monkeypatch: pytest.MonkeyPatch, box: list[float]
) -> None:
    ((x0, y0, x1, y1),) = plates_of(monkeypatch, Image.new("RGB", (200, 160)), [box], ["rectangle"])
    assert 0 <= x0 < x1 <= 200
    assert 0 <= y0 < y1 <= 160


def test_draw__boxes_on_one_spot__labels_hide_none(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [[60.0, 60.0, 240.0, 180.0]] * 6
    plates = plates_of(monkeypatch, Image.new("RGB", (300, 240)), boxes, ["cat"] * 6)
    assert len(plates) == 6
    assert all(draw._shared_area(one, other) == 0 for one, other in combinations(plates, 2))


def test_draw__surest_lies_on_top() -> None:
    image = Image.new("RGB", (200, 160))
    boxes = [[50, 60, 150, 120], [50, 60, 150, 120]]
    drawn = draw_detections(image, boxes, labels=[1, 2], names=["cat", "dog"], scores=[0.3, 0.8])
    assert drawn.getpixel((149, 90)) == PALETTE[1]


def test_draw__writes_name_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(draw, "_draw_label", lambda _draw, label, _place, _font: texts.append(label.text))
    image = Image.new("RGB", (200, 160))
    draw_detections(image, [[50, 60, 150, 120]], labels=[1], names=["cat"], scores=[0.876])
    draw_detections(image, [[50, 60, 150, 120]], labels=[1], names=["cat"])
    assert texts == ["cat 0.88", "cat"]


def test_draw__text__is_painted_in_contrast_to_its_plate() -> None:
    image = Image.new("RGB", (1200, 1000), (128, 128, 128))
    for label, text_colour in ((4, BLACK), (5, WHITE)):  # yellow, blue
        drawn = draw_detections(image, [[300, 300, 900, 800]], labels=[label], names=["MMM"])
        plate = drawn.crop((300, 260, 340, 285))
        assert holds(plate, text_colour)
        assert holds(plate, PALETTE[label - 1])


def test_contrasting__black_on_light__white_on_dark() -> None:
    assert [contrasting(colour) for colour in (WHITE, BLACK, (240, 228, 66), (0, 0, 150))] == [
        BLACK,
        WHITE,
        BLACK,
        WHITE,
    ]


def test_label_colour__seven_different_then_again() -> None:
    assert len({label_colour(label) for label in range(1, 8)}) == 7
    assert label_colour(8) == label_colour(1)


def test_draw_outlines__one_pixel_in_the_colour_of_the_label() -> None:
    image = Image.new("RGB", (40, 30), (128, 128, 128))
    drawn = draw_outlines(image, [[5, 6, 20, 25], [-9, -9, 99, 99]], labels=[1, 2])
    assert drawn.getpixel((5, 10)) == drawn.getpixel((19, 24)) == PALETTE[0]
    assert drawn.getpixel((6, 10)) == drawn.getpixel((4, 10)) == (128, 128, 128)
    assert drawn.getpixel((0, 0)) == drawn.getpixel((39, 29)) == PALETTE[1]  # cut to the picture
    assert image.getpixel((5, 10)) == (128, 128, 128)


def test_draw__counts_differ__says_which() -> None:
    with pytest.raises(ValueError, match="1 boxes, 1 names, no scores and 2 labels"):
        draw_detections(Image.new("RGB", (9, 9)), [[0, 0, 5, 5]], labels=[1, 2], names=["cat"])

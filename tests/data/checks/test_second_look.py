from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from detect.data.checks.second_look import Look, align, boxes_agree, is_same_image
from tests.data_sets import save_scene

SIZE = (320, 240)
AT, ELSEWHERE = (60, 80, 100, 130), (200, 90, 240, 140)
NO_BOXES: list[tuple[float, ...]] = []


def look(path: Path, boxes: list[tuple[float, ...]], names: list[str] | None = None) -> Look:
    """Boxes in px of `SIZE`."""
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4) / (*SIZE, *SIZE)
    return Look.of_file(path, corners, np.array(names or ["cat"] * len(boxes)))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return save_scene(tmp_path / "scene.jpg", SIZE, objects=[AT])


COPIES = ("compressed", "halved", "brighter", "darker", "colourless", "cropped")


def save_copy(source: Path, how: str) -> Path:
    """A copy in other clothes."""
    with Image.open(source) as image:
        image.load()
    target, quality = source.with_name(f"{how}.jpg"), 90
    if how == "compressed":
        quality = 15
    elif how == "halved":
        image = image.resize((image.width // 2, image.height // 2))
    elif how in ("brighter", "darker"):
        image = ImageEnhance.Brightness(image).enhance(1.15 if how == "brighter" else 0.7)
    elif how == "colourless":
        image = ImageEnhance.Color(image).enhance(0)
    else:
        image = image.crop((6, 4, image.width - 2, image.height - 3))
    image.convert("RGB").save(target, quality=quality)
    return target


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("boxes", [[AT], NO_BOXES])
def test_is_same_image__a_copy_in_other_clothes(
    scene: Path, how: str, boxes: list[tuple[float, ...]]
) -> None:
    one, other = look(scene, boxes), look(save_copy(scene, how), boxes)
    assert is_same_image(one, other)
    assert is_same_image(other, one)


@pytest.mark.parametrize("boxes", [True, False])
def test_is_same_image__one_camera_with_other_content__is_not(
    tmp_path: Path, scene: Path, boxes: bool
) -> None:
    moved = save_scene(tmp_path / "moved.jpg", SIZE, objects=[ELSEWHERE])
    one, other = look(scene, [AT] if boxes else []), look(moved, [ELSEWHERE] if boxes else [])
    assert not is_same_image(one, other)


def test_is_same_image__one_object_of_many_moved__is(tmp_path: Path) -> None:
    many = [(20 + 30 * i, 60 + 9 * j, 30 + 30 * i, 66 + 9 * j) for i in range(9) for j in range(2)]
    first = look(save_scene(tmp_path / "a.jpg", SIZE, objects=many), [*many])
    next_ = [*many[:-1], (270, 200, 278, 206)]
    assert is_same_image(first, look(save_scene(tmp_path / "b.jpg", SIZE, objects=next_), [*next_]))


def test_is_same_image__a_copy_with_other_annotations__is(scene: Path) -> None:
    assert is_same_image(look(scene, [AT]), look(save_copy(scene, "compressed"), [ELSEWHERE]))


def test_align__finds_the_crop(scene: Path) -> None:
    found = align(look(scene, []).grey, look(save_copy(scene, "cropped"), []).grey)
    # 6 px of 320 at the left and 2 at the right are gone, 4 of 240 above and 3 below; 48 px wide and high.
    np.testing.assert_allclose(found.shift, (6 / 320 * 48, 4 / 240 * 48), atol=0.15)
    np.testing.assert_allclose(found.scale, (312 / 320, 233 / 240), atol=0.005)


def test_boxes_agree__by_hand(scene: Path) -> None:
    still = align(look(scene, []).grey, look(scene, []).grey)

    def agree(
        one: list[tuple[float, ...]], other: list[tuple[float, ...]], **names: list[str]
    ) -> bool | None:
        return boxes_agree(look(scene, one), look(scene, other, **names), still)

    assert agree([AT], [AT])
    assert agree([AT], [ELSEWHERE]) is False
    assert agree([AT], [AT], names=["dog"]) is False
    assert agree([AT], []) is None
    assert agree([AT] * 5, [AT] * 4 + [ELSEWHERE])  # four fifths
    assert agree([AT, ELSEWHERE], [AT]) is False

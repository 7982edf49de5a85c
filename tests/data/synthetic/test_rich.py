"""`data shapes --style rich`: boxes, variety, and the same images from the same seed."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from detect.data.synthetic.rich import MIN_VISIBLE, PLANS, RichScene, _Figure, _look, _paint, paint_rich_scene
from detect.data.synthetic.shapes import make_shapes
from detect.data.synthetic.silhouettes import SILHOUETTES

LEAST_PER_S = 30
"""Of 320 px on a core."""
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)


@pytest.fixture(scope="module")
def scenes() -> list[RichScene]:
    return [paint_rich_scene(np.random.default_rng([0, i]), 192) for i in range(60)]


def empty_scene() -> RichScene:
    return RichScene(np.full((80, 100, 3), 0.5, np.float32))


def paint(scene: RichScene, points: np.ndarray, category_id: int) -> bool:
    rng = np.random.default_rng(0)
    return _paint(rng, scene, _Figure.draw([points], [], [], scene), _look(rng, vivid=True), category_id)


def test_silhouettes__many_and_of_one_size() -> None:
    assert len({one.name for one in SILHOUETTES}) == len(SILHOUETTES) >= 30
    for one in SILHOUETTES:
        assert max(np.linalg.norm(points, axis=1).max() for points in one.parts) == pytest.approx(1)


def test_same_seed__same_bytes_other_seed_others(tmp_path: Path) -> None:
    digests = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_shapes(tmp_path / place, train=4, val=1, unseen=0, longer_side_px=96, style="rich", seed=seed)
        files = sorted(path for path in (tmp_path / place).rglob("*") if path.is_file())
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
    coco = json.loads((tmp_path / "a" / "annotations" / "instances_train.json").read_text())
    assert [one["name"] for one in coco["categories"]] == [one.name for one in SILHOUETTES]
    assert "style='rich'" in (tmp_path / "a" / "README.txt").read_text()


def test_box__turned_square__exact_and_clipped_to_the_image() -> None:
    scene = empty_scene()
    turned = 15.3 * SQUARE @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + np.array([40.2, 35.7])
    assert paint(scene, turned, 1)
    assert paint(scene, 20 * SQUARE + (95, 70), 2)
    first, second = (annotation["bbox"] for annotation in scene.annotations())
    reach = 15.3 * 1.4  # half a diagonal along x
    assert first == pytest.approx([40.2 - reach, 35.7 - reach, 2 * reach, 2 * reach], abs=0.011)
    assert second == [75, 50, 25, 30]


def test_box__half_covered__ends_where_the_other_begins() -> None:
    scene = empty_scene()
    assert paint(scene, 20 * SQUARE + (50, 40), 1)
    assert paint(scene, SQUARE * (30, 10) + (50, 50), 2)
    x, y, w, h = scene.annotations()[0]["bbox"]
    assert [x, y, x + w, y + h] == pytest.approx([30, 20, 70, 40], abs=1)


def test_paint__hides_too_much__refused_and_pixels_untouched() -> None:
    scene = empty_scene()
    assert paint(scene, 20 * SQUARE + (50, 40), 1)
    before, boxes = scene.pixels.copy(), scene.annotations()
    assert not paint(scene, 18 * SQUARE + (50, 40), 2)
    assert not paint(scene, 20 * SQUARE + (-15, 40), 2)
    assert (scene.pixels == before).all()
    assert scene.annotations() == boxes


def test_scenes__boxes_and_what_is_in_sight(scenes: list[RichScene]) -> None:
    for scene in scenes:
        height, width = scene.owner.shape
        for number, (one, annotation) in enumerate(zip(scene.things, scene.annotations(), strict=True), 1):
            x, y, w, h = annotation["bbox"]
            assert 0 <= x < x + w <= width + 0.01
            assert 0 <= y < y + h <= height + 0.01
            rows, columns = np.nonzero(scene.owner == number)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [x, y, x + w, y + h] == pytest.approx(seen, abs=1.51)
            assert len(rows) == annotation["area"] >= MIN_VISIBLE * one[2] - 1


def test_scenes__vary(scenes: list[RichScene]) -> None:
    found = [annotation for scene in scenes for annotation in scene.annotations()]
    sides = np.array([max(annotation["bbox"][2:]) for annotation in found])
    assert len({annotation["category_id"] for annotation in found}) > 30
    assert (sides < 16).mean() > 0.1
    assert (sides > 64).mean() > 0.02
    assert any(not scene.things for scene in scenes)
    assert max(len(scene.things) for scene in scenes) > 10
    assert len({scene.image.size for scene in scenes}) > 20


def test_plans__shares_are_a_whole() -> None:
    assert sum(plan.share for plan in PLANS) == pytest.approx(1)


def test_speed__a_core() -> None:
    paint_rich_scene(np.random.default_rng(0), 320)
    rates = []
    for _ in range(3):
        start = time.process_time()
        for index in range(20):
            paint_rich_scene(np.random.default_rng([1, index]), 320)
        rates.append(20 / (time.process_time() - start))
        if rates[-1] >= LEAST_PER_S:
            return
    pytest.fail(f"{max(rates):.0f} images per second of a core")

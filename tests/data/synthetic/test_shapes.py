from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detect.data.synthetic import shapes
from detect.data.synthetic.shapes import MIN_VISIBLE, SHAPES, SUBPIXELS, Scene, make_shapes, paint_scene
from detect.errors import InputError

SMALL = {"train": 6, "val": 3, "unseen": 2, "longer_side_px": 96}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def paint_one(outline: shapes.Points) -> list[float]:
    """The box of one polygon, px, on a picture 100 wide and 80 high."""
    scene = Scene(Image.new("RGB", (100, 80)))
    assert scene.paint(shapes._draw_mask([outline], []), np.random.default_rng(0), SHAPES[0])
    return scene.annotations()[0]["bbox"]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "shapes"
    make_shapes(output, train=40, val=3, unseen=2, longer_side_px=96)
    return output


def test_make_shapes__same_seed__same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_shapes(tmp_path / name, **SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_make_shapes__other_seed__other_pictures(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_shapes(tmp_path / str(seed), **SMALL, seed=seed)
    first, second = files(tmp_path / "0"), files(tmp_path / "1")
    assert all(first[name] != second[name] for name in first)


def test_make_shapes__larger_set__begins_with_the_smaller(data_set: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / "small", **SMALL)
    small, large = files(tmp_path / "small"), files(data_set)
    assert all(large[name] == data for name, data in small.items() if name.endswith(".jpg"))


def test_make_shapes__splits__share_no_picture(data_set: Path) -> None:
    pictures = [data for name, data in files(data_set).items() if name.endswith(".jpg")]
    assert len(pictures) == 45
    assert len(set(pictures)) == 45


def test_make_shapes__is_a_coco_folder(data_set: Path) -> None:
    coco = COCO(data_set / "annotations" / "instances_train.json")
    assert {c["name"]: c["id"] for c in coco.cats.values()} == {
        "ellipse": 1,
        "rectangle": 3,
        "triangle": 4,
        "star": 9,
        "ring": 12,
        "cross": 20,
    }
    assert {a["category_id"] for a in coco.anns.values()} == {1, 3, 4, 9, 12, 20}
    on_disk = {p.name for p in (data_set / "train").iterdir()}
    assert {image["file_name"] for image in coco.imgs.values()} == on_disk
    for image in coco.imgs.values():
        with Image.open(data_set / "train" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


def test_make_shapes__boxes__lie_in_the_picture(data_set: Path) -> None:
    coco = json.loads((data_set / "annotations" / "instances_train.json").read_text())
    size = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = size[annotation["image_id"]]
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
        assert 0 < annotation["area"] <= w * h


def test_make_shapes__unseen__has_no_annotations(data_set: Path) -> None:
    assert len(list((data_set / "unseen").iterdir())) == 2
    assert {p.name for p in (data_set / "annotations").iterdir()} == {
        "instances_train.json",
        "instances_val.json",
    }
    assert "train=40" in (data_set / "README.txt").read_text()


def test_make_shapes__folder_with_files__refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=f"{tmp_path} exists and is not an empty folder"):
        make_shapes(tmp_path, **SMALL)
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_make_shapes__empty_folder__is_filled(tmp_path: Path) -> None:
    make_shapes(tmp_path, **SMALL)
    assert len(files(tmp_path)) == 6 + 3 + 2 + 3


def test_make_shapes__stopped__leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> Scene:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "paint_scene", stop)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "shapes", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("train", 0, 1), ("val", 0, 1), ("unseen", -1, 0), ("seed", -1, 0), ("longer_side_px", 63, 64)],
)
def test_make_shapes__number_out_of_range__refused(tmp_path: Path, name: str, value: int, least: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; it must be {least} or more"):
        make_shapes(tmp_path / "shapes", **{**SMALL, name: value})


def test_box__diamond_of_radius_20_at_50_40__within_a_subpixel() -> None:
    x, y, w, h = paint_one(20 * SHAPES[1].outline + (50, 40))
    # Corners at 50 - 20, 40 - 20, 50 + 20, 40 + 20; a subpixel is 1 / 4 px.
    assert [x, y, x + w, y + h] == pytest.approx([30, 20, 70, 60], abs=1 / SUBPIXELS)


def test_box__figure_over_the_border__ends_at_the_border() -> None:
    x, y, w, h = paint_one(20 * SHAPES[1].outline + (90, 70))
    assert [x, y, x + w, y + h] == pytest.approx([70, 50, 100, 80], abs=1 / SUBPIXELS)
    assert (x + w, y + h) == (100, 80)


def test_box__equals_the_extent_of_the_visible_mask() -> None:
    boxes = 0
    for index in range(20):
        scene = paint_scene(np.random.default_rng(index), 128)
        for number, annotation in enumerate(scene.annotations(), 1):
            rows_and_columns = np.argwhere(scene.owner == number)
            y0, x0 = rows_and_columns.min(axis=0) / SUBPIXELS
            y1, x1 = (rows_and_columns.max(axis=0) + 1) / SUBPIXELS
            assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
            assert annotation["area"] == len(rows_and_columns) / SUBPIXELS**2
            boxes += 1
    assert boxes > 40


def test_box__half_covered__holds_the_visible_part_only() -> None:
    scene = Scene(Image.new("RGB", (100, 80)))
    rng = np.random.default_rng(0)
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    below = shapes._draw_mask([20 * square + (50, 40)], [])  # 30..70 by 20..60
    above = shapes._draw_mask([10 * np.array([3, 1]) * square + (50, 55)], [])  # 20..80 by 45..65
    assert scene.paint(below, rng, SHAPES[1])
    assert scene.paint(above, rng, None)
    x, y, w, h = scene.annotations()[0]["bbox"]
    assert [x, y, x + w, y + h] == pytest.approx([30, 20, 70, 45], abs=1 / SUBPIXELS)


def test_paint__hides_more_than_half__refused_and_picture_untouched() -> None:
    scene = Scene(Image.new("RGB", (100, 80)))
    rng = np.random.default_rng(0)
    assert scene.paint(shapes._draw_mask([20 * SHAPES[0].outline + (50, 40)], []), rng, SHAPES[0])
    picture, annotations = scene.image.tobytes(), scene.annotations()
    assert not scene.paint(shapes._draw_mask([25 * SHAPES[0].outline + (50, 40)], []), rng, None)
    assert not scene.paint(shapes._draw_mask([20 * SHAPES[0].outline + (-5, 40)], []), rng, SHAPES[0])
    assert not scene.paint(shapes._draw_mask([20 * SHAPES[0].outline + (-50, 40)], []), rng, SHAPES[0])
    assert (scene.image.tobytes(), scene.annotations()) == (picture, annotations)


def test_paint__inside_a_ring__hides_nothing() -> None:
    scene = Scene(Image.new("RGB", (100, 80)))
    rng = np.random.default_rng(0)
    ring, ellipse = SHAPES[4], SHAPES[0]
    assert ring.hole is not None
    assert scene.paint(
        shapes._draw_mask([30 * ring.outline + (50, 40)], [30 * ring.hole + (50, 40)]), rng, ring
    )
    before = scene.annotations()
    assert scene.paint(shapes._draw_mask([15 * ellipse.outline + (50, 40)], []), rng, ellipse)
    assert scene.annotations()[:1] == before


def test_scenes__hold_what_the_readme_says() -> None:
    scenes = [paint_scene(np.random.default_rng(index), 128) for index in range(100)]
    assert any(not scene.annotations() for scene in scenes)
    assert any(a["iscrowd"] for scene in scenes for a in scene.annotations())
    for scene in scenes:
        assert max(scene.image.size) <= 128
        assert all(thing.visible >= MIN_VISIBLE * thing.subpixels for thing in scene._objects)
    sides = np.array([max(a["bbox"][2:]) for scene in scenes for a in scene.annotations()])
    assert sides.min() < 12
    assert sides.max() > 64

from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.annotations import Annotations
from detect.data.checks.findings import Finding
from detect.data.checks.repeated_images import repeated_images
from detect.data.splits import open_split
from tests.data_sets import make_voc, save_picture, save_scene, voc_xml


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, Path(finding.file).name) for finding in findings]


def voc_splits(root: Path, **splits: list[str]) -> dict[str, Annotations]:
    """Splits of a VOC folder by the stems of their images, each stem another picture."""
    stems = sorted({stem for listed in splits.values() for stem in listed})
    make_voc(root, {"all": {stem: [("cat", (1, 1, 9, 9))] for stem in stems}})
    for name, listed in splits.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(listed))
    return {name: open_split(root, name, role="train").annotations for name in splits}


def test_nothing_repeated__nothing_found(tmp_path: Path) -> None:
    assert repeated_images(voc_splits(tmp_path, train=["a", "b"], val=["c"]), train="train") == []


def test_equal_bytes__told_by_where_they_are(tmp_path: Path) -> None:
    splits = voc_splits(tmp_path, train=["a", "b"], val=["c"])
    folder = tmp_path / "JPEGImages"
    for copy in ("b", "c"):
        (folder / f"{copy}.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert codes(repeated_images(splits, train="train")) == [
        ("image-repeated", "b.jpg"),
        ("image-in-two-splits", "c.jpg"),
    ]


def test_alike__told_by_where_they_are(tmp_path: Path) -> None:
    splits = voc_splits(tmp_path, train=["a", "b"], val=["c"])
    for copy, quality in (("a", 95), ("b", 60), ("c", 80)):
        save_picture(tmp_path / "JPEGImages" / f"{copy}.jpg", (64, 48), seed=7, quality=quality)
    found = repeated_images(splits, train="train")
    assert sorted(codes(found)) == [
        ("image-alike", "b.jpg"),
        ("image-alike-in-two-splits", "c.jpg"),
        ("image-alike-in-two-splits", "c.jpg"),
    ]
    assert "in val; looks like a.jpg in train" in found[1].detail


def test_fixed_camera__one_note(tmp_path: Path) -> None:
    at = {f"{i:02d}": (5 + 29 * i % 270, 10 + 37 * i % 180) for i in range(20)}
    boxes = {stem: [("cat", (x, y, x + 20, y + 24))] for stem, (x, y) in at.items()}
    stems = list(boxes)
    make_voc(tmp_path, {"train": dict.fromkeys(stems[:14], ()), "val": dict.fromkeys(stems[14:], ())})
    for stem, objects in boxes.items():
        save_scene(tmp_path / "JPEGImages" / f"{stem}.jpg", (320, 240), [objects[0][1]])
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(voc_xml(objects, (320, 240)))
    splits = {name: open_split(tmp_path, name, role="train").annotations for name in ("train", "val")}
    (note,) = repeated_images(splits, train="train")
    assert (note.code, note.severity) == ("images-of-one-place", "note")
    assert note.detail.startswith("14 of train, 6 of val show the same place")


def test_split_inside_another__said_once(tmp_path: Path) -> None:
    splits = voc_splits(tmp_path, train=["a"], trainval=["a", "b"], val=["b"])
    assert [f.detail for f in repeated_images(splits, train="train")] == [
        "it has every image of train",
        "it has every image of val",
    ]


@pytest.mark.parametrize("val", [["a", "b"], ["b"]])
def test_validated_on_what_is_trained_on__a_warning(tmp_path: Path, val: list[str]) -> None:
    (finding,) = repeated_images(voc_splits(tmp_path, train=["a", "b"], val=val), train="train")
    assert (finding.code, finding.severity, finding.file) == ("split-trained-on", "warning", "val")
    assert "every image of val is one of train: what is scored was trained on" in finding.detail


def test_leak_behind_a_union__still_found(tmp_path: Path) -> None:
    splits = voc_splits(tmp_path, train=["a"], trainval=["a", "b"], val=["b"])
    folder = tmp_path / "JPEGImages"
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (leak,) = [f for f in repeated_images(splits, train="train") if f.code == "image-in-two-splits"]
    assert "in val; equals a.jpg in train" in leak.detail


def test_a_file_in_two_splits__a_leak(tmp_path: Path) -> None:
    found = repeated_images(voc_splits(tmp_path, train=["a", "b"], val=["b", "c"]), train="train")
    assert codes(found) == [("image-in-two-splits", "b.jpg")]

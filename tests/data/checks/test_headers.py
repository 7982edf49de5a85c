from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from detect.data.checks.findings import Finding
from detect.data.images.decode import load_image
from detect.data.splits import OpenedSplit, open_split
from detect.errors import InputError
from tests.data_sets import claim_size, coco_file, make_coco_split, make_yolo, save_picture, save_turned

BOX = [4.0, 6.0, 20.0, 10.0]


def open_with(root: Path, *names: str, size: tuple[int, int] = (64, 48)) -> OpenedSplit:
    """A COCO split of good.jpg and `names`, a box in each; the files of `names` are the test's."""
    images = [(name, *size) for name in ("good.jpg", *names)]
    content = coco_file(images, [(i, 1, BOX) for i in range(1, len(images) + 1)], {1: "cat"})
    kept = [image for image in content["images"] if image["file_name"] == "good.jpg"]
    make_coco_split(root, content | {"images": kept})
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return open_split(root, role="train")


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "..", ""])
def test_name__out_of_the_folder__refused_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_picture(tmp_path / "secret.jpg")
    opened_files: list[str] = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda p, **k: (opened_files.append(str(p)), original(p, **k))[1])
    opened = open_with(tmp_path / "data", name)
    assert codes(opened.findings) == ["file-name-refused"]
    assert opened.annotations.file_names.tolist() == [b"good.jpg"]
    assert opened_files == [str(tmp_path / "data" / "train" / "good.jpg")]


def test_file__missing_or_no_image_or_pipe__one_finding_each(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "text.jpg").write_text("no image")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "ghost.eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    names = ["text.jpg", "folder.jpg", "pipe.jpg", "circle.jpg", "ghost.eps.jpg", "none.jpg", "x" * 300]
    opened = open_with(tmp_path, *names)
    assert {f.file: f.code for f in opened.findings} == {
        **dict.fromkeys(names[:5], "image-unreadable"),
        **dict.fromkeys(names[5:], "image-missing"),
    }
    assert len(opened.annotations) == 1


def test_bomb__more_pixels_than_memory__image_dropped(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "train" / "bomb.png")
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height of the header
    path.write_bytes(data)
    assert codes(open_with(tmp_path, "bomb.png").findings) == ["image-unreadable"]


@pytest.mark.parametrize(
    ("side", "found"), [(9459, []), (9460, ["image-large"]), (13_377, ["image-large"]), (13_378, None)]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bomb__around_pillows_limits__named_and_then_refused(
    tmp_path: Path, side: int, found: list[str] | None
) -> None:
    claim_size(save_picture(tmp_path / "train" / "wide.jpg"), side, side)
    opened = open_with(tmp_path, "wide.jpg")
    findings = [finding for finding in opened.findings if finding.code != "image-size-differs"]
    assert codes(findings) == (["image-unreadable"] if found is None else found)
    assert (b"wide.jpg" in opened.annotations.file_names.tolist()) == (found is not None)
    if found is None:
        assert "178970884 pixels) exceeds limit of 178956970" in findings[0].detail
    elif found:
        assert f"{side} x {side} px take" in findings[0].detail


def test_link__out_of_the_folder__followed_and_noted(tmp_path: Path) -> None:
    target = save_picture(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "link.jpg").symlink_to(target)
    opened = open_with(tmp_path / "data", "link.jpg")
    assert [(f.code, f.severity, f.file) for f in opened.findings] == [("image-link", "note", "link.jpg")]
    assert str(target) in opened.findings[0].detail
    assert len(opened.annotations) == 2


def test_exif__annotated_as_stored__boxes_turned_to_the_upright_picture(tmp_path: Path) -> None:
    save_turned(tmp_path / "train" / "turned.jpg", (64, 48), 6)
    opened = open_with(tmp_path, "turned.jpg")
    assert codes(opened.findings) == ["exif-policy", "exif-boxes-turned"]
    assert "0 are annotated in the size that is shown, 1 in the size as stored" in opened.findings[0].detail
    found = opened.annotations
    assert found.sizes.tolist() == [[48, 64], [64, 48]]
    assert load_image(found.path(1)).size == (48, 64)
    # Stored 4, 6 .. 24, 16; a quarter to the right: x = 48 - y, y = x.
    assert found.boxes.tolist() == [[4, 6, 24, 16], [32, 4, 42, 24]]


def test_exif__annotated_upright__boxes_stay(tmp_path: Path) -> None:
    save_turned(tmp_path / "train" / "turned.jpg", (48, 64), 6)
    opened = open_with(tmp_path, "turned.jpg")
    assert codes(opened.findings) == ["exif-policy"]
    assert opened.annotations.boxes.tolist() == [[4, 6, 24, 16]] * 2


def test_exif__tiff__turned_once_and_not_twice(tmp_path: Path) -> None:
    """Pillow turns TIFFs by itself when it decodes them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save_picture(tmp_path / "train" / "turned.tif", (64, 48), exif=exif)
    found = open_with(tmp_path, "turned.tif").annotations
    assert found.sizes.tolist() == [[48, 64], [64, 48]]
    assert load_image(found.path(1)).size == (48, 64)
    assert found.boxes.tolist() == [[4, 6, 24, 16], [32, 4, 42, 24]]


def test_exif__yolo_says_no_size__boxes_are_of_the_upright_picture(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.5 0.5 0.5 0.25"}})
    save_turned(tmp_path / "images" / "train" / "a.jpg", (64, 48), 8)
    found = open_split(tmp_path, role="train").annotations
    assert (found.sizes.tolist(), found.boxes.tolist()) == ([[64, 48]], [[12, 24, 36, 40]])


def test_size__unlike_the_file__said_and_the_files_used(tmp_path: Path) -> None:
    save_picture(tmp_path / "train" / "other.jpg", (50, 40))
    opened = open_with(tmp_path, "other.jpg")
    assert codes(opened.findings) == ["image-size-differs"]
    assert "annotated as 64 x 48 px, the upright file has 50 x 40" in opened.findings[0].detail
    assert opened.annotations.sizes.tolist() == [[48, 64], [40, 50]]


def test_all_images_unusable__stops_with_the_first_findings(tmp_path: Path) -> None:
    content = coco_file([("../a.jpg", 4, 4)], [], {1: "cat"})
    make_coco_split(tmp_path / "data", content | {"images": []})
    (tmp_path / "data" / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no usable image in .*\n.*file-name-refused"):
        open_split(tmp_path / "data", role="train")

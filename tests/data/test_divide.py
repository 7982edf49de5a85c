from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detect.commands.main import main
from detect.data.convert import convert
from detect.data.divide import DivideOptions, divide
from detect.data.splits import OpenedSplit, open_split
from detect.errors import InputError
from tests.data_sets import make_voc, save_picture, voc_xml


def label(folder: Path, stems: list[str], *, images: str = "", xml: str = "", suffix: str = ".jpg") -> Path:
    """Pictures with an XML file each, as a labelling tool leaves them."""
    (folder / xml).mkdir(parents=True, exist_ok=True)
    for seed, stem in enumerate(stems):
        save_picture(folder / images / f"{stem}{suffix}", seed=seed)
        (folder / xml / f"{stem}.xml").write_text(voc_xml([("cat", (2, 3, 30, 40))]))
    return folder


def stems(opened: OpenedSplit) -> list[str]:
    return sorted(Path(name.decode()).stem for name in opened.annotations.file_names)


STEMS = [f"IMG {i:02d}" for i in range(10)]


@pytest.mark.parametrize(
    ("images", "xml"), [("", ""), ("JPEGImages", "Annotations"), ("images", "annotations"), ("", "xml")]
)
def test_divide__any_usual_layout__can_be_opened(tmp_path: Path, images: str, xml: str) -> None:
    source = label(tmp_path / "photos", STEMS, images=images, xml=xml, suffix=".PNG")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    divided = divide(source, tmp_path / "out", DivideOptions(0.3))
    train, val = (open_split(tmp_path / "out", role=role) for role in ("train", "val"))
    assert (len(train.annotations), len(val.annotations)) == (7, 3)
    assert [train.split, val.split] == ["train", "val"]
    assert sorted([*stems(train), *stems(val)]) == STEMS
    assert divided.left_out == []
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_divide__path_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label(tmp_path / "photos", STEMS, images="images", xml="annotations")
    monkeypatch.chdir(tmp_path)
    divided = divide(Path("photos"), Path("out"), DivideOptions(0.3))
    assert (divided.sides["train"].images, divided.sides["val"].images) == (7, 3)


def test_divide__same_names__same_division_whatever_the_folder(tmp_path: Path) -> None:
    divide(label(tmp_path / "a", STEMS), tmp_path / "out-a", DivideOptions(0.5))
    divide(label(tmp_path / "b", STEMS[::-1], xml="xml"), tmp_path / "out-b", DivideOptions(0.5))
    divide(tmp_path / "a", tmp_path / "out-c", DivideOptions(0.5, seed=1))
    first, again, other = (
        stems(open_split(tmp_path / name, "val", role="val")) for name in ("out-a", "out-b", "out-c")
    )
    assert first == again != other


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 9), (0.25, 2)])
def test_divide__each_split_has_a_picture(tmp_path: Path, share: float, count: int) -> None:
    divided = divide(label(tmp_path / "photos", STEMS), tmp_path / "out", DivideOptions(share))
    assert divided.sides["val"].images == count
    assert divided.sides["train"].images == 10 - count


def test_divide__what_has_no_partner__is_left_out_and_named(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    (source / "IMG 00.xml").unlink()
    (source / "IMG 01.jpg").unlink()
    (source / "notes.txt").write_text("")
    divided = divide(source, tmp_path / "out", DivideOptions(0.2))
    assert sum(side.images for side in divided.sides.values()) == 8
    assert divided.left_out == [
        "1 images without an XML file left out: IMG 00.jpg",
        "1 XML files without an image left out: IMG 01.xml",
    ]
    assert len(list((tmp_path / "out" / "JPEGImages").iterdir())) == 8


def test_divide__more_left_out_than_can_be_named(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    for stem in STEMS[:7]:
        (source / f"{stem}.xml").unlink()
    divided = divide(source, tmp_path / "out", DivideOptions(0.2))
    (left_out,) = divided.left_out
    assert left_out.startswith("7 images without an XML file left out: IMG 00.jpg, ")
    assert left_out.endswith("IMG 04.jpg, ...")


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_divide__share_that_is_none__refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match=f"--val_share {share}: a share of the images"):
        divide(label(tmp_path / "photos", STEMS), tmp_path / "out", DivideOptions(share))


def test_divide__two_images_of_one_name__refused(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    save_picture(source / "IMG 03.png")
    with pytest.raises(InputError, match=r"IMG 03\.jpg and .*IMG 03\.png have one name"):
        divide(source, tmp_path / "out", DivideOptions(0.2))


def test_divide__nothing_annotated__says_where_it_looked(tmp_path: Path) -> None:
    save_picture(tmp_path / "photos" / "a.jpg")
    with pytest.raises(InputError, match=r"has 1 images and 0 XML files, 0 of one name.*JPEGImages"):
        divide(tmp_path / "photos", tmp_path / "out", DivideOptions(0.2))
    with pytest.raises(InputError, match="no folder"):
        divide(tmp_path / "absent", tmp_path / "out", DivideOptions(0.2))


def test_divide__output_that_holds_something_or_lies_inside__refused(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    with pytest.raises(InputError, match="which is only read"):
        divide(source, source / "out", DivideOptions(0.2))
    with pytest.raises(InputError, match="not an empty folder"):
        divide(source, tmp_path, DivideOptions(0.2))


def test_split_command__says_what_it_did_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = label(tmp_path / "photos", STEMS), tmp_path / "out"
    assert main(["data", "split", str(source), "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "8 images for training and 2 for validation" in shown
    assert f"next: detect init {out}" in shown
    (source / "IMG 00.xml").unlink()
    assert main(["data", "split", str(source), "--output", str(tmp_path / "again")]) == 1


BOXES = {"cat": (2.0, 3.0, 30.0, 40.0), "dog": (20.0, 5.0, 50.0, 30.0), "owl": (5.0, 5.0, 20.0, 20.0)}


def voc_set(root: Path) -> Path:
    """40 images with a cat; every fourth with a dog as well, two with an owl."""
    images = {
        f"{i:02d}": [
            (name, BOXES[name])
            for name, shown in (("cat", True), ("dog", i % 4 == 0), ("owl", i in (5, 30)))
            if shown
        ]
        for i in range(40)
    }
    return make_voc(root, {"default": images})


def single_split(tmp_path: Path, to: str) -> Path:
    root = voc_set(tmp_path / "voc")
    if to != "voc":
        convert(root, to, output=tmp_path / to)  # type: ignore[arg-type]
    return tmp_path / to


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_divide__one_split_of_any_format__stratified_and_every_box_as_it_was(tmp_path: Path, to: str) -> None:
    source, out = single_split(tmp_path, to), tmp_path / "out"
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    divided = divide(source, out, DivideOptions(0.25))
    train, val = (open_split(out, role=role) for role in ("train", "val"))
    assert (train.split, val.split, train.format) == ("train", "val", to)
    whole = open_split(source, "default", role="train").annotations
    boxes = {
        (
            Path(content.file_names[row].decode()).stem,
            content.classes.name(int(label)),
            *box.round(6).tolist(),
        )
        for content in (train.annotations, val.annotations)
        for row in range(len(content))
        for label, box in zip(
            content.labels[content.rows(row)], content.boxes[content.rows(row)], strict=True
        )
    }
    assert len(boxes) == len(whole.boxes) == 52
    assert divided.sides["val"] == (10, 13, {"cat": 10, "dog": 2, "owl": 1})
    assert divided.sides["train"] == (30, 39, {"cat": 30, "dog": 8, "owl": 1})
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_divide__copies_and_groups__stay_on_one_side(tmp_path: Path) -> None:
    source = voc_set(tmp_path / "voc")
    folder = source / "JPEGImages"
    (folder / "07.jpg").write_bytes((folder / "31.jpg").read_bytes())
    with Image.open(folder / "12.jpg") as image:
        image.save(folder / "22.jpg", quality=40)
    for seed in range(8):
        out = tmp_path / f"out-{seed}"
        divided = divide(source, out, DivideOptions(0.3, seed, groups=("0[0-6]*", "3[5-9].jpg")))
        val = set(stems(open_split(out, role="val")))
        assert (divided.together, divided.units) == (16, 4)
        for unit in (
            {"07", "31"},
            {"12", "22"},
            {f"0{i}" for i in range(7)},
            {f"3{i}" for i in range(5, 10)},
        ):
            assert unit <= val or not unit & val
        assert len(val) == 12


def test_divide__a_class_that_only_one_image_shows__is_trained_on_and_said(tmp_path: Path) -> None:
    source = voc_set(tmp_path / "voc")
    rare = source / "Annotations" / "05.xml"
    rare.write_text(voc_xml([("cat", BOXES["cat"])]))
    divided = divide(source, tmp_path / "out")
    assert divided.sides["train"].classes["owl"] == 1
    assert "not in val: owl (1 boxes in train)" in str(divided)


def test_divide__other_splits__are_kept_as_they_are(tmp_path: Path) -> None:
    source = voc_set(tmp_path / "voc")
    lists = source / "ImageSets" / "Main"
    (lists / "test.txt").write_text("05\n30\n")
    (lists / "default.txt").rename(lists / "train.txt")
    with pytest.raises(InputError, match="has the splits test, train already; name the one"):
        divide(source, tmp_path / "out")
    with pytest.raises(InputError, match="no split 'other'; it has test, train"):
        divide(source, tmp_path / "out", split="other")
    divide(source, tmp_path / "out", split="train")
    assert stems(open_split(tmp_path / "out", "test", role="val")) == ["05", "30"]
    (lists / "val.txt").write_text("05\n30\n")
    with pytest.raises(InputError, match="has a split val already, beside train"):
        divide(source, tmp_path / "again", split="train")


def test_divide__one_unit_or_a_pattern_that_fits_nothing__refused(tmp_path: Path) -> None:
    source = voc_set(tmp_path / "voc")
    with pytest.raises(InputError, match="40 images, all of one group"):
        divide(source, tmp_path / "out", DivideOptions(groups=("*",)))
    with pytest.raises(InputError, match=r"--group cam_\*: no image has such a name; the first is 00\.jpg"):
        divide(source, tmp_path / "out", DivideOptions(groups=("cam_*",)))
    assert not (tmp_path / "out").exists()


def test_split_command__groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = single_split(tmp_path, "yolo"), tmp_path / "out"
    assert main(["data", "split", str(source), "--out", str(out), "--group", "0*", "--group", "1*"]) == 0
    shown = capsys.readouterr().out
    assert "32 images for training and 8 for validation" in shown
    assert "20 images in 2 groups stay together" in shown


def test_divide__many_rare_classes__validation_keeps_its_share(tmp_path: Path) -> None:
    images = {f"{i:02d}": [(f"class {i // 2}", BOXES["cat"])] for i in range(40)}
    divided = divide(make_voc(tmp_path / "voc", {"all": images}), tmp_path / "out")
    assert divided.sides["val"].images == 8

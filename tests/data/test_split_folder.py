from __future__ import annotations

from pathlib import Path

import pytest

from detect.commands.main import main
from detect.data.split_folder import divide
from detect.data.splits import open_split
from detect.errors import InputError
from tests.data_sets import save_picture, voc_xml


def label(folder: Path, stems: list[str], *, images: str = "", xml: str = "", suffix: str = ".jpg") -> Path:
    """Pictures with an XML file each, as a labelling tool leaves them."""
    (folder / xml).mkdir(parents=True, exist_ok=True)
    for seed, stem in enumerate(stems):
        save_picture(folder / images / f"{stem}{suffix}", seed=seed)
        (folder / xml / f"{stem}.xml").write_text(voc_xml([("cat", (2, 3, 30, 40))]))
    return folder


STEMS = [f"IMG {i:02d}" for i in range(10)]


@pytest.mark.parametrize(
    ("images", "xml"), [("", ""), ("JPEGImages", "Annotations"), ("images", "annotations"), ("", "xml")]
)
def test_divide__any_usual_layout__can_be_opened(tmp_path: Path, images: str, xml: str) -> None:
    source = label(tmp_path / "photos", STEMS, images=images, xml=xml, suffix=".PNG")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    divided = divide(source, tmp_path / "out", val_share=0.3)
    train, val = (open_split(tmp_path / "out", role=role) for role in ("train", "val"))
    assert (len(train.annotations), len(val.annotations)) == (7, 3)
    assert [train.split, val.split] == ["train", "val"]
    assert sorted(divided.train + divided.val) == STEMS
    assert divided.left_out == ""
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_divide__same_names__same_division_whatever_the_folder(tmp_path: Path) -> None:
    first = divide(label(tmp_path / "a", STEMS), tmp_path / "out-a", val_share=0.5)
    again = divide(label(tmp_path / "b", STEMS[::-1], xml="xml"), tmp_path / "out-b", val_share=0.5)
    other = divide(tmp_path / "a", tmp_path / "out-c", val_share=0.5, seed=1)
    assert first.val == again.val != other.val


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 9), (0.25, 2)])
def test_divide__each_split_has_a_picture(tmp_path: Path, share: float, count: int) -> None:
    divided = divide(label(tmp_path / "photos", STEMS), tmp_path / "out", val_share=share)
    assert len(divided.val) == count


def test_divide__what_has_no_partner__is_left_out_and_named(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    (source / "IMG 00.xml").unlink()
    (source / "IMG 01.jpg").unlink()
    (source / "notes.txt").write_text("")
    divided = divide(source, tmp_path / "out", val_share=0.2)
    assert len(divided.train) + len(divided.val) == 8
    assert divided.left_out == (
        "1 images without an XML file left out: IMG 00.jpg\n1 XML files without an image left out: IMG 01.xml"
    )
    assert len(list((tmp_path / "out" / "JPEGImages").iterdir())) == 8


def test_divide__more_left_out_than_can_be_named(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    for stem in STEMS[:7]:
        (source / f"{stem}.xml").unlink()
    divided = divide(source, tmp_path / "out", val_share=0.2)
    assert divided.left_out.startswith("7 images without an XML file left out: IMG 00.jpg, ")
    assert divided.left_out.endswith("IMG 04.jpg, ...")


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_divide__share_that_is_none__refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match=f"--val_share {share}: a share of the images"):
        divide(label(tmp_path / "photos", STEMS), tmp_path / "out", val_share=share)


def test_divide__two_images_of_one_name__refused(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    save_picture(source / "IMG 03.png")
    with pytest.raises(InputError, match=r"IMG 03\.jpg and .*IMG 03\.png have one name"):
        divide(source, tmp_path / "out", val_share=0.2)


def test_divide__nothing_annotated__says_where_it_looked(tmp_path: Path) -> None:
    save_picture(tmp_path / "photos" / "a.jpg")
    with pytest.raises(InputError, match=r"has 1 images and 0 XML files, 0 of one name.*JPEGImages"):
        divide(tmp_path / "photos", tmp_path / "out", val_share=0.2)
    with pytest.raises(InputError, match="no folder"):
        divide(tmp_path / "absent", tmp_path / "out", val_share=0.2)


def test_divide__output_that_holds_something_or_lies_inside__refused(tmp_path: Path) -> None:
    source = label(tmp_path / "photos", STEMS)
    with pytest.raises(InputError, match="which is only read"):
        divide(source, source / "out", val_share=0.2)
    with pytest.raises(InputError, match="not an empty folder"):
        divide(source, tmp_path, val_share=0.2)


def test_split_command__says_what_it_did_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = label(tmp_path / "photos", STEMS), tmp_path / "out"
    assert main(["data", "split", str(source), "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "8 images for training and 2 for validation" in shown
    assert f"next: detect data check {out}" in shown
    (source / "IMG 00.xml").unlink()
    assert main(["data", "split", str(source), "--output", str(tmp_path / "again")]) == 1

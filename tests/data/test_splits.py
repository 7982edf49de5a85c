from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.splits import open_split, recognise
from detect.errors import InputError
from detect.inspection.data_check import check
from tests.data_sets import make_voc, make_yolo, save_picture, voc_xml

BOX = ("cat", (2, 3, 30, 40))


def test_recognise__pictures_and_xml_in_one_folder__says_how_to_divide_them(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc_xml([BOX]))
    with pytest.raises(
        InputError, match=rf"(?s)no format.*\n  it has XML files: `detect data split {tmp_path}"
    ):
        recognise(tmp_path)


def test_recognise__nothing_of_the_kind__only_says_what_is_there(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"found a\.jpg$"):
        recognise(tmp_path)


@pytest.mark.parametrize("lists", [[], ["default"]])
def test_open_split__voc_without_two_lists__says_how_to_divide_it(tmp_path: Path, lists: list[str]) -> None:
    root = make_voc(tmp_path / "cats", {"train": {"a": [BOX], "b": [BOX]}})
    written = root / "ImageSets" / "Main" / "train.txt"
    for name in lists:
        written.with_stem(name).write_text(written.read_text())
    written.unlink()
    said = (
        r"no train split train2017 or train; it has default\." if lists else r"has no split; looked for Ann"
    )
    with pytest.raises(InputError, match=rf"(?s){said}.*detect data split"):
        open_split(root, role="train")


def test_check__voc_without_lists__says_how_to_divide_it(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "cats", {"train": {"a": [BOX]}})
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(InputError, match=r"has no split; looked for Annotations/.*\n.*detect data split"):
        check(root)


def test_open_split__other_formats__say_how_to_divide_it(tmp_path: Path) -> None:
    root = make_yolo(tmp_path / "cats", {"train": {"a": "0 0.5 0.5 0.2 0.2"}})
    with pytest.raises(InputError, match=r"it has train\. Name one with --data\.val_split\n.*data split"):
        open_split(root, role="val")

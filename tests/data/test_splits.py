from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.splits import open_split, recognise
from detect.errors import InputError
from detect.inspection.data_check import check
from tests.data_sets import make_voc, make_yolo, save_picture, voc_xml

BOX = ("cat", (2, 3, 30, 40))


def test_open_split__pictures_and_xml_in_one_folder__says_how_to_divide_them(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc_xml([BOX]))
    assert len(open_split(tmp_path, role="train").annotations) == 1
    with pytest.raises(InputError, match=rf"(?s)no val split.*has default.*`detect data split {tmp_path}"):
        open_split(tmp_path, role="val")


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
    assert open_split(root, role="train").split == "default"
    with pytest.raises(InputError, match=r"(?s)no val split .*; it has default\..*detect data split"):
        open_split(root, role="val")


def test_check__voc_without_lists__is_one_split(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "cats", {"train": {"a": [BOX]}})
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    assert list(check(root).splits) == ["default"]


def test_open_split__other_formats__say_how_to_divide_it(tmp_path: Path) -> None:
    root = make_yolo(tmp_path / "cats", {"train": {"a": "0 0.5 0.5 0.2 0.2"}})
    with pytest.raises(InputError, match=r"it has train\. Name one with --data\.val_split\n.*data split"):
        open_split(root, role="val")

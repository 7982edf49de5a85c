from __future__ import annotations

import os
from pathlib import Path

import pytest

from detect.data.splits import open_split
from detect.errors import InputError
from tests.data_sets import make_voc, voc_xml

CAT = ("cat", (5, 7, 25, 17))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_voc(tmp_path, {"train": {"a": [CAT], "b": [("dog", (1, 1, 64, 48))]}})


def test_read__the_files_own_numbers(root: Path) -> None:
    found = open_split(root, role="train").annotations
    assert found.boxes.tolist() == [[5, 7, 25, 17], [1, 1, 64, 48]]
    assert (found.classes.names, found.labels.tolist()) == (("cat", "dog"), [1, 2])
    assert [found.image_id(0), found.image_id(1)] == ["a", "b"]


@pytest.mark.parametrize("official", [False, True])
def test_read__counted_from_1__left_and_top_move(root: Path, official: bool) -> None:
    if official:
        for path in (root / "Annotations").glob("*.xml"):
            source = "<annotation><source><database>The VOC2007 Database</database></source>"
            path.write_text(path.read_text().replace("<annotation>", source))
    found = open_split(root, role="train", voc_one_based=None if official else True).annotations
    assert found.boxes.tolist() == [[4, 6, 25, 17], [0, 0, 64, 48]]


def test_read__difficult__is_a_region_to_ignore(root: Path) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml([CAT, CAT], difficult=[1]))
    assert open_split(root, role="train").annotations.ignore.tolist() == [False, True, False]


def test_read__parts_of_a_person__are_no_objects(root: Path) -> None:
    xml = voc_xml([CAT]).replace(
        "</object>",
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
        "</part></object>",
    )
    (root / "Annotations" / "a.xml").write_text(xml)
    found = open_split(root, role="train").annotations
    assert (found.classes.names, len(found.boxes)) == (("cat", "dog"), 2)


def test_read__labels_txt__sets_the_order(root: Path) -> None:
    (root / "labels.txt").write_text("dog\ncat\n")
    assert open_split(root, role="train").annotations.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<annotation>", "as XML: no element found"),
        (b"\xff\xfe\x00", "as XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "as XML"),
        (b"<!DOCTYPE a [<!ENTITY b 'lol'>]><annotation>&b;</annotation>", "defines XML entities"),
        ("<!DOCTYPE a [<!ENTITY b 'lol'>]><annotation>&b;</annotation>".encode("utf-16"), "XML entities"),
        (b"<annotation>" + b" " * 5_000_000 + b"</annotation>", "it has 5 MB, at most 4 are read"),
    ],
)
def test_read__broken_xml__image_dropped_with_finding(root: Path, content: bytes, reason: str) -> None:
    (root / "Annotations" / "a.xml").write_bytes(content)
    opened = open_split(root, role="train")
    (finding,) = [f for f in opened.findings if f.severity == "error"]
    assert (finding.code, finding.file) == ("annotation-unreadable", str(root / "Annotations" / "a.xml"))
    assert reason in finding.detail
    assert opened.annotations.file_names.tolist() == [b"b.jpg"]


def test_read__xml_is_a_pipe__does_not_wait(root: Path) -> None:
    (root / "Annotations" / "a.xml").unlink()
    os.mkfifo(root / "Annotations" / "a.xml")
    findings = open_split(root, role="train").findings
    assert "not an ordinary file" in next(f.detail for f in findings if f.severity == "error")


def test_read__listed_without_xml__finding(root: Path) -> None:
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nnone\n../../b\n")
    findings = open_split(root, role="train").findings
    assert sum(f.code == "annotation-unreadable" and f.detail == "no such file" for f in findings) == 2


def test_read__huge_size_and_words_for_numbers__findings(root: Path) -> None:
    xml = voc_xml([("cat", (5, 7, 25, 17)), ("cat", ("x", 1, 2, 3))], (10**300, 48))  # type: ignore[list-item]
    (root / "Annotations" / "a.xml").write_text(xml)
    codes = [f.code for f in open_split(root, role="train").findings]
    assert sorted(codes) == ["box-not-a-number", "image-size-differs"]


@pytest.mark.parametrize(
    ("text", "message"), [(b"\n\n", "the list of images .* is empty"), (b"\xff", "not UTF-8")]
)
def test_read__list_unusable__says_so(root: Path, text: bytes, message: str) -> None:
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(text)
    with pytest.raises(InputError, match=message):
        open_split(root, role="train")


def test_read__no_object_has_a_name__says_so(tmp_path: Path) -> None:
    make_voc(tmp_path, {"train": {"a": []}})
    with pytest.raises(InputError, match="no <object> with a <name>"):
        open_split(tmp_path, role="train")


def test_read__labels_txt_with_a_name_twice__says_where(root: Path) -> None:
    (root / "labels.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(InputError, match=r"labels\.txt: class name 'cat' occurs twice"):
        open_split(root, role="train")

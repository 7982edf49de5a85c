from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.readers.data_yaml import read_data_yaml
from detect.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_read__list_of_names__numbered_from_0(tmp_path: Path) -> None:
    content = read_data_yaml(write(tmp_path, "train: images/train\nval: [a, b]\nnc: 2\nnames: [cat, 'no']\n"))
    assert content.names == {0: "cat", 1: "no"}
    assert content.splits == {"train": ["images/train"], "val": ["a", "b"]}
    assert content.path == ""


def test_read__mapping_of_names__in_the_order_of_the_numbers(tmp_path: Path) -> None:
    text = "path: ../here  # a comment\ntrain: images\ntest:\nnames:\n  7: no\n  2: yes\n"
    content = read_data_yaml(write(tmp_path, text))
    assert list(content.names.items()) == [(2, "yes"), (7, "no")]
    assert (content.splits, content.path) == ({"train": ["images"]}, "../here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^\S+/data\.yaml is empty"),
        ("[1, 2]", "holds no mapping"),
        ("names: [a", "cannot read .* as YAML"),
        ("train: images", "'names' must list the classes"),
        ("names: []", "'names' must list the classes"),
        ("names: {a: b}", "'names' has the entry 'a'; expected 0: name"),
        ("names: [[a]]", "'names' has the entry '0'"),
        ("names: [a]\ntrain: {a: b}", "'train' must be a folder"),
        ("x: &x [a]\nnames: *x", r"line 2: aliases \(\*x\) are not read"),
        ("names: " + "[" * 50_000, r"^\S+/data\.yaml, line 1: nested more than 4 deep"),
        ("names: " + "[" * 900 + "]" * 900, "line 1: nested more than 4 deep"),
        ("names:\n " + "{a: " * 30_000, "line 2: nested more than 4 deep"),
        ("names:\n  " + "- " * 50_000 + "a", "line 2: nested more than 4 deep"),
        ("names: " + "- " * 50_000, "cannot read .* as YAML"),
        ("names: [" + "a," * 200_000 + "]", r"it has 0.4 MB, at most 0.25 are read"),
        ("names: [\x00]", "cannot read .* as YAML"),
    ],
)
def test_read__what_is_no_data_yaml__says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_data_yaml(write(tmp_path, text))


def test_read__file_changed__read_anew(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    for names in (["cat"], ["cat", "dog"]):
        path.write_text(f"names: [{', '.join(names)}]\ntrain: images\n")
        assert list(read_data_yaml(path).names.values()) == names


def test_read__thousand_laughs__refused_at_the_first_alias(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(InputError, match=r"line 2: aliases"):
        read_data_yaml(write(tmp_path, "\n".join([*lines, "names: *a29"])))

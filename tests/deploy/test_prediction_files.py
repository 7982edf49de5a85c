from pathlib import Path

import pytest

from detect.deploy.prediction_files import find_images, output_names
from detect.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deeper").mkdir()
    for name in ("a.jpg", "b.png", "deeper/a.webp", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_find_images__folders_files_globs_each_once(folder: Path) -> None:
    every = [folder / "a.jpg", folder / "b.png", folder / "deeper" / "a.webp"]
    assert find_images([str(folder)]) == every
    assert find_images([str(folder / "*.jpg"), str(folder)]) == every
    assert find_images([str(folder / "**" / "*.webp")]) == every[2:]
    assert find_images([str(folder / "b.png"), str(folder / "b.png")]) == every[1:2]


def test_find_images__of_the_folder_alone(folder: Path) -> None:
    assert find_images([str(folder)], recursive=False) == [folder / "a.jpg", folder / "b.png"]
    (folder / "outer").mkdir()
    (folder / "deeper").rename(folder / "outer" / "deeper")
    with pytest.raises(InputError, match="no image there"):
        find_images([str(folder / "outer")], recursive=False)


def test_find_images__says_where_nothing_is(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--source .*\*\.bmp: no image there"):
        find_images([str(folder), str(folder / "*.bmp")])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image there"):
        find_images([str(folder / "empty")])


def test_output_names__are_distinct_without_suffix_too() -> None:
    names = output_names([Path("x/a.jpg"), Path("y/a.jpg"), Path("z/a.png"), Path("a-2.bmp")])
    assert list(names.values()) == ["a.jpg", "a-2.jpg", "a-3.png", "a-2-2.jpg"]


def test_output_names__with_a_suffix_for_all() -> None:
    names = output_names([Path("x/a.mov"), Path("y/a.mp4")], suffix=".mp4")
    assert list(names.values()) == ["a.mp4", "a-2.mp4"]

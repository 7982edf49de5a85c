import os
from pathlib import Path

import pytest

from detect.training.callbacks.checkpoints import disk_is_full, replace_with_link


def test_a_file_gets_a_second_name_at_once(tmp_path: Path) -> None:
    source, target = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    source.write_text("new")
    target.write_text("old")
    replace_with_link(source, target)
    assert target.read_text() == "new"
    assert source.samefile(target)
    source.unlink()
    assert target.read_text() == "new"


def test_a_disk_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    source.write_text("new")

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    replace_with_link(source, target)
    assert target.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_is_explained() -> None:
    message = disk_is_full(OSError(28, "No space left on device", "a.csv"), Path("run/checkpoints/last.ckpt"))
    assert message.startswith(
        "No space left on device while writing a.csv; run/checkpoints/last.ckpt is whole"
    )
    assert "--out run --ckpt_path last" in message

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detect.errors import InputError
from detect.model import checkpoint_format
from detect.model.checkpoint_format import FORMAT_VERSION, MIGRATIONS, migrate


def test_there_is_a_way_up_from_every_version() -> None:
    assert set(MIGRATIONS) == set(range(1, FORMAT_VERSION))


def test_what_is_up_to_date_is_left_as_it_is() -> None:
    content = {"detect": {"format_version": FORMAT_VERSION, "model": {}}}
    assert migrate(content, Path("a.ckpt")) is content


def test_the_steps_are_taken_in_order_and_the_file_read_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rename_a_key(content: dict[str, Any]) -> dict[str, Any]:
        description = dict(content["detect"])
        description["size"] = description.pop("image_size")
        return {**content, "detect": description}

    def double_the_size(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "detect": {**content["detect"], "size": 2 * content["detect"]["size"]}}

    monkeypatch.setattr(checkpoint_format, "FORMAT_VERSION", 3)
    monkeypatch.setattr(checkpoint_format, "MIGRATIONS", {1: rename_a_key, 2: double_the_size})
    old = {"detect": {"format_version": 1, "image_size": 5}, "state_dict": {}}
    new = migrate(old, Path("a.ckpt"))
    assert new == {"detect": {"format_version": 3, "size": 10}, "state_dict": {}}
    assert old == {"detect": {"format_version": 1, "image_size": 5}, "state_dict": {}}
    from_2 = migrate({"detect": {"format_version": 2, "size": 5}}, Path("a.onnx"))
    assert from_2 == {"detect": {"format_version": 3, "size": 10}}


@pytest.mark.parametrize("version", [None, "1", 0, FORMAT_VERSION + 1])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(InputError, match=rf"a.ckpt: format version {version!r}; this detect reads 1 up to"):
        migrate({"detect": {"format_version": version}}, Path("a.ckpt"))

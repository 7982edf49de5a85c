"""docs/data.md against the code that it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detect.commands.data import DATA_COMMANDS
from detect.data.public.sets import DATA_SETS
from detect.inspection.data_check import DataReport, check
from detect.inspection.preview import PreviewOptions, open_preview
from tests.conftest import make_coco

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SOURCES = (
    *("checks/boxes", "checks/headers", "checks/splits", "checks/repeated_images"),
    *("readers/tails", "readers/coco", "readers/voc", "readers/yolo"),
)
"""Files of detect/data whose words with hyphens in quotes are codes of findings."""
CODE = re.compile(r'"([a-z]+(?:-[a-z]+)+)"')


def codes_of_the_code() -> set[str]:
    files = [ROOT / "detect" / "data" / f"{name}.py" for name in SOURCES]
    return {code for file in files for code in CODE.findall(file.read_text(encoding="utf-8"))}


def test_every_finding_is_explained_and_none_that_is_not_there() -> None:
    table = PAGE[PAGE.index("| code | severity |") : PAGE.index("`--json` has `root`")]
    explained = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", table))
    assert explained == codes_of_the_code()
    assert len(explained) > 20


@pytest.mark.parametrize("command", [name for name in DATA_COMMANDS if name != "shapes"])
def test_every_command_has_its_place(command: str) -> None:
    assert f"detect data {command}" in PAGE


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_public_set_is_listed(name: str) -> None:
    assert f"| `{name}` |" in PAGE


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DataReport:
    return check(make_coco(tmp_path_factory.mktemp("docs") / "coco"))


def test_every_key_of_check_is_named(report: DataReport) -> None:
    content = report.to_json()
    split = content["splits"]["train"]
    assert content["findings"], "a finding, for its keys"
    for key in [*content, *split, *split["anchor_fit"], *content["findings"][0]]:
        assert f"`{key}`" in PAGE, key


def test_every_key_of_preview_is_named(tmp_path: Path) -> None:
    options = PreviewOptions(images=1, epochs=1, samples=4)
    for key in open_preview(make_coco(tmp_path / "coco"), options).audit.to_json():
        assert f"`{key}`" in PAGE, key

"""docs/troubleshooting.md quotes what the code says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from detect.data.datamodule import DetectionData
from scripts.write_configuration import SWAPPED, TOP_LEVEL, TRAINER, model_values, values_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)
FINDINGS = re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE)
FLAGS = re.findall(r"--((?:model|data|trainer)\.[\w.]+)", PAGE)
HOLE = "<>"
LEAST_WORDS = 4


def text_of(node: ast.AST) -> str | None:
    """A string of the source with a hole for each value that it is given."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return None


@cache
def strings_of_the_code() -> list[str]:
    trees = (ast.parse(path.read_text()) for path in (ROOT / "detect").rglob("*.py"))
    return [text for tree in trees for node in ast.walk(tree) if (text := text_of(node))]


@pytest.mark.parametrize("quotation", QUOTED)
def test_a_quotation_is_what_the_code_says(quotation: str) -> None:
    wanted = re.sub(r"<[^>]*>", HOLE, quotation)
    assert len(wanted.replace(HOLE, "").split()) >= LEAST_WORDS - 1
    assert any(wanted in text for text in strings_of_the_code())


@pytest.mark.parametrize("code", FINDINGS)
def test_a_finding_is_one_of_the_code(code: str) -> None:
    assert code in strings_of_the_code()


def test_settings_exist() -> None:
    keys = {value.key for value in (*model_values(), *values_of(DetectionData, "data."))}
    keys |= {
        f"{key}.{value.key}"
        for key, classes in SWAPPED.items()
        for cls in classes
        for value in values_of(cls, "")
    }
    keys |= {f"trainer.{key}" for key in TRAINER} | TOP_LEVEL.keys()
    assert set(FLAGS) <= keys


def test_the_page_has_what_is_tested() -> None:
    assert len(QUOTED) >= 25
    assert len(FINDINGS) >= 10
    assert FLAGS

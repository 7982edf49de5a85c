"""Images of the rich style with one part left out."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.synthetic.shapes import make_shapes

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "generator_parts.py"
PARTS = ("clutter", "optics", "patterns", "shading", "scales")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich") / "whole"
    make_shapes(folder, train=12, val=1, unseen=0, style="rich")
    return folder


def make(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    words = ["--without", part, "--out", str(folder / part), "--train", "12", "--val", "1"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return folder / part


def pixels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)).astype(float) for file in sorted((folder / "train").iterdir())]


def boxes(folder: Path) -> np.ndarray:
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    return np.array([row["bbox"] for row in content["annotations"]])


def grain(folder: Path) -> float:
    """Mean difference between neighbours: patterns, noise and edges."""
    return float(np.mean([np.abs(np.diff(image, axis=1)).mean() for image in pixels(folder)]))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_left_out_and_comes_back(
    part: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = make(part, tmp_path, monkeypatch)
    shapes = [(a.shape, b.shape) for a, b in zip(pixels(whole), pixels(without), strict=True)]
    assert all(a == b for a, b in shapes)
    assert any((a != b).any() for a, b in zip(pixels(whole), pixels(without), strict=True))
    again = tmp_path / "again"
    make_shapes(again, train=12, val=1, unseen=0, style="rich")
    assert all((a == b).all() for a, b in zip(pixels(whole), pixels(again), strict=True))


def test_without_shading__things_lie_where_they_lay(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (boxes(make("shading", tmp_path, monkeypatch)) == boxes(whole)).all()


def test_without_patterns__fewer_changes_between_neighbours(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grain(make("patterns", tmp_path, monkeypatch)) < 0.9 * grain(whole)


def test_without_scales__boxes_of_one_size(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(folder: Path) -> float:
        return float(np.log(boxes(folder)[:, 2:].prod(axis=1)).std())

    assert spread(make("scales", tmp_path, monkeypatch)) < 0.6 * spread(whole)

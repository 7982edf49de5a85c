from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.errors import InputError
from detect.report.run_files import is_run, read_run
from tests.run_cases import make_run


@pytest.fixture
def run(tmp_path: Path, coco_root: Path) -> Path:
    make_run(tmp_path / "run", coco_root, seed=3)
    return tmp_path / "run"


def test_read_run__finished(run: Path) -> None:
    files = read_run(run)
    assert files.name == "run"
    assert files.seed == 3
    assert files.section("data")["total_batch_size"] == 4
    assert files.section("absent") == {}
    assert files.curves["train/loss"] == pytest.approx([5, 2.5, 5 / 3])
    assert files.speed["images_per_second"] == pytest.approx([20, 22, 21])
    assert files.metrics is not None
    assert files.scored is not None
    assert files.notices == ()


def test_read_run__cell_without_a_number__nan(run: Path) -> None:
    (run / "metrics.csv").write_text("epoch,val/mAP\n1,\n2,no\0ne\n3,0.5\n")
    assert np.isnan(read_run(run).curves["val/mAP"]).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics.json", "The run has no checkpoint"),
        ("metrics.csv", "metrics.csv is missing or empty: no epoch was finished"),
        ("config.yaml", "config.yaml is missing"),
    ],
)
def test_read_run__file_missing__noticed(run: Path, name: str, said: str) -> None:
    (run / name).unlink()
    assert any(said in notice for notice in read_run(run).notices)


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "manifest.json", "detections.json"])
@pytest.mark.parametrize(
    "content", ["{", "3", "\x00", "[" * 5000 + "]" * 5000], ids=["open", "number", "control", "deep"]
)
def test_read_run__file_broken__noticed(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    assert any(name in notice for notice in read_run(run).notices)


def test_read_run__checkpointed_but_not_scored__says_how_to_continue(run: Path) -> None:
    (run / "metrics.json").unlink()
    (run / "checkpoints" / "last.ckpt").touch()
    assert "has last.ckpt but was not scored at its end" in " ".join(read_run(run).notices)


def test_read_run__detections_missing__not_scored_and_no_notice(run: Path) -> None:
    (run / "detections.json").unlink()
    files = read_run(run)
    assert files.scored is None
    assert files.notices == ()


def test_read_run__seed_that_is_no_number__none(run: Path) -> None:
    (run / "config.yaml").write_text("seed_everything: true\nmodel: 5\n")
    files = read_run(run)
    assert files.seed is None
    assert files.section("model") == {}


def test_read_run__no_folder_or_no_run__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such run folder"):
        read_run(tmp_path / "absent")
    assert not is_run(tmp_path)
    with pytest.raises(InputError, match=r"is no run folder: it has none of config\.yaml"):
        read_run(tmp_path)

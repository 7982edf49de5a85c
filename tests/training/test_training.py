"""The whole path at work: pictures learnt by heart."""

import json
from pathlib import Path

import pytest

from detect.commands.main import main
from tests.conftest import make_coco

OVERFIT = Path(__file__).resolve().parents[2] / "benchmarks" / "overfit.yaml"


def settings(root: Path, out: Path, *, epochs: int) -> list[str]:
    return [
        *("--config", str(OVERFIT), "--data.root", str(root), "--out", str(out)),
        *("--data.workers", "0", "--data.total_batch_size", "8", "--model.image_size", "[128,128]"),
        *("--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs)),
    ]


@pytest.mark.slow
def test_generated_pictures_are_learnt_by_heart(tmp_path):
    root = make_coco(tmp_path / "coco", train=8, val=1)
    assert main(["fit", *settings(root, tmp_path / "run", epochs=100), "--data.val_split", "train"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["AP50"] > 0.9
    assert metrics["images"] == 8

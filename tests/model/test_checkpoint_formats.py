"""Checkpoints of every format version so far still load, and still compute what they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detect.model.checkpoint import build_from_checkpoint, read_checkpoint
from detect.model.checkpoint_format import FORMAT_VERSION
from tests.make_checkpoint import CLASSES, FOLDER, summarise


def test_every_version_has_its_checkpoint() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ckpt")) == [
        f"format_{version}" for version in range(1, FORMAT_VERSION + 1)
    ]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ckpt")), ids=lambda path: path.stem)
def test_an_old_checkpoint_computes_the_same(path: Path) -> None:
    module = build_from_checkpoint(read_checkpoint(path))
    assert module.classes == CLASSES
    assert module.net.image_size == (64, 96)
    assert module.postprocess.config.score_threshold == 0.02
    assert module.postprocess.config.max_detections == 7
    assert module.postprocess.activation == "sigmoid"
    expected = json.loads(path.with_suffix(".json").read_text())
    for name, values in summarise(module).items():
        torch.testing.assert_close(
            torch.tensor(values), torch.tensor(expected[name]), rtol=1e-4, atol=1e-5, msg=name
        )

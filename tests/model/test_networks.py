"""Every configuration builds the network that it built when its fingerprint was written.

A checkpoint names layers, and holds neither anchors nor the order of the draws: what changes them makes other
detectors of the same settings. `python -m tests.model.test_networks` writes the fingerprints anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.config.model_section import read_model_section
from detect.inspection.anchor_layout import without_auto
from detect.training.build import build_module

CONFIGS = Path(__file__).parents[2] / "configs"
FINGERPRINTS = Path(__file__).with_name("networks.json")


def model_sections() -> dict[str, dict[str, Any]]:
    sections = {
        path.relative_to(CONFIGS).as_posix(): read_model_section(path)
        for path in sorted(CONFIGS.rglob("*.yaml"))
    }
    return {name: section for name, section in sections.items() if section is not None}


def fingerprint(section: dict[str, Any]) -> dict[str, Any]:
    """Names, shapes and anchors exactly; draws and outputs as numbers, whose last bits are the machine's."""
    torch.manual_seed(0)
    arguments = dict(section["backbone"].get("init_args", {}))
    arguments.pop("weights", None)
    backbone = {**section["backbone"], "init_args": arguments}
    net = build_module({**without_auto(section), "backbone": backbone, "num_classes": 3}).net.eval()
    weights = net.state_dict()
    names = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in weights.items())
    draws = 0.0
    for name, tensor in weights.items():
        if "cls_heads" not in name:  # their biases are the loss's
            values = tensor.flatten().double()
            draws += float((values * torch.arange(len(values)).double().cos()).sum())
    rows, columns = net.image_size
    ramp = torch.arange(rows * columns).remainder(256).to(torch.uint8).view(1, 1, rows, columns)
    with torch.inference_mode():
        deltas = net(ramp.expand(1, 3, rows, columns)).box_deltas
    return {
        "names": hashlib.sha256(names.encode()).hexdigest(),
        "anchors": hashlib.sha256(net.anchors.numpy().tobytes()).hexdigest(),
        "draws": draws,
        "box_deltas": float(deltas.double().abs().mean()),
    }


@pytest.mark.parametrize("config", json.loads(FINGERPRINTS.read_text()))
def test_network__is_the_one_that_was_recorded(config: str) -> None:
    recorded = json.loads(FINGERPRINTS.read_text())[config]
    found = fingerprint(model_sections()[config])
    assert found["names"] == recorded["names"]
    assert found["anchors"] == recorded["anchors"]
    assert found["draws"] == pytest.approx(recorded["draws"], abs=1e-4)
    assert found["box_deltas"] / recorded["box_deltas"] == pytest.approx(1, rel=1e-4)


if __name__ == "__main__":
    found = {name: fingerprint(section) for name, section in model_sections().items()}
    FINGERPRINTS.write_text(json.dumps(found, indent=1) + "\n")

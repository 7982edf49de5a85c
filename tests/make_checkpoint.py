"""Write the small checkpoint that every later version must still load: `python -m tests.make_checkpoint`.

Run once for each format version, at the commit that introduces it; the files are kept in tests/checkpoints.
Beside the checkpoint goes what its network gave, so that loading means computing the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from detect.model.checkpoint import build_detector, checkpoint_content, write_checkpoint
from detect.model.checkpoint_format import FORMAT_VERSION
from detect.model.detector import TorchDetector
from detect.types import ClassMap

FOLDER = Path(__file__).parent / "checkpoints"
SETTINGS = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "reduced_tail": True, "width": 0.1},
    },
    "num_classes": 3,
    "image_size": [64, 96],
    "init": "kaiming",
    "postprocess": {"score_threshold": 0.02, "max_detections": 7},
}
CLASSES = ClassMap(("cat", "dog", "hen"), (3, 7, "h"))


def summarise(detector: TorchDetector) -> dict[str, Any]:
    """What the network gives for a picture that is a gradient, and the first anchors."""
    rows, columns = detector.net.image_size
    ramp = torch.arange(rows * columns).remainder(256).to(torch.uint8).view(1, 1, rows, columns)
    with torch.inference_mode():
        outputs = detector.net(ramp.expand(1, 3, rows, columns))
    return {
        "cls_logits": outputs.cls_logits[0, ::40].flatten().tolist(),
        "box_deltas": outputs.box_deltas[0, ::40].flatten().tolist(),
        "anchors": detector.net.anchors[:6].tolist(),
    }


def main() -> None:
    """Write format_N.ckpt and format_N.json."""
    torch.manual_seed(0)
    detector = build_detector(SETTINGS, score_activation="sigmoid").eval()
    detector.classes = CLASSES
    for layer in detector.net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # so that no signal fades and every tensor matters
            torch.nn.init.normal_(layer.bias)
            torch.nn.init.uniform_(layer.running_var, 0.1, 0.3)
    path = FOLDER / f"format_{FORMAT_VERSION}.ckpt"
    write_checkpoint(path, checkpoint_content(detector))
    path.with_suffix(".json").write_text(json.dumps(summarise(detector)) + "\n")
    print(f"written to {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Levels, strides and the input's size are typed in one place each; everything else asks the network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import detect

ROOT = Path(detect.__file__).parent
TYPED = {
    "types.py": "the default input",
    "evaluation/diagnostics.py": "images of the evaluator's own test",
    "inspection/anchor_advice.py": "inputs that are tried",
    "inspection/models.py": "the input of the paper's Table 6",
    "model/backbones/mnasnet.py": "channels of the paper's table",
    "model/backbones/mobilenet_v2.py": "channels of the paper's table",
    "model/backbones/timm_backbone.py": "strides that a model must have",
    "model/tensorflow/detectors.py": "inputs of TensorFlow's published detectors",
    "model/torchvision_weights.py": "the input of torchvision's detector",
}
"""Files that say 320 or name strides 16 and 32 together, with the reason."""


def typed_values(source: str) -> Iterator[int]:
    """Lines with the number 320, or with a collection that holds both 16 and 32."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value == 320:
            yield node.lineno
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            values = {item.value for item in node.elts if isinstance(item, ast.Constant)}
            if {16, 32} <= values:
                yield node.lineno


def test_no_other_file_types_an_input_or_strides() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if any(typed_values(path.read_text()))
    }
    assert found == set(TYPED)


def test_typed_values_are_found() -> None:
    assert sorted(typed_values("a = 1\nsize = (320, 320)\nstrides = [16, 32]")) == [2, 2, 3]

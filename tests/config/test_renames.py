from importlib import import_module
from pathlib import Path

import pytest
import yaml

from detect.config.renames import RENAMED_MODULES, accept_old_class_paths, renamed, renamed_arguments
from detect.training.build import model_parser

OLD = {
    "backbone": {"class_path": "detect.backbones.MobileNetV3", "init_args": {"size": "small"}},
    "loss": {"class_path": "detect.losses.FocalLoss"},
}


def test_every_old_path_has_a_module_today() -> None:
    for old, new in RENAMED_MODULES.items():
        assert import_module(new)
        with pytest.raises(ModuleNotFoundError):
            import_module(old)


def test_class_paths_are_renamed_at_any_depth_and_told() -> None:
    told: list[tuple[str, str]] = []
    old = {"a": [OLD, 3, "detect.backbones"], "b": "detect.module.default_optimizer"}
    new = renamed(old, tell=lambda one, other: told.append((one, other)))
    assert new["a"][0]["backbone"]["class_path"] == "detect.model.backbones.MobileNetV3"
    assert new["a"][0]["loss"]["class_path"] == "detect.training.losses.FocalLoss"
    assert new["a"][1:] == [3, "detect.backbones"]
    assert new["b"] == "detect.training.module.default_optimizer"
    assert told[0] == ("detect.backbones.MobileNetV3", "detect.model.backbones.MobileNetV3")
    assert len(told) == 3


def test_files_may_say_the_old_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept_old_class_paths()
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"model": OLD | {"num_classes": 2}}))
    parser = model_parser()
    parser.add_argument("--config", action="config")
    config = parser.parse_args(["--config", str(file)])
    assert config.model.loss.class_path == "detect.training.losses.FocalLoss"
    assert config.model.backbone.class_path == "detect.model.backbones.MobileNetV3"
    said = capsys.readouterr().err
    assert "detect.losses.FocalLoss is now detect.training.losses.FocalLoss" in said


def test_flags_may_say_the_old_paths() -> None:
    args = [
        "--model.backbone",
        "detect.backbones.Timm",
        "--model.loss=detect.losses.FocalLoss",
        "--out",
        "a=b",
    ]
    assert renamed_arguments(args) == [
        *("--model.backbone", "detect.model.backbones.Timm"),
        *("--model.loss=detect.training.losses.FocalLoss", "--out", "a=b"),
    ]

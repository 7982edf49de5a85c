from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from detect.config.renames import (
    RENAMED_MODULES,
    accept_old_class_paths,
    renamed,
    renamed_arguments,
    renamed_run,
    without_idle_settings,
)
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


def test_auto_anchors_in_their_full_form() -> None:
    kept = {"image_size": [320, 320]}
    assert renamed({"model": kept | {"anchors": "auto"}}) == {"model": kept | {"anchors": {"scales": "auto"}}}
    for value in ({"anchors": "auto"}, {"model": {"anchors": "anchors.yaml"}}, {"model": {"anchors": None}}):
        assert renamed(value) == value


def idle_sections(divisor: int, padding: str) -> dict[str, Any]:
    """All values of the settings that backbones took, as a run folder of an earlier version holds them."""
    settings = {"bn_eps": 1e-3, "padding": padding, "squeeze_divisor": divisor}

    def section(path: str) -> dict[str, Any]:
        return {"model": {"backbone": {"class_path": path, "init_args": {"settings": dict(settings)}}}}

    classes = ("MobileNetV1", "MobileNetV3", "Timm")
    found: dict[str, Any] = {name: section(f"detect.backbones.{name}") for name in classes}
    return found | {"norm": {"model": {"norm": dict(settings)}}}


def settings_of(sections: dict[str, Any]) -> dict[str, Any]:
    return {
        name: section["model"]["norm"]
        if name == "norm"
        else section["model"]["backbone"]["init_args"]["settings"]
        for name, section in sections.items()
    }


def test_settings_that_did_nothing__defaults_of_old_files__left_out() -> None:
    assert settings_of(renamed(idle_sections(8, "symmetric"))) == {
        "MobileNetV1": {"bn_eps": 1e-3, "padding": "symmetric"},
        "MobileNetV3": {"bn_eps": 1e-3, "padding": "symmetric", "squeeze_divisor": 8},
        "Timm": {"bn_eps": 1e-3},
        "norm": {"bn_eps": 1e-3, "padding": "symmetric"},
    }


def test_settings_that_did_nothing__chosen_by_hand__kept_to_be_refused() -> None:
    new = renamed(idle_sections(4, "same"))
    everything = {"bn_eps": 1e-3, "padding": "same", "squeeze_divisor": 4}
    assert settings_of(new) == dict.fromkeys(("MobileNetV1", "MobileNetV3", "Timm", "norm"), everything)
    left = settings_of(without_idle_settings(new, any_value=True))  # as a checkpoint is read
    assert left["norm"] == left["MobileNetV1"] == {"bn_eps": 1e-3, "padding": "same"}
    assert left["Timm"] == {"bn_eps": 1e-3}
    assert left["MobileNetV3"] == everything


def test_a_run_of_before_names_the_class_of_its_schedule() -> None:
    old = {"model": {"schedule": {"warmup_steps": 5, "min_factor": 0.0}}, "data": {"workers": 0}}
    new = renamed_run(old)
    assert new["model"]["schedule"]["class_path"] == "detect.training.schedules.WarmupCosine"
    assert new["model"]["schedule"]["init_args"] == old["model"]["schedule"]
    assert renamed_run(new) == new
    assert renamed_run({"model": None}) == {"model": None}

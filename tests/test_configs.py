from pathlib import Path

import pytest
import torch
import yaml

from detect.config.unknown_keys import build
from detect.inspection.anchor_layout import without_auto
from detect.model.counts import count
from detect.training.build import build_module
from detect.training.classification import classifier_parser
from detect.training.parameters import parameter_groups
from detect.training.schedules import StepDecay

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TABLE6 = sorted((CONFIGS / "table6").glob("*.yaml"))


CLASSIFIERS = sorted((CONFIGS / "pretrain").glob("*.yaml"))
DETECTORS = sorted({*CONFIGS.rglob("*.yaml")} - {*CLASSIFIERS})
IMAGENET = 1_281_167
"""Training images."""


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_every_configuration_of_a_classifier_builds(path: Path) -> None:
    pytest.importorskip("timm", reason="RMSpropTF needs the timm extra: pip install --editable .[timm]")
    config = yaml.safe_load(path.read_text())
    assert config["task"] == "classification"
    steps = IMAGENET // config["data"]["total_batch_size"]
    with torch.device("meta"):
        settings = config["model"] | {"num_classes": 1000}
        module = build(classifier_parser(), {"model": settings}, what="model settings").model
        optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
    schedule = module.schedule
    if isinstance(schedule, StepDecay):  # 5 epochs of warm-up, then 0.99 every 3
        assert (schedule.warmup_steps, schedule.every_steps) == (5 * steps, 3 * steps)
        assert type(optimizer).__name__ == "RMSpropTF"
    else:
        assert schedule.warmup_steps == 5 * steps
    decays = {group.get("weight_decay") for group in optimizer.param_groups}
    assert 0.0 in decays
    assert len(decays) == 2


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_every_configuration_builds(path: Path) -> None:
    settings = without_auto(yaml.safe_load(path.read_text())["model"])
    settings.setdefault("num_classes", 3)
    init_args = settings["backbone"].setdefault("init_args", {})
    init_args.pop("weights", None)  # building needs no download
    module = build_module(settings)
    assert module.net.num_classes == settings["num_classes"]
    assert module.detector.to_settings()["image_size"] == settings.get("image_size", [320, 320])


def test_compared_configurations_differ_in_the_backbone_alone() -> None:
    """And in the number of classes, which is what the paper counted parameters with."""
    assert len(TABLE6) > 1
    without_backbone = []
    for path in TABLE6:
        config = yaml.safe_load(path.read_text())
        config["model"].pop("backbone")
        assert config["model"].pop("num_classes") in (80, 90)
        without_backbone.append(config)
    for path, config in zip(TABLE6, without_backbone, strict=True):
        assert config == without_backbone[0], path.name


@pytest.mark.parametrize("folder", ["table6", "recipes", "minimalistic"])
def test_published_recipes_validate_with_running_averages(folder: str) -> None:
    for path in sorted((CONFIGS / folder).glob("*.yaml")):
        assert yaml.safe_load(path.read_text())["model"]["statistics_images"] == 0, path.name


@pytest.mark.parametrize(("name", "most_madds"), [("v3_large", 0.49e9), ("v3_small", 0.38e9)])
def test_plus__costs_no_more_than_ssdlite(name: str, most_madds: float) -> None:
    section = yaml.safe_load((CONFIGS / "plus" / f"{name}.yaml").read_text())["model"]
    section["backbone"]["init_args"].pop("weights")
    assert section["num_classes"] == 80
    with torch.device("meta"):
        net = build_module(section).net
        assert count(net, (320, 320)).madds <= most_madds
    assert net.strides[0] == 8

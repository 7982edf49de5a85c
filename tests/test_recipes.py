"""The published recipes: a few real steps of each, and the values that make them what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from detect.commands.main import main
from detect.training.build import build_module
from detect.training.parameters import parameter_groups, parts_of

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = (
    "recipes/torchvision",
    "recipes/paper",
    "recipes/paddle",
    "plus/v3_large",
    "plus/v3_small",
    "plus/v2",
)


def model_section(name: str) -> dict:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]


@pytest.fixture
def photographs(coco128: Path, tmp_path: Path) -> Path:
    """A few of COCO's: from random weights every anchor of 80 classes reaches NMS, a second an image."""
    content = json.loads((coco128 / "annotations" / "instances_train2017.json").read_text())
    root = tmp_path / "photographs"
    (root / "annotations").mkdir(parents=True)
    for split, images in (("train2017", content["images"][:12]), ("val2017", content["images"][12:16])):
        (root / split).mkdir()
        for image in images:
            shutil.copy(coco128 / "train2017" / image["file_name"], root / split)
        ids = {image["id"] for image in images}
        annotations = [a for a in content["annotations"] if a["image_id"] in ids]
        few = content | {"images": images, "annotations": annotations}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(few))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_a_few_steps_on_photographs(name: str, photographs: Path, tmp_path: Path) -> None:
    config = CONFIGS / f"{name}.yaml"
    overrides = {
        "data.root": photographs,
        "data.total_batch_size": 4,
        "data.workers": 0,
        "trainer.max_steps": 3,
        "trainer.max_epochs": 1,
        "trainer.limit_val_batches": 1,
        "trainer.accelerator": "cpu",
        "out": tmp_path / "run",
    }
    if "weights" in model_section(name)["backbone"]["init_args"]:
        overrides["model.backbone.init_args.weights"] = "null"  # no network in tests
    flags = [f"--{key}={value}" for key, value in overrides.items()]
    assert main(["fit", "--config", str(config), *flags]) in (0, 1)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("recipes/torchvision", 6 * (400 + 100 + 25 + 9 + 4 + 1)),
        ("recipes/paper", 3 * 400 + 6 * (100 + 25 + 9 + 4 + 1)),
        ("recipes/paddle", 4 * 400 + 6 * (100 + 25 + 9 + 4 + 1)),
        ("plus/v3_large", 2 * 1600 + 6 * (400 + 100 + 25 + 9 + 4 + 1)),
        ("finetune", 6 * (400 + 100 + 25 + 9 + 4 + 1)),
        ("minimalistic/v3_large", 3 * 400 + 6 * (100 + 25 + 9 + 4 + 1)),
        ("minimalistic/v3_small", 3 * 400 + 6 * (100 + 25 + 9 + 4 + 1)),
    ],
)
def test_a_recipe_builds_with_its_anchors(name: str, anchors: int) -> None:
    with torch.device("meta"):  # nothing is fetched there
        module = build_module(model_section(name) | {"num_classes": 80})
    assert len(module.net.anchors) == anchors


def test_paddles_learning_rates_and_decays_reach_their_parameters() -> None:
    with torch.device("meta"):
        module = build_module(model_section("recipes/paddle") | {"num_classes": 80})
    groups = parameter_groups(module.net, module.parameter_config)
    factor = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    parts = parts_of(module.net)
    # ppdet's MobileNetV3: three blocks an entry of lr_mult_list [0.25, 0.25, 0.5, 0.5, 0.75]
    expected = {"stem": 0.25, "block6": 0.25, "block7": 0.5, "block12": 0.5, "block13": 0.75, "last": 0.75}
    for part, value in (expected | {"extra_levels": 1.0, "cls_heads": 1.0}).items():
        assert {factor[id(p)] for p in parts[part].parameters()} == {value}
    assert {group.get("weight_decay") for group in groups} == {None, 0.0, 5e-4}
    assert module.net.backbone.settings.bn_momentum == 0.1


def test_paddles_first_anchors_are_its_prior_boxes() -> None:
    section = model_section("recipes/paddle")
    section["backbone"] = model_section("recipes/paper")["backbone"]  # without weights to fetch
    anchors = build_module(section | {"num_classes": 1}).net.anchors
    # first cell of the first map, centre (8, 8): 0.1 * 320 = 32, ratios 2 and 1/2, then sqrt(32 * 64) = 45.25
    sizes = anchors[:4, 2:] - anchors[:4, :2]
    expected = [[32, 32], [45.2548, 22.6274], [22.6274, 45.2548], [45.2548, 45.2548]]
    torch.testing.assert_close(sizes, torch.tensor(expected), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(anchors[0], torch.tensor([-8.0, -8, 24, 24]))


def test_finetuning_freezes_the_first_blocks() -> None:
    with torch.device("meta"):
        module = build_module(model_section("finetune") | {"num_classes": 3}).train()
    parts = parts_of(module.net)
    for name in ("stem", "block1", "block3"):
        assert not any(p.requires_grad for p in parts[name].parameters())
        assert not parts[name].training
    assert parts["block4"].training
    assert all(p.requires_grad for p in parts["block4"].parameters())

"""The ladder from plain SSDLite to SSDLite+, each step under several seeds, by `detect sweep`.

python benchmarks/ladder.py --config configs/plus/bccd.yaml --out ladder-bccd --data.root BCCD
    [--size large] [--batch 4] [--steps 0-plain 1-stride-8] [other flags of detect sweep and detect fit]

Writes OUT/configs/STEP.yaml, the given configuration with the settings of each step in place of its own, and
runs them. The first steps build on each other, what was kept at each; the trials that follow change one thing
of the last of them. OUT/comparison has the table with intervals; so has `detect compare` of two runs.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import yaml

from detect.commands.main import main as detect
from detect.system.files import write_atomically

Settings = dict[str, Any]
"""Values by the path of their key, such as "model.taps"."""

LOSSES, ASSIGNERS = "detect.training.losses", "detect.training.assigners"
SGD_8 = {"lr": 0.05, "momentum": 0.9, "weight_decay": 4.0e-5, "fused": True}
SGD_4 = SGD_8 | {"lr": 0.03}


def crops(min_scale: float) -> Settings:
    """Of an augmentation."""
    return {"class_path": "detect.data.augment.RandomIoUCrop", "init_args": {"min_scale": min_scale}}


def several(name: str) -> Settings:
    """An augmentation that shows several images, before the others, and not in the last epochs."""
    return {"data.first": {"class_path": f"detect.data.augment.{name}"}, "data.weak_epochs": 3}


def loss(name: str, **parts: str) -> Settings:
    """A class of detect.training.losses with an assigner or a loss of boxes of its own."""
    places = {"assigner": ASSIGNERS, "box_loss": LOSSES}
    arguments = {key: {"class_path": f"{places[key]}.{part}"} for key, part in parts.items()}
    return {"model.loss": {"class_path": f"{LOSSES}.{name}", "init_args": arguments}}


def distribution() -> Settings:
    """Distribution focal loss beside smooth L1, on 16 bins per delta."""
    settings = loss("MultiBoxLoss", assigner="ATSSAssigner", box_loss="DistributionFocalLoss")
    base = {"base": {"class_path": f"{LOSSES}.SmoothL1Loss"}}
    settings["model.loss"]["init_args"]["box_loss"]["init_args"] = base
    return {"model.box_bins": 16} | settings


PLAIN: Settings = {
    "model.taps": ["c4", "c5"],
    "model.neck": None,
    "model.anchors": {"style": "torchvision", "scales": "auto"},
    "model.loss": {"class_path": f"{LOSSES}.MultiBoxLoss"},
    "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": SGD_8},
    "model.schedule": {"warmup_steps": 50},
    "data.total_batch_size": 8,
    "data.crops": 0.3,
    "data.weak_epochs": 0,
    "trainer.callbacks": [],
}
"""SSDLite with SSD's crops, anchors fitted to the boxes as in every step."""
LADDER: dict[str, Settings] = {
    "0-plain": {},
    "1-stride-8": {"model.taps": ["c3", "c4", "c5"]},
    "2-batch-4": {
        "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": SGD_4},
        "model.schedule": {"warmup_steps": 100},
        "data.total_batch_size": 4,
    },
    "3-crops-0.8": {"data.crops": 0.8},
    "4-assigner": loss("MultiBoxLoss", assigner="ATSSAssigner"),
}
"""Each step adds its settings to those before it."""
TRIALS: dict[str, Settings] = {
    "neck": {
        "model.taps": ["out3", "out4", "out5"],
        "model.neck": {"class_path": "detect.model.necks.TopDown"},
    },
    "box-loss": loss("MultiBoxLoss", assigner="ATSSAssigner", box_loss="GIoULoss"),
    "class-loss": loss("VarifocalLoss", assigner="ATSSAssigner"),
    "distribution": distribution(),
    "averaging": {"trainer.callbacks": [{"class_path": "detect.training.averaging.AveragedWeights"}]},
    "schedule": {
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.001, "weight_decay": 0.05, "fused": True},
        },
        "model.schedule": {
            "class_path": "detect.training.schedules.FlatCosine",
            "init_args": {"warmup_steps": 100},
        },
    },
    "augmentation": {"data.weak_epochs": 3},
    "mosaic": several("Mosaic"),
    "copy-paste": several("CopyPaste"),
    "mixup": several("MixUp"),
    "multi-scale": {"data.multi_scale": [256, 384], "data.weak_epochs": 3},
}
"""Each changes the last step of the ladder alone."""


def steps() -> dict[str, Settings]:
    """Settings of every step by its name, in the order of the ladder."""
    found, reached = {}, dict(PLAIN)
    for name, settings in LADDER.items():
        reached = reached | settings
        found[name] = reached
    return found | {f"{len(LADDER)}-{name}": reached | settings for name, settings in TRIALS.items()}


def step_config(base: Settings, settings: Settings) -> Settings:
    """A configuration with the settings of a step; its augmentations keep all but their crops."""
    config = copy.deepcopy(base)
    for path, value in settings.items():
        section, key = path.split(".")
        if path == "data.crops":
            kept = [step for step in config["data"]["augmentations"] if not is_crop(step)]
            config["data"]["augmentations"] = [crops(value), *kept]
        elif path == "data.first":
            config["data"]["augmentations"].insert(0, value)
        else:
            config[section][key] = value
    return config


def is_crop(augmentation: Settings) -> bool:
    """Whether an entry of `data.augmentations` is the crop."""
    return str(augmentation["class_path"]).endswith(".RandomIoUCrop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=("small", "large"), default="large")
    parser.add_argument("--steps", nargs="+", choices=list(steps()), default=list(steps()))
    arguments, others = parser.parse_known_args()
    base = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    tail = {"size": arguments.size, "reduced_tail": arguments.size == "large"}
    base["model"]["backbone"]["init_args"] = tail
    configs = []
    for name in arguments.steps:
        configs.append(arguments.out / "configs" / f"{name}.yaml")
        configs[-1].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(configs[-1], yaml.safe_dump(step_config(base, steps()[name]), sort_keys=False))
    raise SystemExit(detect(["sweep", *map(str, configs), "--out", str(arguments.out), *others]))


if __name__ == "__main__":
    main()

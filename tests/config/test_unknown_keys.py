import sys

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.cli import OptimizerCallable

from detect.config.unknown_keys import explain
from detect.data.augment import Augmentation
from detect.model.blocks import ConvSettings
from detect.training.losses import DetectionLoss
from detect.training.schedules import Schedule

CASES = [
    (
        ["--schedul.warmup_steps=3"],
        "there is no setting schedul.warmup_steps; the nearest is schedule.warmup_steps",
    ),
    (
        ["--cfg={schedule: {warm_steps: 3}}"],
        "takes no schedule.init_args.warm_steps; the nearest is schedule.init_args.warmup_steps",
    ),
    (["--cfg={norm: {bn_eps_: 3}}"], "norm.bn_eps_; the nearest is norm.bn_eps"),
    (["--cfg={los: 1}"], "there is no setting los; the nearest is loss"),
    (
        ["--loss=detect.training.losses.FocalLoss", "--loss.init_args.alfa=1"],
        "detect.training.losses.FocalLoss takes no loss.init_args.alfa; the nearest is loss.init_args.alpha",
    ),
    (
        ["--loss=detect.training.losses.FocalLos"],
        "loss: there is no detect.training.losses.FocalLos; the nearest is ",
    ),
    (
        ["--steps=[RandomIoUCrop]"],
        "steps: write the whole path of RandomIoUCrop, detect.data.augment.RandomIoUCrop",
    ),
    (["--steps=[RandomIouCrop]"], "there is no detect.data.augment.RandomIouCrop; the nearest is "),
    (["--schedule.warmup_steps=many"], "schedule.warmup_steps"),
    (["--zzzzzzzzzzzzz=3"], "there is no setting zzzzzzzzzzzzz"),
]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_an_unknown_key_is_named_in_full_with_the_nearest(words: list[str], expected: str) -> None:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--cfg", action="config")
    parser.add_argument("--schedule", type=Schedule)
    parser.set_defaults({"schedule": {"class_path": "detect.training.schedules.WarmupCosine"}})
    parser.add_class_arguments(ConvSettings, "norm")
    parser.add_argument("--loss", type=DetectionLoss)
    parser.add_argument("--steps", type=list[Augmentation] | None)
    with pytest.raises(ArgumentError) as error:
        parser.parse_args(words)
    assert expected in explain(str(error.value), parser)


@pytest.mark.parametrize("form", ["--optimizer=timm.optim.RMSpropTF", "--cfg={optimizer: {class_path: %s}}"])
def test_a_class_of_timm_without_timm__says_what_installs_it(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--cfg", action="config")
    parser.add_argument("--optimizer", type=OptimizerCallable)
    with pytest.raises(ArgumentError) as error:
        parser.parse_args([form.replace("%s", "timm.optim.RMSpropTF")])
    said = explain(str(error.value), parser)
    assert said.startswith("optimizer: timm.optim.RMSpropTF needs timm; `pip install")
    assert "'.[timm]'" in said

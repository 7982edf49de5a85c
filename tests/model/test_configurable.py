from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch

from detect.model.backbones import MobileNetV3
from detect.model.blocks import SqueezeSettings
from detect.model.configurable import Configurable, class_path, plain
from detect.training.losses import FocalLoss, GIoULoss


@dataclass(frozen=True)
class Pair:
    sides: tuple[int, int]


class Thing(Configurable):
    def __init__(self, size: int, *, pair: Pair = Pair((1, 2)), inner: Configurable | None = None) -> None:
        self.size = size


def test_arguments_are_remembered_with_their_defaults() -> None:
    thing = Thing(3, inner=Thing(4))
    assert thing.to_settings() == {
        "class_path": f"{__name__}.Thing",
        "init_args": {
            "size": 3,
            "pair": {"sides": [1, 2]},
            "inner": {
                "class_path": f"{__name__}.Thing",
                "init_args": {"size": 4, "pair": {"sides": [1, 2]}, "inner": None},
            },
        },
    }


def test_the_arguments_of_the_class_itself_and_not_of_its_base() -> None:
    backbone = MobileNetV3("small", width=0.35, settings=SqueezeSettings(bn_eps=1e-5))
    settings = backbone.to_settings()
    assert settings["class_path"] == "detect.model.backbones.MobileNetV3"
    assert settings["init_args"]["size"] == "small"
    assert settings["init_args"]["width"] == 0.35
    assert settings["init_args"]["settings"]["bn_eps"] == 1e-5
    assert deepcopy(backbone).to_settings() == settings


def test_wrong_arguments_are_refused_by_the_constructor() -> None:
    with pytest.raises(TypeError, match="sise"):
        FocalLoss(sise=1)  # type: ignore[call-arg]


def test_a_class_has_the_path_of_the_package_that_shows_it() -> None:
    assert class_path(FocalLoss) == "detect.training.losses.FocalLoss"
    assert class_path(Thing) == f"{__name__}.Thing"
    assert class_path(torch.nn.Conv2d) == "torch.nn.Conv2d"


def test_plain() -> None:
    assert plain({"a": (1, Pair((3, 4)))}) == {"a": [1, {"sides": [3, 4]}]}


def test_settings__of_a_class_without_a_constructor() -> None:
    assert GIoULoss().to_settings() == {
        "class_path": "detect.training.losses.GIoULoss",
        "init_args": {},
    }

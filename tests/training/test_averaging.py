from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detect.commands.fit import fit
from detect.errors import InputError
from detect.model.backbones import MobileNetV3
from detect.model.detector import TorchDetector
from detect.training.averaging import AveragedWeights, ramped_average
from tests.conftest import make_coco
from tests.fit_cases import TINY, EndAt, fit_args, fit_until, read_raw, run_differences, write_config


def average_of(values: list[float], *, decay: float) -> list[float]:
    """The average of one weight after each of `values`, as Lightning's callback would take it."""
    layer = nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(layer, multi_avg_fn=ramped_average(decay))
    found = []
    for value in values:
        nn.init.constant_(layer.weight, value)
        averaged.update_parameters(layer)
        found.append(averaged.module.weight.item())
    return found


def test_three_steps_by_hand() -> None:
    # The first is the weight itself; then decays (1 + 2) / (10 + 2) = 1/4 and (1 + 3) / (10 + 3) = 4/13.
    second = 1 / 4 * 1 + 3 / 4 * 2
    third = 4 / 13 * second + 9 / 13 * 4
    assert average_of([1, 2, 4], decay=0.9998) == pytest.approx([1, second, third], rel=1e-6)


def test_the_decay_grows_no_further_than_it_is_told() -> None:
    assert average_of([0, 1, 1], decay=0.5)[1:] == pytest.approx([3 / 4, 1 - 4 / 13 / 4])  # still the ramp
    assert average_of([0.0] * 50 + [1], decay=0.5)[-1] == pytest.approx(0.5)


def test_weights_that_stand_still_are_their_average_and_constants_are_left_alone() -> None:
    net = TorchDetector(MobileNetV3("small", width=0.35), num_classes=3, image_size=(64, 64)).net
    averaged = AveragedModel(net, multi_avg_fn=ramped_average(0.9998))
    for _ in range(20):
        averaged.update_parameters(net)
    expected = {**dict(net.named_parameters()), **dict(net.named_buffers())}  # anchors, mean and std too
    found = {**dict(averaged.module.named_parameters()), **dict(averaged.module.named_buffers())}
    assert {"anchors", "mean", "std"} <= found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_that_is_no_average__refused(decay: float) -> None:
    with pytest.raises(InputError, match=f"decay {decay}; give 0 or more, below 1"):
        AveragedWeights(decay=decay)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_a_name_is_enough_and_the_average_has_statistics_of_its_own(tmp_path: Path) -> None:
    settings = deepcopy(TINY)
    del settings["trainer"]["callbacks"]
    config, data = write_config(tmp_path, settings), make_coco(tmp_path / "coco", train=16, val=2)
    args = fit_args(config, data, tmp_path / "run", "--trainer.callbacks", "AveragedWeights")
    with pytest.raises(InputError, match=r"statistics_images is 0: AveragedWeights would be validated with"):
        fit([*args, "--model.statistics_images", "0"])
    assert fit([*args, "--trainer.callbacks.decay", "0.9", "--trainer.max_epochs", "1"]) == 0
    raw = read_raw(tmp_path / "run")
    averaged, current = raw["state_dict"], raw["current_model_state"]
    for name in ("weight", "running_mean", "running_var"):
        key = f"detector.net.backbone.stem.1.{name}"
        assert not averaged[key].equal(current[key]), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_lightnings_own_average_resumes_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = deepcopy(TINY)
    (callback,) = settings["trainer"]["callbacks"]
    callback["class_path"] = "lightning.pytorch.callbacks.EMAWeightAveraging"
    config, data = write_config(tmp_path, settings), make_coco(tmp_path / "coco", train=16, val=2)
    assert fit(fit_args(config, data, tmp_path / "straight")) == 0
    args = fit_args(config, data, tmp_path / "run", "--ckpt_path", "last")
    fit_until(EndAt("validation", 4), args, monkeypatch)
    assert fit(args) == 0
    assert run_differences(tmp_path / "straight", tmp_path / "run") == []

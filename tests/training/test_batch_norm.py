from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from detect.commands.fit import fit
from detect.commands.main import main
from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.training import run_module
from detect.training.batch_norm import images_of_epoch, norms_in_training, recompute_statistics
from detect.training.build import build_module
from detect.training.module import DetectionModule
from tests.conftest import make_coco
from tests.fit_cases import EPOCHS, TINY, fit_args, read_raw, write_config

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("data") / "coco", train=17, val=2)


def run(folder: Path, coco: Path, *more: str, averaged: bool = False) -> dict[str, Any]:
    """Fit for two epochs; all that last.ckpt holds."""
    settings = deepcopy(TINY)
    if not averaged:
        del settings["trainer"]["callbacks"]
    folder.mkdir()
    assert fit(fit_args(write_config(folder, settings), coco, folder / "run", *more)) == 0
    return read_raw(folder / "run")


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if ".running_" in key}


def loaded(coco: Path) -> DetectionData:
    return DetectionData(coco, image_size=(64, 64), total_batch_size=4, workers=0)


def test_mean_and_variance_by_hand_whatever_was_there_before() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)).eval()
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean, norm.num_batches_tracked = torch.full((4,), torch.nan), torch.tensor(9)
    batches = [torch.rand(2, 3, 6, 6), torch.rand(3, 3, 6, 6)]
    with torch.no_grad():
        seen = [net[0](batch).transpose(0, 1).flatten(1) for batch in batches]  # (C, B * h * w)
    recompute_statistics([norm], net, batches)
    torch.testing.assert_close(norm.running_mean, (seen[0].mean(1) + seen[1].mean(1)) / 2)
    torch.testing.assert_close(norm.running_var, (seen[0].var(1) + seen[1].var(1)) / 2)
    assert (norm.momentum, norm.num_batches_tracked.item(), norm.training) == (0.1, 9, False)


def test_the_images_are_those_that_the_epoch_is_trained_on(coco: Path) -> None:
    data = loaded(coco)
    data.open()
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(1)
    trained_on = torch.cat([batch.images for batch in loader])
    for shown in (images_of_epoch(loader, epoch=1, count=64), images_of_epoch(loader, epoch=1, count=17)):
        parts = list(shown)
        assert [len(part) for part in parts] == [9, 8]  # of 17 images, never one alone
        assert torch.cat(parts)[:16].equal(trained_on)
    (first,) = images_of_epoch(loader, epoch=0, count=4)
    assert not first.equal(trained_on[:4])
    assert loader.state_dict() == {"epoch": 1, "images": 0}


def test_frozen_parts_keep_their_statistics(coco: Path) -> None:
    freeze = {"freeze": ["stem", "block1-3"]}
    settings = {**deepcopy(TINY["model"]), "num_classes": 3, "parameters": freeze}
    module = build_module(settings).eval()
    data = loaded(coco)
    data.open()
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        train_dataloader=data.train_dataloader(), current_epoch=0, precision_plugin=Precision()
    )
    before = deepcopy(module.state_dict())
    module._recompute_statistics()
    assert not module.training
    assert norms_in_training(module) == []
    changed = {key for key, value in module.state_dict().items() if not value.equal(before[key])}
    frozen = ("stem.", "blocks.0.", "blocks.1.", "blocks.2.")
    expected = {
        key
        for key in statistics(before)
        if not key.startswith(tuple(f"detector.net.backbone.{f}" for f in frozen))
    }
    assert expected == changed != statistics(before).keys()


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
def test_weights_are_not_changed_and_checkpoints_hold_what_was_validated(
    averaged: bool, coco: Path, tmp_path: Path
) -> None:
    found = run(tmp_path / "with", coco, averaged=averaged)
    if not averaged:
        plain = run(tmp_path / "without", coco, "--model.statistics_images", "0")
        state = plain["state_dict"]
        differing = {key for key, value in found["state_dict"].items() if not value.equal(state[key])}
        assert differing == statistics(state).keys()  # every weight is the same bit for bit
        assert found["optimizer_states"][0]["state"].keys() == plain["optimizer_states"][0]["state"].keys()
    module = build_module({**deepcopy(TINY["model"]), "num_classes": 3})
    module.load_state_dict(found["state_dict"])
    data = loaded(coco)
    data.open()
    norms = norms_in_training(module.net)
    images = images_of_epoch(data.train_dataloader(), epoch=EPOCHS - 1, count=64)
    recompute_statistics(norms, module.eval().net, (module.detector.layout(some) for some in images))
    assert len(norms) > 30
    expected = module.state_dict()
    assert [key for key, value in found["state_dict"].items() if not value.equal(expected[key])] == []


@pytest.mark.slow
def test_only_a_validation_of_a_fit_recomputes(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    images = run_module.images_of_epoch

    def noted(*args: Any, epoch: int, count: int) -> Any:
        epochs.append((epoch, count))
        return images(*args, epoch=epoch, count=count)

    monkeypatch.setattr(run_module, "images_of_epoch", noted)
    run(tmp_path / "a", coco, "--trainer.check_val_every_n_epoch", "2", "--model.statistics_images", "5")
    assert epochs == [(1, 5)]
    checkpoint = tmp_path / "a" / "run" / "checkpoints" / "last.ckpt"
    assert main(["validate", "--ckpt_path", str(checkpoint), "--data.root", str(coco)]) == 0
    assert len(epochs) == 1


def test_a_number_that_gives_no_statistics__refused() -> None:
    for number in (-1, 1):
        with pytest.raises(InputError, match=f"statistics_images is {number}; give 0, or 2 or more"):
            build_module({**deepcopy(TINY["model"]), "num_classes": 3, "statistics_images": number})


def test_a_network_without_batch_norm_is_shown_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build_module({**deepcopy(TINY["model"]), "num_classes": 3})
    module._trainer = SimpleNamespace()  # type: ignore[assignment]  # asked for nothing
    monkeypatch.setattr(run_module, "norms_in_training", lambda _: [])
    DetectionModule._recompute_statistics(module)

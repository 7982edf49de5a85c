from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from detect.commands import fit_memory
from detect.commands.fit import fit
from detect.commands.fit_memory import batch_sizes, sentence, settle_memory
from detect.training.memory_estimate import StepMemory, StepShape
from tests.conftest import make_coco
from tests.fit_cases import TINY, fit_args, read_raw, write_config

SHAPE = StepShape(12, (320, 320), boxes=8)
AUTO = ("--data.batch_size", "auto", "--trainer.max_epochs", "1")


@pytest.mark.parametrize(
    ("total", "ranks", "sizes"),
    [(32, 1, [32, 16, 8, 4, 2]), (24, 4, [6, 3, 2]), (2, 1, [2]), (7, 2, [3])],
)
def test_batches_that_divide_a_step(total: int, ranks: int, sizes: list[int]) -> None:
    assert batch_sizes(total, ranks) == sizes


def test_sentences() -> None:
    memory, gpu = StepMemory(0, 4_000_000_000), 8_000_000_000
    said = sentence(SHAPE, memory, gpu, auto=True)
    assert said.startswith("data.batch_size auto: 12 images of 320 x 320 per forward pass take about 5.1 GB")
    assert "of this GPU's 8.0 GB (estimated from shapes, not yet compared with a real GPU)" in said
    assert "may not fit: --data.batch_size auto takes" in sentence(SHAPE, memory, 5_000_000_000, auto=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_auto_takes_the_most_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[int] = []

    def needs(module: object, shape: StepShape) -> StepMemory:
        tried.append(shape.batch_size)
        return StepMemory(0, shape.batch_size * 1_000_000_000)

    monkeypatch.setattr(fit_memory, "gpu_bytes", lambda trainer: 3_000_000_000)
    monkeypatch.setattr(fit_memory, "estimate", needs)
    data, run = make_coco(tmp_path / "data"), tmp_path / "run"
    assert fit(fit_args(write_config(tmp_path, TINY), data, run, *AUTO)) == 0
    assert tried == [4, 2]
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"] == 2
    said = capsys.readouterr().out
    assert "data.batch_size auto: 2 images of 64 x 64 per forward pass take about 2.8 GB" in said
    last = read_raw(run)
    assert last["run"]["config"]["data"]["batch_size"] == 2
    assert last["position"]["steps_per_epoch"] == 1  # of two passes, for 4 images are all


def test_auto_without_a_gpu__says_so() -> None:
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    said = settle_memory("auto", None, trainer, None)  # type: ignore[arg-type]
    assert said is not None
    assert "there is no GPU to fill" in said
    assert settle_memory(8, None, trainer, None) is None  # type: ignore[arg-type]


def test_a_step_that_shapes_cannot_follow_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a value is needed")

    monkeypatch.setattr(fit_memory, "gpu_bytes", lambda trainer: 1)
    monkeypatch.setattr(fit_memory, "largest_that_fits", reads)
    data = SimpleNamespace(total_batch_size=4, batch_size=None)
    trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1)
    said = settle_memory("auto", None, trainer, data)  # type: ignore[arg-type]
    assert said == "memory: a step cannot be estimated from shapes (RuntimeError), so nothing is divided"
    assert data.batch_size is None

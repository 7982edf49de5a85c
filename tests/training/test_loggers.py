"""W&B and MLflow by a line of the configuration, without a network; skipped where they are not installed."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from detect.commands import fit_checks
from detect.commands.fit import fit
from detect.commands.fit_checks import refuse_loggers
from detect.errors import InputError
from tests.conftest import make_coco
from tests.fit_cases import TINY, fit_args, write_config

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
LOGGERS = "lightning.pytorch.loggers"


def run_with(logger: dict[str, Any], folder: Path) -> list[dict[str, str]]:
    """Train one epoch with a logger; returns the rows of metrics.csv, which is always written."""
    trainer = {**TINY["trainer"], "max_epochs": 1, "callbacks": [], "log_every_n_steps": 1, "logger": logger}
    config = write_config(folder, {**TINY, "trainer": trainer})
    assert fit(fit_args(config, make_coco(folder / "coco", train=8, val=3), folder / "run")) == 0
    with (folder / "run" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_wandb__offline__metrics_settings_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="pip install --editable '.[loggers]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for patience in ("WANDB__SERVICE_WAIT", "WANDB_INIT_TIMEOUT"):
        monkeypatch.setenv(patience, "300")  # seconds: its service starts slowly on a busy machine
    settings = {"project": "test", "offline": True, "save_dir": str(tmp_path)}
    rows = run_with({"class_path": f"{LOGGERS}.WandbLogger", "init_args": settings}, tmp_path)
    wandb.finish()
    assert float(rows[0]["val/mAP"]) >= 0
    (log,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = log.read_bytes()
    for words in (b"val/mAP", b"train/loss", b"model.optimizer.init_args.lr"):
        assert words in content
    pictures = list((tmp_path / "wandb").glob("offline-run-*/files/media/images/val/*"))
    assert len(pictures) == 3


@pytest.mark.slow
def test_mlflow__store_in_a_file__metrics_settings_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="pip install --editable '.[loggers]'")
    pytest.importorskip("alembic", reason="pip install --editable '.[loggers]'")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)  # pictures go to ./mlruns
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = {"experiment_name": "test", "tracking_uri": uri}
    rows = run_with({"class_path": f"{LOGGERS}.MLFlowLogger", "init_args": settings}, tmp_path)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("test")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["val/mAP"] == pytest.approx(float(rows[0]["val/mAP"]))
    assert run.data.params["model.optimizer.init_args.lr"] == "0.05"
    assert run.info.status == "FINISHED"
    assert [picture.path for picture in client.list_artifacts(run.info.run_id, "val/000")] == [
        "val/000/00000002.jpg"
    ]


@pytest.mark.parametrize(("name", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")])
def test_missing_logger_package__named_by_its_class(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    harmless, logger = (Namespace(class_path=f"{LOGGERS}.{each}") for each in ("CSVLogger", name))
    for given in (logger, [harmless, logger]):
        with pytest.raises(InputError, match=rf"trainer\.logger needs {package}: `pip install"):
            refuse_loggers(given)
    for given in (None, True, harmless):
        refuse_loggers(given)


def test_mlflow_without_a_store__error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = Namespace(class_path=f"{LOGGERS}.MLFlowLogger", init_args=Namespace(tracking_uri=None))
    with pytest.raises(InputError, match=r"no tracking_uri.*such as sqlite:///mlflow\.db"):
        refuse_loggers(logger)
    logger.init_args.tracking_uri = "sqlite:///mlflow.db"
    refuse_loggers(logger)


def test_fit__package_of_the_logger_is_missing__error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_checks, "LOGGER_PACKAGES", {"CSVLogger": "absent"})
    settings = {"save_dir": str(tmp_path)}
    with pytest.raises(
        InputError, match=r"trainer\.logger needs absent: `pip install --editable '\.\[absent\]'`"
    ):
        run_with({"class_path": f"{LOGGERS}.CSVLogger", "init_args": settings}, tmp_path)

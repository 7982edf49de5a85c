"""docs/configuration.md is what the code says, and the code says something about every value."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import lightning as L
import pytest
import yaml

from detect.commands.fit_cli import FitCLI
from detect.commands.run_cli import TRAINER_DEFAULTS
from detect.data.datamodule import DetectionData
from detect.model.anchors import AnchorConfig
from detect.model.detector import TorchDetector
from scripts.write_configuration import (
    SWAPPED,
    TOP_LEVEL,
    TRAINER,
    configuration_page,
    default_in_words,
    model_values,
    type_in_words,
    values_of,
)
from tests.fit_cases import fit_args, write_config

ROOT = Path(__file__).parents[2]
CONFIGURED = [(TorchDetector, "model."), (DetectionData, "data.")]
LEAST_WORDS = 2


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == configuration_page(), (
        "docs/configuration.md differs; run: python scripts/write_configuration.py docs/configuration.md"
    )


@pytest.mark.parametrize(
    ("cls", "prefix"), [*CONFIGURED, *((one, "") for some in SWAPPED.values() for one in some)]
)
def test_every_value_is_explained(cls: type, prefix: str) -> None:
    values = list(values_of(cls, prefix))
    assert values or "__init__" not in vars(cls)
    for value in values:
        assert len(value.meaning.split()) >= LEAST_WORDS, value.key
        assert "see `" not in value.meaning.lower(), value.key


def test_the_tables_hold_what_detect_fit_takes(coco_root: Path, tmp_path: Path) -> None:
    cli = FitCLI(fit_args(write_config(tmp_path), coco_root, tmp_path / "run"))
    config = cli.config.as_dict()
    assert {key for key in config if key not in ("model", "data", "trainer")} == TOP_LEVEL.keys()
    for key, (_, default, _) in TOP_LEVEL.items():
        if key != "config":
            assert cli.parser.get_default(key) == default, key
    for values, section in ((model_values(), "model"), (values_of(DetectionData, "data."), "data")):
        keys = {value.key.split(".")[1] for value in values}
        linked = {"image_size", "resize_rule", "seed"} if section == "data" else set()
        assert keys - linked == config[section].keys() - linked
    assert TRAINER_DEFAULTS.keys() <= TRAINER.keys() <= inspect.signature(L.Trainer).parameters.keys()


def test_defaults_are_read_by_yaml_as_they_are() -> None:
    for default in (None, True, False, 3, 0.05, -1, [0.1, 1.0], (320, 320), "antialias"):
        read = yaml.safe_load(default_in_words(default))
        assert read == (list(default) if isinstance(default, tuple) else default)
    assert default_in_words(inspect.Parameter.empty) == "required"
    assert default_in_words(AnchorConfig()) == "below"


def test_types_in_words() -> None:
    assert type_in_words(tuple[int, int] | None) == "[integer, integer]"
    assert type_in_words(list[list[float]]) == "list of list of number"
    assert type_in_words(dict[str, float]) == "text: number"
    assert type_in_words(Literal["ram", "disk"] | None) == "`ram`, `disk`"
    assert type_in_words(Path) == "path"

"""Parameters and multiply-adds of the classifiers, as the papers print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.inspection.classifiers import (
    PUBLISHED,
    CountedClassifier,
    _published_row,
    agrees,
    count_published,
)
from detect.inspection.models import list_models
from detect.model.backbones import MobileNetV3
from detect.model.classifier import Classifier

# row: parameters with and without BatchNorm's, multiply-adds without and with h-swish; torchvision's own
# classifiers, at width 0.75 timm's, have the same first figures
EXACT = {
    "V3-Large 1.0": (5_483_032, 5_458_632, 216_589_760, 218_856_656),
    "V3-Small 1.0": (2_542_856, 2_530_744, 56_510_400, 57_709_104),
    "V3-Large 0.75": (3_993_528, 3_974_440, 154_560_624, 156_404_160),
    "V3-Small 0.75": (2_041_872, 2_032_192, 43_399_344, 44_442_816),
    "V2 1.0": (3_504_872, 3_470_760, 300_774_272, 300_774_272),
    "V2 0.35": (1_677_128, 1_663_048, 59_285_808, 59_285_808),
    "V1 1.0": (4_231_976, 4_210_088, 568_740_352, 568_740_352),
}


@pytest.fixture(scope="module")
def published() -> dict[str, CountedClassifier]:
    return {one.published.row: one for one in count_published() if one.published is not None}


def test_every_published_row_is_counted(published: dict[str, CountedClassifier]) -> None:
    assert list(published) == [row.row for row in PUBLISHED]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.row)
def test_counts_are_the_printed_ones(published: dict[str, CountedClassifier], row) -> None:
    one = published[row.row]
    madds = one.counts.madds if row.with_hard_swish else one.plain_madds
    assert agrees(one.counts.params_without_bn, row.params_m)
    assert agrees(madds, row.madds_m)
    if row.row in EXACT:
        counts = one.counts
        found = (counts.params, counts.params_without_bn, one.plain_madds, counts.madds)
        assert found == EXACT[row.row]


def test_agrees_is_within_one_unit_of_the_last_digit() -> None:
    assert agrees(5_458_632, "5.4")  # cut
    assert agrees(218_856_656, "219")  # rounded
    assert not agrees(216_589_760, "219")
    assert not agrees(1_663_048, "1.8")


def test_a_row_is_found_by_what_it_builds() -> None:
    def row(**arguments) -> str | None:
        with torch.device("meta"):
            found = _published_row(Classifier(MobileNetV3(**arguments), 1000))
        return None if found is None else found.row

    assert row(width=0.75, expansions="input") == "V3-Large 0.75"
    assert row(width=0.75) is None
    assert row(expansions="input") == "V3-Large 1.0"
    assert row(reduced_tail=True) is None


def write_configs(folder: Path, model: str) -> Path:
    (folder / "pretrain").mkdir(parents=True)
    (folder / "pretrain" / "small.yaml").write_text(f"task: classification\nmodel: {model}\n")
    (folder / "detector.yaml").write_text(
        "model: {backbone: {class_path: detect.model.backbones.MobileNetV3, init_args: {size: small}}}\n"
    )
    return folder


SMALL = "{backbone: {class_path: detect.model.backbones.MobileNetV3, init_args: {size: small}}"


def test_the_command_lists_detectors_and_classifiers(
    published: dict[str, CountedClassifier],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detect.inspection.models.count_published", lambda: list(published.values()))
    configs = write_configs(tmp_path / "configs", SMALL + ", label_smoothing: 0.1}")
    assert list_models(tmp_path / "models.json", configs=configs) == 0
    detector, small, *others = json.loads((tmp_path / "models.json").read_text())
    assert detector["config"].endswith("detector.yaml")
    assert "task" not in detector
    assert small["config"].endswith("pretrain/small.yaml")
    assert (small["task"], small["input"], small["num_classes"]) == ("classification", [224, 224], None)
    assert small["paper"]["row"] == "V3-Small 1.0"
    assert [one["paper"]["row"] for one in others] == [
        row.row for row in PUBLISHED if row.row != "V3-Small 1.0"
    ]
    printed = capsys.readouterr().out
    assert "5.46 (5.4) ✓" in printed
    assert "218.9 (219) ✓" in printed
    assert "56.5 (56) ✓" in printed
    assert "✗" not in printed[printed.index("Classifiers") :]


def test_a_mistake_names_the_file(tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", SMALL + ", drop_out: 0.1}")
    with pytest.raises(InputError, match=r"small\.yaml: .*drop_out"):
        list_models(configs=configs)

"""`--model.anchors auto`: numbers from the training boxes, once."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from detect.commands.auto_anchors import settle_anchors
from detect.commands.main import main
from detect.data.annotations import Annotations
from detect.inspection.anchor_advice import choose_scales, settled
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.data_check import check
from detect.inspection.models import count_config
from detect.inspection.preview import PreviewOptions, open_preview
from detect.model.anchors import even_scales
from tests.conftest import make_coco
from tests.data_sets import open_boxes
from tests.fit_cases import TINY, EndAt, fit_args, fit_until, read_raw, run_differences, write_config

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:lightning")]

AUTO = ("--model.anchors", "auto")
BACKBONE = TINY["model"]["backbone"]


@pytest.fixture(scope="module")
def straight(case: tuple[Path, Path]) -> Path:
    """A run from start to end; what it said is in said.txt beside it."""
    run, said = case[0].parent / "straight", io.StringIO()
    with redirect_stdout(said):
        assert main(["fit", *fit_args(*case, run, *AUTO)]) == 0
    (run.parent / "said.txt").write_text(said.getvalue())
    return run


def scales_of(run: Path) -> Any:
    """The scales in RUN/config.yaml."""
    return yaml.safe_load((run / "config.yaml").read_text())["model"]["anchors"]["scales"]


def squares(root: Path, side: float) -> Annotations:
    """Boxes of one size all over an image of 640 x 640."""
    corners = np.random.default_rng(0).random((60, 2)) * (640 - side)
    return open_boxes(root, [[*corner, side, side] for corner in corners.tolist()], (640, 640))


def section(**anchors: Any) -> dict[str, Any]:
    """A `model:` section as the parser leaves it."""
    defaults = {"style": "torchvision", "scales": "auto", "aspect_ratios": None, "steps": None}
    return {"backbone": BACKBONE, "num_classes": 2, "anchors": defaults | anchors, "init_from": None}


def test_a_run_holds_plain_numbers(case: tuple[Path, Path], straight: Path) -> None:
    scales = scales_of(straight)
    assert len(scales) == 7
    assert all(isinstance(scale, float) for scale in scales)
    assert scales != even_scales((16, 32, 64, 128, 256, 512))
    raw = read_raw(straight)
    assert raw["detect"]["anchors"]["scales"] == raw["detect"]["model"]["anchors"]["scales"] == scales
    assert raw["run"]["config"]["model"]["anchors"]["scales"] == scales
    manifest = json.loads((straight / "manifest.json").read_text())
    assert manifest["config"]["model"]["anchors"]["scales"] == scales


def test_a_killed_run_resumes_bit_for_bit(
    case: tuple[Path, Path],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    minutes = ["--checkpoint_minutes", "0"]
    args = fit_args(*case, run, "--model.anchors.scales", "auto", *minutes)
    fit_until(EndAt("batch_start", 3), args, monkeypatch)
    assert main(["fit", *fit_args(*case, run, *AUTO, *minutes, "--ckpt_path", "last")]) == 0
    said = capsys.readouterr().out
    assert f"model.anchors auto: style paper, scales {scales_of(straight)}, as in {run}" in said
    assert run_differences(straight, run) == []


def test_the_start_says_the_recall_before_and_after(straight: Path) -> None:
    said = (straight.parent / "said.txt").read_text().splitlines()
    (line,) = [line for line in said if "anchors auto" in line]
    assert line.startswith(f"model.anchors auto: scales {scales_of(straight)} from the training boxes; ")
    assert "; anchor recall at IoU 0.5, mean of the classes: " in line
    assert line.endswith(" with these")


def test_other_data_or_other_scales_on_resume_are_refused(
    case: tuple[Path, Path], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_coco(tmp_path / "other", train=16, val=5, seed=1)
    assert main(["fit", *fit_args(case[0], other, straight, *AUTO, "--ckpt_path", "last")]) == 2
    said = capsys.readouterr().err
    assert "train.sha256" in said
    assert "scales" not in said
    given = ["--model.anchors.scales", "[0.1,0.2,0.3,0.4,0.5,0.6,0.7]", "--ckpt_path", "last"]
    assert main(["fit", *fit_args(*case, straight, *given)]) == 2
    assert "model.anchors.scales" in capsys.readouterr().err
    given = [*AUTO, "--model.anchors.style", "torchvision", "--ckpt_path", "last"]
    assert main(["fit", *fit_args(*case, straight, *given)]) == 2
    assert "model.anchors.style" in capsys.readouterr().err


def test_a_start_keeps_what_it_has_learnt(
    case: tuple[Path, Path], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--model.init_from", str(straight / "checkpoints" / "best.ckpt"), "--trainer.max_epochs", "1"]
    other = make_coco(tmp_path / "other", train=16, val=5, seed=3)
    same = tmp_path / "same"
    # Its heads fit no other style, whatever the configuration says.
    words = fit_args(case[0], other, same, *start, *AUTO, "--model.anchors.style", "torchvision")
    assert main(["fit", *words]) == 0
    config = yaml.safe_load((same / "config.yaml").read_text())
    assert config["model"]["anchors"] == {
        "style": "paper",
        "scales": scales_of(straight),
        "aspect_ratios": None,
        "steps": None,
    }
    assert f"scales {scales_of(straight)}, which {start[1]} has learnt" in capsys.readouterr().out


def test_a_start_with_other_maps_has_learnt_nothing_of_these(straight: Path, tmp_path: Path) -> None:
    model = section() | {"init_from": str(straight / "checkpoints" / "best.ckpt")}
    kept = settle_anchors(model, squares(tmp_path / "a", 60), resume=None)
    assert kept is not None
    assert kept.values["scales"] == scales_of(straight)
    fresh = settle_anchors(model | {"taps": ["c3", "c4", "c5"]}, squares(tmp_path / "b", 60), resume=None)
    assert fresh is not None
    assert len(fresh.values["scales"]) == 8
    assert "best.ckpt has other maps, so its anchors do not fit; " in fresh.sentence


def test_scales_of_a_finer_map_follow_the_boxes(tmp_path: Path) -> None:
    found = squares(tmp_path, 24)
    for taps in (["c4", "c5"], ["c3", "c4", "c5"]):
        model = section() | {"taps": taps}
        chosen = settle_anchors(model, found, resume=None)
        assert chosen is not None
        layout = AnchorLayout.of_settings(model)
        assert layout.config.scales == "auto"
        assert chosen.values["scales"] == list(settled(layout, found).config.scales or ())
        recall = choose_scales(found, layout)
        assert recall.usual < recall.share
        assert f"{recall.usual:.1%} with the usual scales, {recall.share:.1%} with these" in chosen.sentence


def test_the_usual_scales_are_written_too(tmp_path: Path) -> None:
    chosen = settle_anchors(section(), squares(tmp_path, 200), resume=None)
    assert chosen is not None
    usual = even_scales((16, 32, 64, 128, 256, 512))
    assert chosen.values == {"scales": usual}
    assert f"the usual scales {usual} stay; anchor recall" in chosen.sentence
    nothing = replace(squares(tmp_path / "none", 200), ignore=np.ones(60, dtype=np.bool_))
    assert settle_anchors(section(), nothing, resume=None) is not None


def test_points_have_no_scales(tmp_path: Path) -> None:
    chosen = settle_anchors(section(style="points"), squares(tmp_path, 60), resume=None)
    assert chosen == (
        {"scales": None},
        "model.anchors auto: anchors of style points have no scales, so nothing is fitted",
    )


def test_without_auto_nothing_happens(tmp_path: Path) -> None:
    assert settle_anchors(section(scales=None), squares(tmp_path, 60), resume=None) is None


def test_a_resumed_run_keeps_what_it_has(tmp_path: Path) -> None:
    nothing = squares(tmp_path, 60)
    saved = section(scales=None)["anchors"]
    resume: Any = SimpleNamespace(config={"model": {"anchors": saved}}, path=Path("last.ckpt"))
    chosen = settle_anchors(section(), nothing, resume=resume)
    assert chosen is not None
    assert chosen.values == {"scales": None}
    assert chosen.sentence == "model.anchors auto: style torchvision, the usual scales, as in last.ckpt"
    # One that was started from a detector has all of its anchors.
    chosen = settle_anchors(section(style="paper") | {"init_from": "gone.ckpt"}, nothing, resume=resume)
    assert chosen is not None
    assert chosen.values == saved


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model.anchors", "automatic"],
            "--model.anchors takes a section of a configuration, not 'automatic'; write --model.anchors auto",
        ),
        (["--model.anchors=aut"], "not 'aut'; write --model.anchors auto"),
        (["--model.anchors.scales", "automatic"], "model.anchors.scales is automatic: give auto, null or"),
        (["--anchors", "auto"], "there is no setting anchors; write --model.anchors auto"),
        (["--model.anchors.ratios", "auto"], "there is no setting model.anchors.ratios"),
    ],
)
def test_wrong_words_are_refused_by_name(
    words: list[str],
    message: str,
    case: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", *fit_args(*case, tmp_path / "run", *words)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_may_say_it_in_both_forms(
    case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_config(tmp_path, TINY | {"model": TINY["model"] | {"anchors": "auto"}})
    assert check(case[1], config=short).fits["train"].layout.config.scales is not None
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {anchors: automatic}")
    assert main(["fit", "--config", str(overlay), "--data.root", str(case[1])]) == 2
    assert f"{overlay}: --model.anchors takes a section" in capsys.readouterr().err


def test_without_data_it_says_what_to_give(
    case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path, TINY | {"model": TINY["model"] | {"anchors": "auto"}}))
    for words in (
        ["benchmark", "--model", config, "--runtime", "eager", "--rounds", "3"],
        ["export", "--config", config, "--format", "onnx", "--out", str(tmp_path / "a.onnx")],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "model.anchors.scales is auto, which only `detect fit` turns into numbers" in said
        assert "RUN/config.yaml" in said
    # What does not depend on scales needs none.
    assert count_config(Path(config), TINY["model"] | {"anchors": {"scales": "auto"}}).counts.params


def test_check_and_preview_show_what_it_becomes(case: tuple[Path, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path, TINY | {"model": TINY["model"] | {"anchors": {"scales": "auto"}}})
    report = check(case[1], config=config)
    preview = open_preview(case[1], PreviewOptions(config=config, images=1, epochs=1, samples=4))
    assert report.fits["train"].layout == preview.layout
    assert preview.layout.config.scales == choose_scales(report.splits["train"], preview.layout).numbers
    assert report.fits["train"].auto is None  # it is in use

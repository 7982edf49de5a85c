import csv
import errno
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from detect.commands.fit import fit, next_commands, quiet_lightning
from detect.commands.fit_cli import FitCLI
from detect.commands.main import main
from detect.data.augment.plan import Plan
from detect.data.dataset import DetectionDataset, SampleKey
from detect.errors import InputError, RunStopped
from detect.model.checkpoint import build_from_checkpoint, read_checkpoint
from detect.report.run_page import write_report
from detect.training.losses import LossTerms
from detect.training.module import DetectionModule
from detect.types import Target
from tests.conftest import make_coco
from tests.file_server import FileServer
from tests.fit_cases import (
    EPOCHS,
    SIGNALS,
    STEPS_PER_EPOCH,
    EndAt,
    fit_args,
    fit_until,
    read_raw,
    run_differences,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.usefixtures("no_report"),
]


@pytest.fixture(scope="module")
def straight(case: tuple[Path, Path]) -> Path:
    """A run from start to end."""
    run = case[0].parent / "straight"
    assert fit(fit_args(*case, run)) == 0
    return run


def test_a_run_leaves_its_folder(straight: Path) -> None:
    assert (straight / "report.html").is_file()
    rows = list(csv.DictReader((straight / "metrics.csv").open()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]
    assert {"train/loss", "train/loss_cls", "train/loss_box", "val/loss", "val/mAP", "lr"} <= rows[0].keys()
    metrics = json.loads((straight / "metrics.json").read_text())
    assert metrics["images"] == 5
    assert set(metrics["per_class"]) == {"square", "disc", "bar"}
    config = yaml.safe_load((straight / "config.yaml").read_text())
    assert config["model"]["num_classes"] == 3
    assert config["trainer"]["max_epochs"] == EPOCHS
    manifest = json.loads((straight / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["data"]["train"]["images"] == 16
    assert set(manifest["findings"]) <= {"train", "val", "both"}
    assert any(line.startswith("note: class-rare x 1: kept") for line in manifest["findings"]["train"])


def test_last_is_at_the_end_and_holds_averaged_and_raw_weights(straight: Path) -> None:
    raw = read_raw(straight)
    assert raw["position"] == {"epoch": EPOCHS, "steps": 0, "steps_per_epoch": STEPS_PER_EPOCH}
    assert raw["global_step"] == EPOCHS * STEPS_PER_EPOCH
    key = "detector.net.backbone.stem.0.weight"
    assert not raw["state_dict"][key].equal(raw["current_model_state"][key])
    assert not list((straight / "checkpoints").glob(".*"))


KILLS = [
    ("batch_start", 3, "0"),  # within an epoch, after a checkpoint of the step before
    ("validation", 4, "10"),
    pytest.param("batch_start", 2, "10", marks=pytest.mark.slow),  # before the first checkpoint
    pytest.param("batch_start", 4, "0", marks=pytest.mark.slow),  # between two epochs
    pytest.param(
        "batch_end", 4, "0", marks=pytest.mark.slow
    ),  # before the checkpoint of an epoch's last step
    pytest.param("epoch_end", 4, "10", marks=pytest.mark.slow),
    pytest.param("batch_start", 7, "0", marks=pytest.mark.slow),
    pytest.param("validation", 8, "0", marks=pytest.mark.slow),
    pytest.param("epoch_end", 8, "10", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("hook", "step", "minutes"), KILLS)
def test_a_killed_run_that_goes_on_ends_as_if_never_stopped(
    hook: str,
    step: int,
    minutes: str,
    case: tuple[Path, Path],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = fit_args(*case, tmp_path / "run", "--checkpoint_minutes", minutes, "--ckpt_path", "last")
    fit_until(EndAt(hook, step), args, monkeypatch)
    assert fit(args) == 0
    assert run_differences(straight, tmp_path / "run") == []


@pytest.mark.slow
def test_a_killed_run_of_several_images_and_sizes_ends_as_if_never_stopped(
    case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch shows mosaics at sizes of the input that change, the second one weak augmentations.

    The run is killed in both.
    """
    mosaic = "[{class_path: detect.data.augment.Mosaic, init_args: {probability: 1.0}}]"
    more = ["--data.augmentations", mosaic, "--data.weak_epochs", "1", "--data.multi_scale", "[32, 128]"]
    more += ["--checkpoint_minutes", "0"]
    images, sizes = set(), []
    own_plan, own_terms = DetectionDataset.plan, DetectionModule.loss_terms

    def plan(self: DetectionDataset, key: SampleKey) -> Plan:
        made = own_plan(self, key)
        if self.augmentations is not None:
            images.add((key.epoch, len(made)))
        return made

    def loss_terms(self: DetectionModule, images: torch.Tensor, target: Target) -> LossTerms:
        sizes.append(tuple(images.shape[-2:]))
        return own_terms(self, images, target)

    monkeypatch.setattr(DetectionDataset, "plan", plan)
    monkeypatch.setattr(DetectionModule, "loss_terms", loss_terms)
    args = fit_args(*case, tmp_path / "run", *more)
    last = [*args, "--ckpt_path", "last"]
    fit_until(EndAt("batch_start", STEPS_PER_EPOCH - 1), args, monkeypatch)
    fit_until(EndAt("batch_start", STEPS_PER_EPOCH + 2), last, monkeypatch)
    assert fit(last) == 0
    of_three_parts = list(sizes)
    sizes.clear()
    assert fit(fit_args(*case, tmp_path / "straight", *more)) == 0
    assert run_differences(tmp_path / "straight", tmp_path / "run") == []
    assert of_three_parts == sizes
    assert len(set(sizes[:STEPS_PER_EPOCH])) > 1
    assert sizes[STEPS_PER_EPOCH:] == [(64, 64)] * STEPS_PER_EPOCH
    assert images == {(0, 4), (1, 1)}


@pytest.mark.parametrize(
    ("signum", "hook"),
    [(signum, "batch_start") for signum in SIGNALS]
    + [pytest.param(signum, "validation", marks=pytest.mark.slow) for signum in SIGNALS],
)
def test_a_signal_saves_and_ends(
    signum: int,
    hook: str,
    case: tuple[Path, Path],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunStopped, match=f"--out {run} --ckpt_path last") as stopped:
        fit_until(EndAt(hook, 4, signum=signum), fit_args(*case, run), monkeypatch)
    assert stopped.value.exit_code == SIGNALS[signum]  # type: ignore[index]
    expected = {"batch_start": (1, 1), "validation": (0, STEPS_PER_EPOCH)}[hook]
    position = read_raw(run)["position"]
    assert (position["epoch"], position["steps"]) == expected
    assert fit(["--out", str(run), "--ckpt_path", "last"]) == 0  # settings come from the checkpoint
    assert run_differences(straight, run) == []


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(
    case: tuple[Path, Path],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    args = fit_args(*case, run, "--checkpoint_minutes", "0")
    written = []
    fsync = os.fsync

    def full_later(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".last.ckpt." in name:
            written.append(name)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device", name)
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_later)
        assert main(["fit", *args]) == 3
    assert "No space left on device" in capsys.readouterr().err
    assert read_raw(run)["position"]["steps"] == 2
    assert not list((run / "checkpoints").glob(".*"))
    assert fit([*args, "--ckpt_path", "last"]) == 0
    assert run_differences(straight, run) == []


def test_a_step_that_is_not_finite_stops_the_run_and_can_be_replayed(
    case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    too_much = ("--model.optimizer.init_args.lr", "1e18", "--model.schedule.warmup_steps", "0")
    assert main(["fit", *fit_args(*case, run, *too_much)]) == 3
    message = capsys.readouterr().err
    report = json.loads((run / "nan" / "report.json").read_text())
    assert report["step"] > 0
    assert report["images"]
    for image in report["images"][:3]:
        assert image["file"] in message
        assert f"id {image['image_id']}" in message
    assert f"step {report['step']} " in message
    assert "seed 0" in message
    assert not (run / "checkpoints" / "last.ckpt").exists()
    assert main(["replay", str(run / "nan")]) == 1
    assert "the first layer that is not finite" in capsys.readouterr().out
    (run / "nan" / "batches.pt").write_text("cut off")
    assert main(["replay", str(run / "nan")]) == 2
    assert "report.json or batches.pt is broken" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_of_before_with_plain_schedule_and_fewer_settings_resumes(
    case: tuple[Path, Path], straight: Path, tmp_path: Path
) -> None:
    raw = read_raw(straight)
    model = raw["run"]["config"]["model"]
    model["schedule"] = model["schedule"]["init_args"]
    del model["taps"]
    torch.save(raw, tmp_path / "before.ckpt")
    more = ("--ckpt_path", str(tmp_path / "before.ckpt"), "--trainer.max_epochs", "3")
    assert fit(fit_args(*case, tmp_path / "run", *more)) == 0
    with pytest.raises(InputError, match=r"model.schedule.init_args.warmup_steps *│ 2 *│ 1"):
        fit(fit_args(*case, tmp_path / "other", *more, "--model.schedule.warmup_steps", "1"))


def test_a_finished_run_goes_on_to_more_epochs(
    case: tuple[Path, Path], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--ckpt_path", str(straight / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "3")
    assert fit(fit_args(*case, tmp_path / "run", *more)) == 0
    said = capsys.readouterr().out
    assert "trainer.max_epochs is 3, it was 2: the schedule now spans 3 epochs" in said
    assert "anchors: " not in said  # what was trained with them stays
    assert "resumes at 0.25 of its base and not at 0" in said  # (1 + cos(2/3 pi)) / 2
    position = read_raw(tmp_path / "run")["position"]
    assert (position["epoch"], position["steps"]) == (3, 0)


@pytest.mark.slow
def test_max_steps_end_a_run_within_an_epoch_after_a_validation(
    case: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ("--trainer.max_steps", "6", "--checkpoint_minutes", "0")
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert fit(fit_args(*case, straight, *ends)) == 0
    assert "anchor recall at IoU 0.5" in capsys.readouterr().out
    rows = list(csv.DictReader((straight / "metrics.csv").open()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "6")]
    assert rows[-1]["val/mAP"]
    assert float(rows[-1]["lr"]) == pytest.approx(0.0, abs=1e-9)  # the cosine ends there too
    args = fit_args(*case, run, *ends, "--ckpt_path", "last")
    fit_until(EndAt("validation", 6), args, monkeypatch)
    assert fit(args) == 0
    assert run_differences(straight, run) == []


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(
    case: tuple[Path, Path], straight: Path, tmp_path: Path
) -> None:
    assert fit(fit_args(*case, tmp_path / "run")) == 0
    assert run_differences(straight, tmp_path / "run") == []


WRONG = [
    (
        ["--model.schedul.warmup_steps", "3"],
        "model.schedul.warmup_steps; the nearest is model.schedule.warmup",
    ),
    (["--trainer.max_epoch", "3"], "trainer.max_epoch; the nearest is trainer.max_epochs"),
    (["--model.backbone.init_args.sise", "small"], "the nearest is model.backbone.init_args.size"),
    (["--model.loss", "detect.training.losses.FocalLos"], "the nearest is detect.training.losses.FocalLoss"),
    (["--trainer.accelerator", "gpu"], "gpu"),
    (["--trainer.max_steps", "0"], "trainer.max_steps is 0"),
    (["--model.parameters.freeze", "[stem]"], "freeze keeps stem as they are, and they are random"),
    (["--trainer.max_time", "00:01:00:00"], "trainer.max_time is .* SIGTERM"),
    (["--trainer.enable_checkpointing", "false"], "trainer.enable_checkpointing is False"),
    (["--trainer.max_epochs", "0"], "trainer.max_epochs is 0"),
    (
        ["--model.num_classes", "5"],
        r"model.num_classes is 5, but the data has 3 classes \(square, disc, bar\)",
    ),
    (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such file"),
    (["--data.total_batch_size", "17"], "16 training images do not fill one batch of total_batch_size 17"),
    (["--data.prefetch", "0"], "data.prefetch is 0; give 1 or more"),
    (["--data.workers", "-1"], "data.workers is -1; give 0 or more"),
    (["--data.cache", "disk", "--data.cache_gb", "0"], "data.cache_gb is 0"),
    (["--model.image_size", "[16, 64]"], r"image_size is \[16, 64\].* at least 32"),
    (["--model.schedule.warmup_steps", "-1"], "schedule.warmup_steps is -1"),
    (["--model.postprocess.nms_threshold", "0"], "postprocess.nms_threshold is 0"),
    (
        ["--model.loss", "FocalLoss", "--model.loss.init_args.gamma", "-1"],
        r"^loss.gamma is -1.0; give 0 or more$",
    ),
    (
        [
            "--data.augmentations",
            '[{"class_path": "detect.data.augment.RandomZoomOut", "init_args": {"probability": 3}}]',
        ],
        r"^probability of RandomZoomOut is 3.0; give a share from 0 to 1$",
    ),
    (["--trainer.devices", "some"], "trainer settings: .*devices"),
    (["--seed_everything", "-1"], "seed_everything is -1"),
    (
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/map"],
        "EarlyStopping has the monitor 'val/map', which is not logged; there are val/mAP",
    ),
    (
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/mAP"],
        "monitor 'val/mAP' and the mode 'min', for which worse is better: give mode max",
    ),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_word_stops_before_any_work(
    words: list[str], message: str, case: tuple[Path, Path], tmp_path: Path
) -> None:
    if "gpu" in words and __import__("torch").cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        fit(fit_args(*case, run, *words))
    assert not run.exists()


def test_null_in_a_file_where_a_value_is_needed__one_message(case: tuple[Path, Path], tmp_path: Path) -> None:
    nulls = tmp_path / "nulls.yaml"
    nulls.write_text("model: {channels_last: null}")
    with pytest.raises(InputError, match=r'"model.channels_last":\s+Expected a'):
        fit(fit_args(*case, tmp_path / "run", "--config", str(nulls)))


@pytest.mark.parametrize("words", [["--model.init_from", "no.ckpt"], ["--trainer.devices", "some"]])
def test_a_start_that_fails_leaves_no_folder_of_its_own(
    words: list[str], case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--config", str(case[0]), "--data.root", str(case[1]), *words]
    with pytest.raises(InputError):
        fit(args)
    assert list(tmp_path.rglob("*-001*")) == []
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(InputError):
        fit([*args, "--out", str(mine)])
    assert mine.is_dir()  # it was there before


def test_a_wrong_word_exits_2_without_a_traceback(
    case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *fit_args(*case, tmp_path / "run", "--data.rot", "x")]) == 2
    error = capsys.readouterr().err
    assert "data.rot; the nearest is data.root" in error
    assert "Traceback" not in error


def test_a_learning_rate_that_torch_refuses_is_one_message(case: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.optimizer: Invalid learning rate: -1"):
        fit(fit_args(*case, tmp_path / "run", "--model.optimizer.init_args.lr", "-1"))


@pytest.mark.slow
def test_early_stopping_and_the_k_best_work_beside_ours(case: tuple[Path, Path], tmp_path: Path) -> None:
    words = []
    for name, more in (("EarlyStopping", ["patience", "0"]), ("ModelCheckpoint", ["save_top_k", "2"])):
        words += [f"--trainer.callbacks+={name}", "--trainer.callbacks.monitor", "val/mAP"]
        words += ["--trainer.callbacks.mode", "max", f"--trainer.callbacks.{more[0]}", more[1]]
    # At a learning rate of nearly nothing, with statistics of the same images each time, mAP does not rise.
    words += ["--model.optimizer.init_args.lr", "1e-12", "--trainer.max_epochs", "9"]
    words += ["--data.augmentations", "[]"]
    run = tmp_path / "run"
    assert fit(fit_args(*case, run, *words)) == 0
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert len(rows) == 2
    kept = list((run / "tensorboard").rglob("*.ckpt"))
    assert len(kept) == 2
    assert build_from_checkpoint(read_checkpoint(kept[0])).classes is not None


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fit(["--help"])
    assert ended.value.code == 0
    assert "detect fit --config configs/bccd.yaml --data.root" in capsys.readouterr().out


def test_an_existing_run_is_not_overwritten(case: tuple[Path, Path], straight: Path) -> None:
    with pytest.raises(InputError, match=f"{straight} exists and is not empty"):
        fit(fit_args(*case, straight))


def test_another_checkpoint_does_not_take_over_a_run(case: tuple[Path, Path], straight: Path) -> None:
    best = straight / "checkpoints" / "elsewhere.ckpt"
    best.write_bytes((straight / "checkpoints" / "best.ckpt").read_bytes())
    with pytest.raises(InputError, match="holds a run of its own"):
        fit(fit_args(*case, straight, "--ckpt_path", str(best)))


def test_settings_that_decide_the_result_may_not_change(case: tuple[Path, Path], straight: Path) -> None:
    words = ("--ckpt_path", "last", "--model.optimizer.init_args.lr", "0.1", "--data.workers", "1")
    with pytest.raises(InputError, match=r"model.optimizer.init_args.lr .* 0.05 .* 0.1") as refused:
        fit(fit_args(*case, straight, *words))
    assert "data.workers" not in str(refused.value)


def test_other_data_is_refused(case: tuple[Path, Path], straight: Path, tmp_path: Path) -> None:
    other = make_coco(tmp_path / "other", train=16, val=5, seed=1)
    with pytest.raises(InputError, match=r"train.sha256"):
        fit(fit_args(case[0], other, straight, "--ckpt_path", "last"))


def test_lightnings_warnings_that_do_not_hold_are_not_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_lightning()
        warnings.warn("It is recommended to use `self.log('a', ..., sync_dist=True)` when", stacklevel=1)
        warnings.warn("The number of training batches (4) is smaller than the logging interval", stacklevel=1)
        assert shown == []
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in shown] == ["something else"]


def test_what_the_command_line_parser_will_drop_is_not_used(
    case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")
    config, data = case
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"(?s).*removed in\s+v5")
        assert FitCLI(fit_args(config, data, tmp_path / "run")).trainer.max_epochs == EPOCHS


def test_a_run_says_how_long_it_takes_and_what_comes_next(
    case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run = [*fit_args(*case, tmp_path / "a"), "--trainer.max_epochs", "3"]
    assert fit([*make_run, "--trainer.check_val_every_n_epoch", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^about \d+ seconds: 3 epochs of 4 steps, [\d.e-]+ s per step, and 2 validations$", out, re.M
    )
    run = tmp_path / "a"
    # The last epoch is validated, though it is the third.
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [bool(row["val/mAP"]) for row in rows] == [False, True, True]
    # Twelve steps from random weights teach nothing, and that is said.
    assert "Likely reasons:\n  - 12 steps are few, about 3,000 are needed" in out
    commands = out[out.index("next:\n") :].splitlines()[1:]
    assert [command.split()[:2] for command in commands] == [["detect", "predict"], ["detect", "export"]]
    assert next_commands(tmp_path / "b", images=Path("my photos"))[0].endswith(
        "--source 'my photos' --out b-found"
    )
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "manifest.json").touch()  # it has no score to compare
    assert next_commands(tmp_path / "b", images=Path())[2].startswith(
        f"  detect compare {run} {tmp_path / 'b'} "
    )


def test_a_resumed_run_says_what_is_left(
    case: tuple[Path, Path], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(straight, tmp_path / "run")
    assert fit([*fit_args(*case, run), "--ckpt_path", "last", "--trainer.max_epochs", "5"]) == 0
    assert re.search(r"^about .*: 3 epochs of 4 steps, .*, and 3 validations$", capsys.readouterr().out, re.M)


def test_a_refused_start_leaves_no_run_folder(
    case: tuple[Path, Path], straight: Path, tmp_path: Path
) -> None:
    start = ["--model.init_from", str(straight / "checkpoints" / "best.ckpt")]
    with pytest.raises(InputError, match=r"best\.ckpt: its backbone is another, width 0\.35 \(here 0\.5\)"):
        fit([*fit_args(*case, tmp_path / "run"), *start, "--model.backbone.init_args.width", "0.5"])
    with pytest.raises(InputError, match=r"nowhere\.ckpt: no such checkpoint"):
        fit([*fit_args(*case, tmp_path / "run"), "--model.init_from", "nowhere.ckpt"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_init_from_coco__its_origin_is_in_checkpoint_manifest_and_report(
    coco_server: FileServer, case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["--model.backbone.init_args", "{size: large, reduced_tail: true, width: 1.0}"]
    short = [
        "--model.anchors.scales",
        "auto",
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_train_batches",
        "1",
    ]
    run = tmp_path / "run"
    assert fit([*fit_args(*case, run), "--model.init_from", "coco", *large, *short]) == 0
    said = capsys.readouterr().out
    assert "classes: square, disc, bar" in said
    assert "licence BSD-3-Clause (torchvision), trained on COCO" in said
    assert "style torchvision" in said  # the anchors that the start has learnt
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_from"] == "coco"
    origin = read_checkpoint(run / "checkpoints" / "best.ckpt").description["weights_origin"]
    assert origin["licence"] == "BSD-3-Clause (torchvision), trained on COCO"
    assert json.loads((run / "manifest.json").read_text())["weights_origin"] == origin
    write_report(run)
    assert "Started from weights ssdlite320" in (run / "report.html").read_text()

"""What the command line says before torch is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from detect.commands.fit_checks import REFUSED
from detect.commands.main import EXIT_INPUT, all_commands, main
from detect.commands.options import (
    OTHER_SPELLINGS,
    TABLE,
    Options,
    check_words,
    help_text,
    in_todays_words,
    training_command,
)
from detect.commands.slips import SHORT_HELP, SLIPS
from detect.errors import InputError
from scripts.write_options import table, text_of
from tests.documents import PAGES, ROOT

COMMANDS = list(all_commands())
HEAVY = ("jsonargparse", "lightning", "numpy", "torch")
SHORT_HELP_LINES = 45
TESTED_LIGHTNING = re.search(
    r"^lightning==(\S+)", (ROOT / "requirements" / "constraints.txt").read_text(), re.MULTILINE
)


def test_the_table_is_what_the_parsers_take() -> None:
    now, written = table(), json.loads(TABLE.read_text())
    if TESTED_LIGHTNING is None or version("lightning") != TESTED_LIGHTNING[1]:
        # Another version of Lightning has other settings of its trainer.
        for content in (now, written):
            rows = content["commands"]["fit"]["options"]
            rows[:] = [row for row in rows if not row["flags"][0].startswith("--trainer.")]
    assert text_of(written) == text_of(now), "run: python scripts/write_options.py"


def run_apart(lines: list[list[str]]) -> tuple[str, list[str]]:
    """What these command lines say, and what of HEAVY they import, in a process of its own."""
    code = (
        "import sys; from detect.commands.main import main\n"
        f"for words in {lines!r}: print('exit', main(words))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *said, heavy = done.stdout.splitlines()
    return "\n".join(said), json.loads(heavy.replace("'", '"'))


def test_help_of_every_command__imports_nothing_that_takes_time() -> None:
    said, heavy = run_apart([[*name.split(), "--help"] for name in COMMANDS])
    assert heavy == []
    assert said.count("exit 0") == len(COMMANDS)
    for name in COMMANDS:
        assert f"usage: detect {name}" in said


def test_a_wrong_word_of_every_command__imports_nothing_that_takes_time() -> None:
    said, heavy = run_apart([[*name.split(), "--tpyo", "1"] for name in COMMANDS])
    assert heavy == []
    assert said.count("exit 2") == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help__says_what_how_and_every_option(name: str) -> None:
    command = all_commands()[name]
    text = help_text(name, (command.__doc__ or "").strip(), everything=True)
    assert command.__doc__ is not None
    assert command.__doc__.strip() in text
    assert f"detect {name.split()[0]}" in Options(name).example
    for option in Options(name).options:
        assert option.hidden or option.key in text


@pytest.mark.parametrize("name", SHORT_HELP)
def test_help_of_training__short_and_true(name: str) -> None:
    short = help_text(name, "Train.", everything=False)
    assert len(short.splitlines()) <= SHORT_HELP_LINES
    assert f"detect {name} --help all" in short
    flags = re.findall(r"^  --([\w.]+)", short, re.MULTILINE)
    assert {"config", "data.root", "trainer.devices", "out"} <= set(flags)
    assert [flag for flag in flags if not Options(name).knows(flag)] == []


def test_fit_help_all__without_what_is_refused() -> None:
    text = help_text("fit", "Train.", everything=True)
    assert "--trainer.gradient_clip_val" in text
    assert [key for key in REFUSED if f"--trainer.{key} " in text] == []


def test_validate_help__without_training() -> None:
    text = help_text("validate", "Score.", everything=False)
    assert "--data.val_split" in text
    for key in ("train_split", "augmentations", "repeat_threshold", "total_batch_size"):
        assert f"--data.{key}" not in text
        assert Options("validate").knows(f"data.{key}")


FIT_SLIPS = [
    (["--epochs", "5"], "there is no setting epochs; write --trainer.max_epochs 5"),
    (["--epochs=5"], "write --trainer.max_epochs 5"),
    (["--trainer.epochs", "5"], "write --trainer.max_epochs 5"),
    (["epochs=5"], "does not take 'epochs=5' alone; write --trainer.max_epochs 5"),
    (["imgsz=320"], r"write --model.image_size \[320,320\]"),
    (["--model.image_size", "320"], r"model.image_size is height and width: give \[320,320\]"),
    (["--model.backbone", "mobilenetv3"], "there is no mobilenetv3; write MobileNetV3; there are "),
    (["--model.backbone", "mobilenet_v3_large"], "write MobileNetV3; there are "),
    (["--model.loss=focal"], "model.loss: there is no focal; write FocalLoss"),
    (["--batch", "16"], "write --data.total_batch_size 16"),
    (["--batch-size", "16"], "write --data.total_batch_size 16"),
    (["--lr", "0.1"], "write --model.optimizer.lr 0.1"),
    (["--device", "cuda"], "write --trainer.accelerator cuda"),
    (["--device", "cuda:1"], r"write --trainer.devices \[1\]"),
    (["device=0,1"], r"write --trainer.devices \[0,1\]"),
    (["--weights", "best.pt"], "write --model.init_from best.pt"),
    (["model=best.pt"], "write --model.init_from best.pt"),
    (["--model", "mobilenetv3"], "write --model.backbone mobilenetv3"),
    (["--data", "folder"], "write --data.root folder"),
    (["data=birds/data.yaml"], "write --data.root birds"),
    (["configs/bccd.yaml"], "write --config configs/bccd.yaml"),
    (["--max_epochs", "5"], "the nearest is trainer.max_epochs"),
    (["--model.backbone.sise", "small"], "the nearest is model.backbone.size"),
    (["--data.rot", "x"], "there is no setting data.rot; the nearest is data.root"),
    (["--accumulate_grad_batches", "2"], "the nearest is trainer.accumulate_grad_batches"),
    (["--zzzzzzz", "2"], "there is no setting zzzzzzz; see detect fit --help"),
]


@pytest.mark.parametrize(("words", "message"), FIT_SLIPS, ids=lambda value: str(value)[:30])
def test_slips_of_fit__the_right_words(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_words("fit", words)


OTHER_SLIPS = [
    ("predict", ["--conf", "0.3"], "there is no option --conf; write --score_threshold 0.3"),
    ("predict", ["source=photos"], "write --source photos"),
    ("predict", ["--weights", "a.ckpt"], "write --ckpt_path a.ckpt"),
    ("predict", ["--device", "cpu"], "a GPU is used where there is one"),
    ("predict", ["--source", "photos"], "detect predict: the following arguments are required: --out"),
    ("export", ["--format", "onx", "--out", "a"], "choose from 'onnx'"),
    (
        "validate",
        ["--data.val_spilt", "x"],
        "there is no setting data.val_spilt; the nearest is data.val_split",
    ),
    ("sweep", ["a.yaml", "--out", "o", "--epochs", "3"], "write --trainer.max_epochs 3"),
    ("sweep", ["a.yaml", "--out", "o", "--model.image_size", "96"], r"give \[96,96\]"),
    ("report", [], "detect report: the following arguments are required: run"),
    ("report", ["a", "b"], "detect report does not take 'b' alone"),
]


@pytest.mark.parametrize(("name", "words", "message"), OTHER_SLIPS)
def test_slips_of_other_commands__the_right_words(name: str, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_words(name, words)


def test_every_answer_to_a_slip_is_an_option_of_some_command() -> None:
    known = [Options(name) for name in COMMANDS]
    for answers in SLIPS.values():
        for answer in answers:
            key = answer.replace("{device}", "devices").split()[0].lstrip("-").partition("+")[0]
            assert any(options.knows(key) for options in known), answer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {schedul: {warmup_steps: 3}}",
            "there is no setting model.schedul; the nearest is model.schedule",
        ),
        (
            "model: {schedule: {warm_steps: 3}}",
            "model.schedule.warm_steps; the nearest is model.schedule.warmup",
        ),
        ("model: {tapps: [c4, c5]}", "there is no setting model.tapps; the nearest is model.taps"),
        ("epochs: 5", "there is no setting epochs; it is trainer.max_epochs"),
        ("model: {backbone: mobilenetv3}", "model.backbone: there is no mobilenetv3; write MobileNetV3"),
        (
            "model: {loss: {class_path: detect.training.losses.FocalLos}}",
            r"model\.loss: there is no detect\.training\.losses\.FocalLos; write FocalLoss",
        ),
        ("model: {image_size: 320}", r"give \[320,320\] instead of 320"),
        (
            "data: {augmentations: [{class_path: detect.data.augment.Mosaic, init_args: {fil: 1}}]}",
            "there is no setting data.augmentations.fil; the nearest is data.augmentations.fill",
        ),
        ("model: [", "is not valid YAML, line 1"),
    ],
)
def test_a_wrong_key_in_a_configuration__named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "birds.yaml"
    config.write_text(text)
    with pytest.raises(InputError, match=rf"birds\.yaml.*{message}"):
        check_words("fit", ["--config", str(config)])
    right = tmp_path / "right.yaml"
    right.write_text("model: {backbone: MobileNetV3}\nseed_everything: 3")
    with pytest.raises(InputError, match=rf"birds\.yaml.*{message}"):
        check_words("sweep", ["--out", "o", "--model.num_classes", "2", str(right), str(config)])


def test_sweep__settings_of_own_classes__with_trust(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {loss: {class_path: my_parts.Mine, init_args: {strength: 2}}}")
    check_words("sweep", [str(config), "--trust", "my_parts", "--out", "o"])


def test_sweep__wrong_configuration__refused_before_any_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "birds.yaml").write_text("model: {tapps: [c4, c5]}")
    assert main(["sweep", str(tmp_path / "birds.yaml"), "--out", str(tmp_path / "out")]) == EXIT_INPUT
    assert capsys.readouterr().err.count("birds.yaml: there is no setting model.tapps") == 1
    assert not (tmp_path / "out").exists()


ACCEPTED = [
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/mAP"],
    ["--model.optimizer", "Adam", "--model.optimizer.init_args.betas", "[0.9, 0.99]"],
    ["--model.loss", "FocalLoss", "--model.loss.init_args.gamma", "-1"],
    ["--model.loss.assigner.iou_threshold=0.4"],
    ["--model.parameters.lr_factors.backbone", "0.1"],
    ["--model.backbone.help", "MobileNetV3"],
    ["--print_config"],
    ["--data", '{"root": "x"}'],
    ["--trust", "my_parts", "--model.loss", "my_parts.Mine", "--model.loss.strength", "2"],
    ["--model.neck", "null"],
]


@pytest.mark.parametrize("words", ACCEPTED, ids=lambda words: words[0])
def test_what_the_parser_takes__passes(words: list[str]) -> None:
    check_words("fit", words)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_passes(path: Path) -> None:
    check_words(training_command(path), ["--config", str(path)])


def test_documents_say_todays_words() -> None:
    old = re.compile(rf"(?<![\w-])({'|'.join(OTHER_SPELLINGS)})(?![\w=.-])")
    found = [f"{page.name}: {word}" for page in PAGES for word in old.findall(page.read_text())]
    assert found == []


@pytest.mark.parametrize("name", COMMANDS)
def test_other_spellings__every_command_takes_both(name: str) -> None:
    flags = Options(name).own_flags
    for old, today in OTHER_SPELLINGS.items():
        assert old not in flags
        if today in flags:
            assert in_todays_words(name, [old, "x", f"{old}=y"]) == [today, "x", f"{today}=y"]


@pytest.mark.parametrize("name", ["fit", "sweep", "reproduce"])
def test_auto_anchors__the_group_takes_values_by_name(name: str) -> None:
    full = "--model.anchors.scales"
    words = ["--model.anchors", "auto", "--out", "auto", "--model.anchors=auto"]
    assert in_todays_words(name, words) == [full, "auto", "--out", "auto", f"{full}=auto"]
    others = ["--model.anchors", "{style: paper}", "--model.anchors", "anchors.yaml", "--model.anchors"]
    assert in_todays_words(name, others) == others


def test_other_spellings__work(coco_root: Path, tmp_path: Path) -> None:
    words = [str(coco_root), "--to", "yolo", "--output", str(tmp_path / "copy"), "--splits", "train"]
    assert main(["data", "convert", *words]) == 0
    assert [path.name for path in (tmp_path / "copy" / "images").iterdir()] == ["train"]

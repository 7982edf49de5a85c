from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.model.checkpoint import Checkpoint
from detect.training.resume import (
    Resume,
    describe_resume,
    find_resume,
    read_resume,
    refuse_changes,
    refuse_other_data,
)
from detect.training.run_state import TrainingState
from detect.training.schedules import WarmupCosine

CONFIG = {
    "model": {"optimizer": {"init_args": {"lr": 0.1}}, "compile": False},
    "data": {"workers": 2, "root": "here"},
    "trainer": {"max_epochs": 4, "max_steps": -1, "callbacks": [{"class_path": "a"}]},
}


def resume_of() -> Resume:
    raw = {"run": {"config": CONFIG, "data": {"train": {"images": 40, "sha256": "aa"}}}}
    return Resume(Checkpoint(Path("run/last.ckpt"), {}, {}, raw), CONFIG, TrainingState(2, 0, 10))


def changed(**sections: dict) -> dict:
    return {name: {**section, **sections.get(name, {})} for name, section in CONFIG.items()}


def test_what_leaves_the_result_alone_may_change() -> None:
    given = changed(
        data={"workers": 8, "root": "there"}, trainer={"max_epochs": 9, "devices": 2}, model={"compile": True}
    )
    refuse_changes(resume_of(), given)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"model": {"optimizer": {"init_args": {"lr": 0.2}}}}, "model.optimizer.init_args.lr"),
        ({"trainer": {"callbacks": []}}, "trainer.callbacks"),
        ({"trainer": {"max_steps": 7}}, "trainer.max_steps"),
        ({"data": {"total_batch_size": 8}}, "data.total_batch_size"),
    ],
)
def test_what_decides_the_result_may_not(sections: dict, key: str) -> None:
    with pytest.raises(InputError, match=rf"not those of run/last.ckpt:[\s\S]*{key}"):
        refuse_changes(resume_of(), changed(**sections))


def test_other_data_is_refused_with_a_table() -> None:
    resume = resume_of()
    refuse_other_data(resume, {"train": {"images": 40, "sha256": "aa"}})
    with pytest.raises(InputError, match=r"train.images *│ 40 *│ 41"):
        refuse_other_data(resume, {"train": {"images": 41, "sha256": "bb"}})


def test_more_epochs_are_said_to_change_the_cosine() -> None:
    lines = describe_resume(resume_of(), CONFIG["trainer"], WarmupCosine())
    assert lines == ["continuing run/last.ckpt, after epoch 2 (20 steps)"]
    lines = describe_resume(resume_of(), CONFIG["trainer"] | {"max_epochs": 8}, WarmupCosine())
    # (1 + cos(pi / 4)) / 2 = 0.854 at 20 of 80 steps, (1 + cos(pi / 2)) / 2 = 0.5 at 20 of 40
    assert "resumes at 0.854 of its base and not at 0.5" in lines[1]


def test_which_checkpoint_is_meant(tmp_path: Path) -> None:
    assert find_resume(["--config", "a.yaml"]) is None
    assert find_resume(["--ckpt_path", "last", "--out", str(tmp_path / "new")]) is None
    with pytest.raises(InputError, match="say of which with --out RUN"):
        find_resume(["--ckpt_path", "last"])
    with pytest.raises(InputError, match=r"nowhere.ckpt: no such file"):
        find_resume(["--ckpt_path=nowhere.ckpt"])


def save(path: Path, **content: object) -> Path:
    description = {"format_version": 1, "model": {}}
    torch.save({"detect": description, "state_dict": {}, **content}, path)
    return path


def test_weights_alone_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"start from it with --model.init_from"):
        read_resume(save(tmp_path / "weights.ckpt"))


def test_a_class_of_a_run_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    config = {"trainer": {"callbacks": [{"class_path": "subprocess.Popen"}]}}
    position = TrainingState(0, 1, 2)._asdict()
    path = save(tmp_path / "run.ckpt", run={"config": config, "data": {}}, position=position)
    with pytest.raises(InputError, match=r"asks for the class 'subprocess.Popen'"):
        read_resume(path)


def test_a_strategy_that_is_a_class_is_never_taken_from_a_checkpoint(tmp_path: Path) -> None:
    trainer = {"max_epochs": 4, "strategy": {"class_path": "subprocess.Popen"}}
    position = TrainingState(0, 1, 2)._asdict()
    run = {"config": {"trainer": trainer}, "data": {}}
    assert read_resume(save(tmp_path / "a.ckpt", run=run, position=position)).config == {
        "trainer": {"max_epochs": 4}
    }
    run = {"config": {"trainer": {**trainer, "strategy": "ddp"}}, "data": {}}
    kept = read_resume(save(tmp_path / "b.ckpt", run=run, position=position))
    assert kept.config["trainer"]["strategy"] == "ddp"

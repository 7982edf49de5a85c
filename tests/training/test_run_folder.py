import os
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.system.files import remove_leftovers, write_atomically
from detect.training.run_folder import RUN_VARIABLE, choose_run_folder


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN_VARIABLE, "of another run")


def test_runs_are_numbered() -> None:
    chosen = [choose_run_folder(None, name="bccd", resume=False) for _ in range(3)]
    assert [str(folder) for folder in chosen] == ["runs/bccd-001", "runs/bccd-002", "runs/bccd-003"]
    assert os.environ[RUN_VARIABLE] == "runs/bccd-003"


def test_an_existing_run_needs_a_resume() -> None:
    run = Path("run")
    run.mkdir()
    assert choose_run_folder(run, name="a", resume=False) == run  # empty
    (run / "config.yaml").touch()
    with pytest.raises(InputError, match="run exists and is not empty: continue it with --ckpt_path last"):
        choose_run_folder(run, name="a", resume=False)
    (run / "manifest.json").touch()
    assert choose_run_folder(run, name="a", resume=True) == run


def test_a_configuration_that_no_run_wrote_is_not_replaced() -> None:
    Path("mine").mkdir()
    Path("mine/config.yaml").touch()
    with pytest.raises(InputError, match=r"mine/config\.yaml is not a run's"):
        choose_run_folder(Path("mine"), name="a", resume=True)


def test_other_ranks_take_what_rank_0_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detect.training.run_folder.rank_by_environment", lambda: 1)
    full = Path("full")
    full.mkdir()
    (full / "config.yaml").touch()
    assert choose_run_folder(full, name="a", resume=False) == full
    assert choose_run_folder(None, name="a", resume=False) == Path("of another run")
    monkeypatch.delenv(RUN_VARIABLE)
    with pytest.raises(InputError, match="give them one with --out"):
        choose_run_folder(None, name="a", resume=False)


def test_a_file_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("file.txt")
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir() == ["file.txt"]


def test_leftovers_of_one_file_are_removed() -> None:
    for name in (".last.ckpt.123", ".best.ckpt.123", "last.ckpt"):
        Path(name).touch()
    remove_leftovers(Path("last.ckpt"))
    assert sorted(os.listdir()) == [".best.ckpt.123", "last.ckpt"]


def test_a_file_is_no_run_folder() -> None:
    Path("notes").write_text("mine")
    with pytest.raises(InputError, match="--out notes is a file; give a folder"):
        choose_run_folder(Path("notes"), name="a", resume=False)

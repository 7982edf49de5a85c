"""Every command of README.md and docs/ is run, in the order of its page, or NOT_RUN says why it is not.

A reader's command is run with the words of SMALLER appended (of two values the last one counts), in a folder
that has what the page presumes (GIVEN): 20 pictures of 160 x 120, a narrow detector of one epoch.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from detect.commands import sweep as sweep_module
from detect.commands.main import main
from tests.conftest import make_coco
from tests.documents import FENCED_LINES, ROOT, Line
from tests.run_cases import make_run
from tests.video_cases import write_video

NOT_RUN = {
    r"^(\S*pip|pre-commit) install|^bash scripts/install|^source ": "needs a package index",
    r"^docker ": "needs a container engine",
    r"^detect data download ": "needs the network: tests/data/public/test_download.py",
    r"^bash scripts/test( |$)": "is what runs this",
    r"^bash scripts/gpu-check$": "needs a GPU: tests/inspection/test_device_steps.py",
    r"^bash scripts/quickstart": "is what .ci/run begins with",
    r"--trainer\.strategy ddp": "starts several processes: tests/system/test_ranks.py",
    r"^NODES=2 .* bash scripts/torchrun ": "tests/test_scripts_several_machines.py",
    r"^sbatch scripts/slurm |--slurm |scripts/test-slurm": "needs SLURM: tests/test_slurm.py",
    r"last\.ckpt .*--int8|int8\.xml": "8 bits, as deployment.md's; OpenVINO's: tests/deploy/test_int8.py",
    r"litert|\.tflite": "LiteRT needs an environment of its own: tests/deploy/runtimes/test_litert.py",
    r"executorch": "ExecuTorch needs an environment of its own: tests/deploy/runtimes/test_executorch.py",
    r"detect pretrain|figure1": "trains on folders of classes: tests/commands/test_pretrain.py",
    r"weights\.safetensors": "takes the weights of such a run: tests/commands/test_pretrain.py",
    r"^detect latency-table ": "exports networks, minutes: tests/search/test_measure.py",
    r"^detect search ": "exports and trains, minutes: tests/commands/test_search.py",
    r"configs/plus/": "30 epochs, minutes: tests/test_configs.py and tests/test_recipes.py",
    r"^detect sweep .* (BCCD|path/to/data) ": "is the sweep of data/small with other data, a minute",
    r"--source (camera:0|rtsp:)": "needs a camera or a stream: tests/deploy/test_predict_video.py",
    r"--format web ": "needs a package of npm: tests/deploy/test_web_page.py",
    r"python -m http\.server ": "ends when it is told to",
    r"benchmarks/table6\.py": "exports eleven networks, minutes: tests/benchmarks/test_table6.py",
    r"benchmarks/annotations\.py": "tests/benchmarks/test_annotations.py",
    r"benchmarks/loader\.py": "tests/benchmarks/test_loader.py",
    r"benchmarks/peers\.py": "tests/benchmarks/test_peers.py",
    r"benchmarks/peers_training\.py": "tests/benchmarks/test_peers_training.py",
    r"benchmarks/postprocessing\.py": "tests/benchmarks/test_postprocessing.py",
    r"benchmarks/search_comparison\.py": "tests/benchmarks/test_search_comparison.py",
    r"benchmarks/step\.py": "tests/benchmarks/test_step.py",
    r"^bash scripts/kill_and_resume": "tests/training/test_kill_and_resume.py",
}
"""Pattern of a command to the reason why it is not run here, or to the test that runs it in another way."""
WHOLE_PAGES = {"first-detector.md": "tests/docs/test_first_detector.py"}
"""Pages whose commands another test runs, all of them."""

SMALL_RUN = (
    "--trainer.max_epochs 1 --trainer.accelerator cpu --data.total_batch_size 4 --data.workers 0 "
    "--model.image_size [64,64] --model.backbone.init_args.width 0.35"
)
SMALLER = {
    r"^detect fit": SMALL_RUN,
    r"^detect init (?!.*--start)": "--start none",
    r"^detect fit .*recipes/torchvision": "--trainer.devices 1",
    r"^detect fit .*check_val_every_n_epoch 3": "--trainer.max_epochs 3",
    r"^detect sweep": f"{SMALL_RUN} --seeds 0 --rounds 3",
    r"^detect benchmark": "--rounds 3 --memory false",
    r"^detect compare": "--resamples 20",
    r"^detect data shapes": "--train 16 --val 4",
    r"^detect data preview": "--samples 8",
    r"^detect export .*--int8": "--calibration_images 4 --max_drop 1",
    r"benchmarks/allocator\.py": "--rounds 1 --steps 1",
    r"benchmarks/overfit\.py": "--images 4 --epochs 1",
    r"benchmarks/evaluation\.py": "--images 20 --detections 10 --classes 3",
    r"tests\.fuzz_data": "--count 3",
}
FINDINGS = {
    r"^detect data check": 1,
    r"^detect compare": 1,
    r"benchmarks/evaluation\.py": 1,
}
CLASSES = {"square": "cat", "disc": "dog", "bar": "bird"}
"""Names of COCO for the classes of the generated pictures, and of the example in deployment.md."""
T = TypeVar("T")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
PTH = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"


class Material(NamedTuple):
    """What pages presume, made once."""

    coco: Path
    voc: Path
    run: Path
    onnx: Path
    torchvision: Path


def of_patterns(table: dict[str, T], line: Line) -> list[T]:
    return [value for pattern, value in table.items() if re.search(pattern, line.text)]


def is_run(line: Line) -> bool:
    """Whether `run_line` knows how."""
    first, second = line.words[0], line.words[1:2]
    script = first == "python" and second[0].startswith(("benchmarks/", "scripts/", "-m"))
    return first in ("detect", "mkdir") or script


def reason(line: Line) -> str | None:
    """Why a command is not run on its page; a script that stands on several is run on the first."""
    if line.page in WHOLE_PAGES:
        return WHOLE_PAGES[line.page]
    first = next(other for other in FENCED_LINES if other.words == line.words)
    if line.words[0] != "detect" and first.page != line.page:
        return f"is run on {first.page}"
    return next(iter(of_patterns(NOT_RUN, line)), None)


PAGES = list(dict.fromkeys(line.page for line in FENCED_LINES if reason(line) is None))


def test_every_command_is_run_or_there_is_a_reason() -> None:
    assert [str(line) for line in FENCED_LINES if not is_run(line) and reason(line) is None] == []
    for patterns in (NOT_RUN, SMALLER, FINDINGS):
        found = {
            pattern for pattern in patterns if any(re.search(pattern, line.text) for line in FENCED_LINES)
        }
        assert patterns.keys() - found == set(), "patterns of commands that are in no document"
    reasons = [*NOT_RUN.values(), *WHOLE_PAGES.values()]
    files = re.findall(r"tests/[\w/]+\.py", " ".join(reasons))
    assert len(files) >= len([why for why in reasons if "tests/" in why]) > 0
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert set(PAGES) == set(GIVEN)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    with pytest.MonkeyPatch.context() as patch:  # `own_cache` comes with each test, later
        patch.setenv("DETECT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_material(tmp_path_factory.mktemp("material"))


def make_material(folder: Path) -> Material:
    coco = make_coco(folder / "coco", train=16, val=4)
    for file in coco.glob("annotations/*.json"):
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = CLASSES[category["name"]]
        file.write_text(json.dumps(content))
    made = Material(coco, folder / "voc", folder / "run", folder / "model.onnx", folder / PTH)
    assert main(["data", "convert", str(coco), "--to", "voc", "--output", str(made.voc)]) == 0
    lists = made.voc / "ImageSets" / "Main"
    for name, other in (("train", "trainval"), ("val", "test")):
        shutil.copy(lists / f"{name}.txt", lists / f"{other}.txt")
    config = ["--config", str(ROOT / "configs" / "bccd.yaml"), *SMALL_RUN.split()]
    places = ["--data.root", str(coco), "--data.train_split", "train", "--data.val_split", "val"]
    assert main(["fit", *config, *places, "--out", str(made.run)]) == 0
    best = str(made.run / "checkpoints" / "best.ckpt")
    assert main(["export", "--ckpt_path", best, "--format", "onnx", "--output", str(made.onnx)]) == 0
    torch.manual_seed(0)
    net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(net.state_dict(), made.torchvision)
    return made


def seeded(run: Path, copy: Path, seed: int) -> None:
    """A run folder as if it had been trained from another seed."""
    shutil.copytree(run, copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("seed_everything: 0", f"seed_everything: {seed}"))


def of_readme(here: Path, material: Material) -> None:
    for part in ("Annotations", "JPEGImages"):
        shutil.copytree(material.voc / part, here / "labelled" / part)
    shutil.copytree(material.coco / "val", here / "new_photos")


def of_comparing(here: Path, material: Material) -> None:
    for name in ("bccd", "bccd-001"):
        shutil.copytree(material.run, here / "runs" / name)
    for seed, name in enumerate(("bccd-002", "bccd-003"), 1):
        seeded(material.run, here / "runs" / name, seed)
    for seed, name in enumerate(("v2", "v3", "longer-seed0", "longer-seed1", "quickstart")):
        make_run(here / "runs" / name, material.coco, seed=seed, lr=0.01 if seed < 2 else 0.05)
    measured = ["--model", str(material.onnx), "--json", "benchmark.json", "--rounds", "3"]
    assert main(["benchmark", *measured, "--memory", "false"]) == 0
    shutil.copytree(material.voc, here / "BCCD")


def of_data(here: Path, material: Material) -> None:
    shutil.copytree(material.voc, here / "data" / "birds")
    shutil.copy(material.run / "checkpoints" / "best.ckpt", here / "detector.ckpt")
    shutil.copy(material.torchvision, here)


def of_first_detector(here: Path, material: Material) -> None:
    for kind, name in (("Annotations", "annotations"), ("JPEGImages", "images")):
        shutil.copytree(material.voc / kind, here / "photos" / name)
    shutil.copytree(material.coco / "val", here / "new_photos")


def of_deployment(here: Path, material: Material) -> None:
    shutil.copy(material.run / "checkpoints" / "best.ckpt", here)
    shutil.copytree(material.coco, here / "D")
    shutil.copytree(material.coco / "val", here / "photos")
    write_video(here / "clip.mp4")


def of_docker(here: Path, material: Material) -> None:
    shutil.copytree(material.run, here / "runs" / "bccd-001")


def of_published(here: Path, material: Material) -> None:
    shutil.copytree(material.coco, here / "data" / "coco")
    shutil.copy(material.torchvision, here)


def of_results(here: Path, material: Material) -> None:
    of_first_detector(here, material)
    for name in ("BCCD", "bccd"):
        shutil.copytree(material.voc, here / name)
    shutil.copytree(material.coco, here / "coco128")
    shutil.copytree(material.coco / "val", here / "images")
    quickstart = [
        "--config",
        "configs/quickstart.yaml",
        "--data.root",
        "coco128",
        "--out",
        "runs/quickstart-001",
    ]
    assert main(["fit", *quickstart, *SMALL_RUN.split()]) == 0


GIVEN: dict[str, Callable[[Path, Material], None]] = {
    "README.md": of_readme,
    "comparing.md": of_comparing,
    "data.md": of_data,
    "deployment.md": of_deployment,
    "docker.md": of_docker,
    "published-numbers.md": of_published,
    "results.md": of_results,
}


@pytest.fixture
def jobs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sweep` runs its jobs one after the other here: importing torch anew takes longer than they do."""

    def launch(command: list[str], log: Path, slot: object) -> SimpleNamespace:
        exit_code = main(command[command.index("detect") + 1 :])
        log.write_text(f"{command} ended with {exit_code}")
        return SimpleNamespace(poll=lambda: exit_code, returncode=exit_code)

    monkeypatch.setattr(sweep_module, "launch", launch)


def words_of(line: Line) -> list[str]:
    """The words to run: those of the document, a glob's last file for it, with what makes it smaller."""
    filled = [(sorted(glob(word)) or [word])[-1] for word in line.words]
    return filled + shlex.split(" ".join(of_patterns(SMALLER, line)))


def run_line(line: Line, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command of a document, in this process where that can be, and give its exit code."""
    words = words_of(line)
    if words[0] == "python":
        return run_python(words[1:], monkeypatch)
    if words[0] != "detect":
        return subprocess.run(words, check=False, env=ENVIRONMENT).returncode
    return main(words[1:])


def run_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """`python FILE ...` or `python -m MODULE ...`, its exit code."""
    monkeypatch.setattr(sys, "argv", words[words[0] == "-m" :])
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__")
        else:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a reader types."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # `reproduce` sets it
    yield tmp_path
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("jobs_in_this_process")
def test_the_commands_of_a_page_run(
    page: str, here: Path, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    GIVEN[page](here, material)
    for line in FENCED_LINES:
        if line.page == page and reason(line) is None:
            assert run_line(line, monkeypatch) <= max(of_patterns(FINDINGS, line), default=0), str(line)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(here: Path, material: Material) -> None:
    of_docker(here, material)
    shutil.copy(material.coco / "val" / "000.jpg", here / "photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, "README.md", "exec"), {})

"""RUN/manifest.json: what is needed to repeat a run, and to know later what it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detect.data.annotations import Annotations
from detect.data.checks.scan import scan_images
from detect.model.checkpoint import Task, read_checkpoint
from detect.system.files import write_atomically

MANIFEST_FILE = "manifest.json"
MOST_DIFF_CHARACTERS = 200_000
"""Of a longer diff the hash alone is kept."""
COMMIT_VARIABLE = "DETECT_COMMIT"
"""The commit that an image was built from; set by the Dockerfile's ARG COMMIT."""
PACKAGES = (
    "detect",
    "torch",
    "torchvision",
    "lightning",
    "jsonargparse",
    "numpy",
    "pillow",
    "simplejpeg",
    "pycocotools",
    "faster-coco-eval",
)


def make_manifest(
    *,
    args: list[str],
    config: dict[str, Any],
    data: dict[str, Any],
    device: str,
    processes: int,
    command: str = "fit",
) -> dict[str, Any]:
    """The manifest of a run that starts now.

    Args:
        args: of the command.
        config: every resolved value.
        data: `describe_split` of each split, with `hash_files`.
        device: type of what it trains on, as "cpu".
        processes: ranks of the run.
        command: the one that trains.
    """
    package = Path(__file__).parents[1]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["detect", command, *args],
        "folder": os.getcwd(),
        "commit": commit_of(package),
        "changes": changes_of(package),
        "code": hash_code(package),
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": _machine(),
        "runs_on": {"device": device, "processes": processes, "threads": torch.get_num_threads()},
        "seed": config["seed_everything"],
        "data": data,
        "config": config,
    }


def describe_split(annotations: Annotations) -> dict[str, Any]:
    """How many images and boxes a split has, and a hash of all that its files say about them.

    Where the files lie changes nothing; pixels are not read, see `hash_files`.
    """
    digest = hashlib.sha256("\n".join(annotations.classes.names).encode())
    for column in (
        annotations.file_names,
        annotations.sizes,
        annotations.offsets,
        annotations.boxes,
        annotations.labels,
        annotations.ignore,
    ):
        digest.update(str(column.shape).encode())
        digest.update(column.tobytes())
    return {"images": len(annotations), "boxes": len(annotations.boxes), "sha256": digest.hexdigest()}


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` is checked out at, and whether its files differ.

    Where git knows none, as in a container, $DETECT_COMMIT says it as `git describe --dirty` does: HASH or
    HASH-dirty. None without either.
    """
    try:
        return {
            "hash": _git(folder, "rev-parse", "HEAD"),
            "modified": bool(_git(folder, "status", "--porcelain", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        written = os.environ.get(COMMIT_VARIABLE)
        if not written:
            return None
        return {"hash": written.removesuffix("-dirty"), "modified": written.endswith("-dirty")}


def changes_of(folder: Path) -> dict[str, Any] | None:
    """What `folder` has that its commit has not: a diff, and the names of files that git does not know.

    None where git knows none; a diff of more than 200,000 characters is given as its hash alone.
    """
    try:
        diff = _git(folder, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", ".")
        untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "--", ".").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    kept = diff if len(diff) <= MOST_DIFF_CHARACTERS else None
    return {"diff": kept, "diff_sha256": hashlib.sha256(diff.encode()).hexdigest(), "untracked": untracked}


def hash_code(package: Path) -> str:
    """A hash of every Python file of a package: equal for equal code, installed from whatever commit."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def hash_files(annotations: Annotations) -> str:
    """A hash of the bytes of a split's images; what was hashed before and has not changed is recalled."""
    scan = scan_images([annotations.path(row) for row in range(len(annotations))])
    digest = hashlib.sha256()
    for name, content in zip(annotations.file_names.tolist(), scan.digests.tolist(), strict=True):
        digest.update(name + b"\n" + content + b"\n")
    return digest.hexdigest()


def hash_weights(state_dict: Mapping[str, Tensor]) -> str:
    """A hash of every name, type, shape and bit of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe_result(folder: Path, *, task: Task = "detection") -> dict[str, Any]:
    """Where a run ended: hashes of the weights of its checkpoints, and the metrics of the best one."""
    weights = {
        name: hash_weights(read_checkpoint(path, task=task).state_dict)
        for name in ("best", "last")
        if (path := folder / "checkpoints" / f"{name}.ckpt").is_file()
    }
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    numbers = {key: value for key, value in metrics.items() if isinstance(value, float)}
    return {"weights": weights, "metrics": numbers}


def update_manifest(folder: Path, **values: Any) -> None:
    """Set top-level values of RUN/manifest.json."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    write_atomically(path, json.dumps(manifest | values, indent=1))


def append_manifest(path: Path, manifest: dict[str, Any]) -> str:
    """JSON of a run's manifests: the first start's values, later ones under "continued"."""
    if not path.exists():
        return json.dumps(manifest, indent=1)
    first = json.loads(path.read_text(encoding="utf-8"))
    first.setdefault("continued", []).append(manifest)
    return json.dumps(first, indent=1)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    # With the build behind the number, which the package's metadata leave out.
    return versions | {"torch": str(torch.__version__), "cuda": torch.version.cuda}


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


def _processor() -> str:
    """The model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

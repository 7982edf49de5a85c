"""RUN/manifest.json: what is needed to repeat a run, and to know later what it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from detect.data.labels import Annotations

PACKAGES = (
    "detect",
    "torch",
    "torchvision",
    "lightning",
    "jsonargparse",
    "numpy",
    "pillow",
    "pycocotools",
    "faster-coco-eval",
)


def make_manifest(*, args: list[str], seed: int, data: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that starts now.

    Args:
        args: of `detect fit`.
        seed: of everything random.
        data: `describe_split` of each split.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["detect", "fit", *args],
        "folder": os.getcwd(),
        "commit": commit_of(Path(__file__).parent),
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": _machine(),
        "seed": seed,
        "data": data,
    }


def describe_split(annotations: Annotations) -> dict[str, Any]:
    """How many images and boxes a split has, and a hash of all that its files say about them.

    Where the files lie changes nothing; pixels are not read.
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
    """The commit that `folder` is checked out at, and whether its files differ; None where git knows none."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        return {"hash": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def append_manifest(path: Path, manifest: dict[str, Any]) -> str:
    """JSON of a run's manifests: the first start's values, later ones under "continued"."""
    if not path.exists():
        return json.dumps(manifest, indent=1)
    first = json.loads(path.read_text(encoding="utf-8"))
    first.setdefault("continued", []).append(manifest)
    return json.dumps(first, indent=1)


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

"""Write requirements/*.txt: the exact packages of the images, each with the hash of its wheel.

    python -m venv .venv-pin && .venv-pin/bin/python scripts/pin_requirements.py

To be run with Python 3.11 on x86-64 Linux, for which the hashes hold. pip resolves, nothing is installed. No
file names an index: where the wheels come from is the choice of whoever installs, and the hashes say whether
they are the same ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("export",)
"""What the training image holds beside the dependencies of pyproject.toml."""
TESTED = ["torch==2.14.1", "torchvision==0.29.1"]
"""With which the figures of docs/results.md were measured, and the tests pass."""
BUILD = ["setuptools>=69"]
"""What installing detect itself needs, since nothing may be fetched by then."""
PREDICT = ["numpy>=1.26", "pillow>=10.3", "onnxruntime>=1.22"]
"""What examples/numpy_detector.py imports."""
TORCH = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
"""Names or their beginnings: what another wheel index (ARG TORCH_INDEX) gives in other builds."""


def resolve(requirements: list[str]) -> list[dict[str, Any]]:
    """What pip would install into an empty environment: name, version and hashes of each wheel."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, *requirements], check=True)
        installed: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return installed


def pinned(package: dict[str, Any]) -> str:
    """One package as a line of a requirements file."""
    metadata, archive = package["metadata"], package["download_info"]["archive_info"]
    name = metadata["name"].lower().replace("_", "-")
    return f"{name}=={metadata['version']} --hash=sha256:{archive['hashes']['sha256']}"


def is_torch(line: str) -> bool:
    """Whether a package is torch or comes with it alone."""
    name = line.partition("==")[0]
    return any(name == start or (start.endswith("-") and name.startswith(start)) for start in TORCH)


def write(name: str, lines: list[str], *, purpose: str) -> None:
    """One requirements file, sorted."""
    head = f"# {purpose}\n# Python 3.11, x86-64 Linux. Written by scripts/pin_requirements.py; do not edit.\n"
    path = ROOT / "requirements" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + "".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(lines)} packages")


def main() -> None:
    """Resolve both images' packages and write the three files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *TESTED, *BUILD]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    lines = [pinned(package) for package in resolve(wanted)]
    write(
        "torch.txt",
        list(filter(is_torch, lines)),
        purpose="torch and what comes with it alone, CUDA as well.",
    )
    rest = [line for line in lines if not is_torch(line)]
    write("train.txt", rest, purpose="The training image, without torch.")
    predicted = [pinned(package) for package in resolve(PREDICT)]
    write("predict.txt", predicted, purpose="The prediction image: examples/numpy_detector.py, no torch.")


if __name__ == "__main__":
    main()

"""Write requirements/*.txt: the exact packages of the images with their hashes, and the tested versions.

    python -m venv .venv-pin && .venv-pin/bin/python scripts/pin_requirements.py
    python scripts/pin_requirements.py --constraints python3.11 python3.12 python3.13
    python scripts/pin_requirements.py --oldest

The first writes what the images install, the second constraints.txt, the versions that scripts/install takes;
name every Python that it shall be for. The last prints the lower bounds of pyproject.toml as exact versions.

To be run with Python 3.11 on x86-64 Linux, for which the hashes hold. pip resolves, nothing is installed. No
file names an index: where the wheels come from is the choice of whoever installs, and the hashes say whether
they are the same ones.
"""

from __future__ import annotations

import argparse
import json
import re
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
CHECKED = (
    *("timm", "export", "openvino", "tensorflow", "search", "video", "pandas", "supervision"),
    *("wandb", "mlflow", "slurm", "dev"),
)
"""Extras whose versions are held by constraints.txt: what scripts/test installs."""
BUILD = ["setuptools>=69"]
"""What installing detect itself needs, since nothing may be fetched by then."""
PREDICT = ("numpy", "pillow", "simplejpeg", "jsonargparse", "rich", "pyyaml", "onnxruntime", "openvino")
"""What `detect predict` imports for an exported file, at the bounds of pyproject.toml."""
TORCH = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
"""Names or their beginnings: what another wheel index (ARG TORCH_INDEX) gives in other builds."""


def resolve(requirements: list[str], *, python: str = sys.executable) -> list[dict[str, Any]]:
    """What pip of `python` would install into an empty environment: names, versions, hashes of wheels."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([python, "-m", "pip", "install", "-q", *options, *requirements], check=True)
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
    """One requirements file of an image, sorted."""
    head = f"# {purpose}\n# Python 3.11, x86-64 Linux. Written by scripts/pin_requirements.py; do not edit.\n"
    write_lines(name, lines, head=head)


def write_lines(name: str, lines: list[str], *, head: str) -> None:
    """One file of requirements/, sorted."""
    path = ROOT / "requirements" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + "".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(lines)} packages")


def merged(versions: dict[str, dict[str, str]]) -> list[str]:
    """Lines of a constraints file.

    Args:
        versions: by the number of a Python ("3.11"), the version of each package there. Where all have the
            same one, the line needs no marker.
    """
    lines = []
    for name in sorted({name for found in versions.values() for name in found}):
        by_python = {number: found[name] for number, found in versions.items() if name in found}
        if len(by_python) == len(versions) and len(set(by_python.values())) == 1:
            lines.append(f"{name}=={next(iter(by_python.values()))}")
        else:
            lines += [f'{name}=={v} ; python_version == "{number}"' for number, v in by_python.items()]
    return lines


def write_constraints(project: dict[str, Any], pythons: list[str]) -> None:
    """Resolve what the checks need with each Python and write requirements/constraints.txt."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *TESTED, *BUILD]
    for extra in CHECKED:
        wanted += [line for line in extras[extra] if not line.startswith("detect[")]
    versions: dict[str, dict[str, str]] = {}
    for python in pythons:
        number = "import sys; print('%d.%d' % sys.version_info[:2])"
        key = subprocess.run(
            [python, "-c", number], capture_output=True, text=True, check=True
        ).stdout.strip()
        lines = [pinned(package).partition(" ")[0] for package in resolve(wanted, python=python)]
        versions[key] = dict(line.split("==") for line in lines if not comes_with_torch(line))
    write_lines(
        "constraints.txt",
        merged(versions),
        head="# The versions of the tests. Written by scripts/pin_requirements.py; do not edit.\n",
    )


def comes_with_torch(line: str) -> bool:
    """Whether torch itself asks for a package by its exact version, other builds of torch for others."""
    return is_torch(line) and not line.startswith(("torch==", "torchvision=="))


def oldest(project: dict[str, Any]) -> list[str]:
    """The lower bounds of what the project imports, as exact versions; tools of the extra dev are free."""
    extras = project["optional-dependencies"]
    used = [requirement for name, extra in extras.items() if name != "dev" for requirement in extra]
    requirements = [*project["dependencies"], *used]
    bounds = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement) for requirement in requirements)
    return sorted({f"{bound[1]}=={bound[2]}" for bound in bounds if bound})


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--constraints", nargs="+", metavar="PYTHON", help="write constraints.txt for these")
    parser.add_argument("--oldest", action="store_true", help="print the lower bounds as exact versions")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if arguments.oldest:
        print("\n".join(oldest(project)))
    elif arguments.constraints:
        write_constraints(project, arguments.constraints)
    else:
        write_images(project)


def bounds_of(names: tuple[str, ...], project: dict[str, Any]) -> list[str]:
    """Packages with their bounds in pyproject.toml, without the extras that only training needs."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    lines = [re.sub(r"\[.*?\]", "", line) for line in lines]
    return [next(line for line in lines if line.partition(">=")[0] == name) for name in names]


def write_images(project: dict[str, Any]) -> None:
    """Resolve both images' packages and write the three files."""
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
    predicted = [pinned(package) for package in resolve([*bounds_of(PREDICT, project), *BUILD])]
    write("predict.txt", predicted, purpose="`detect predict` on exported files, without torch.")


if __name__ == "__main__":
    main()

"""requirements/constraints.txt and the script that writes it."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.pin_requirements import CHECKED, merged, oldest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]


def held(name: str) -> list[Version]:
    """Every version that the file holds a package to, on one Python or another."""
    found = [line.partition(" ;")[0].split("==") for line in LINES]
    return [
        Version(version)
        for package, version in found
        if canonicalize_name(package) == canonicalize_name(name)
    ]


def test_what_the_checks_need_is_held_to_a_version_that_the_project_allows() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for name in CHECKED for line in extras[name])]
    for requirement in map(Requirement, wanted):
        if requirement.name != "detect":
            versions = held(requirement.name)
            assert versions, requirement.name
            assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_lines_are_names_and_versions_alone() -> None:
    for line in LINES:
        assert re.fullmatch(r'[\w.-]+==[\w.+]+( ; python_version == "3\.\d+")?', line), line
        assert not line.startswith(("nvidia-", "cuda-", "triton")), line  # torch asks for its own


def test_versions_that_differ_between_pythons_get_a_marker() -> None:
    versions = {"3.11": {"a": "1", "b": "2"}, "3.12": {"a": "1", "b": "3"}, "3.13": {"a": "1"}}
    assert merged(versions) == [
        "a==1",
        'b==2 ; python_version == "3.11"',
        'b==3 ; python_version == "3.12"',
    ]


def test_the_oldest_are_the_lower_bounds() -> None:
    bounds = oldest(
        {
            "dependencies": ["torch>=2.9", "jsonargparse[signatures]>=4.49"],
            "optional-dependencies": {"a": ["onnx>=1.18", "detect[b]"], "dev": ["mypy>=1.18"]},
        }
    )
    assert bounds == ["jsonargparse==4.49", "onnx==1.18", "torch==2.9"]

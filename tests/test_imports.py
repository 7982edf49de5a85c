"""The law of imports, held by every file: packages in one order, no cycle, deploy and training apart."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "detect"

ROOT = "root"
ORDER = (
    *(ROOT, "system", "config", "data", "model", "evaluation", "training"),
    *("deploy", "inspection", "report", "search", "commands"),
)
"""A package imports those before it; the modules of `detect/` itself come first."""
APART = {"training", "deploy"}
"""Neither imports the other."""
ENTRY_POINTS = {"detect.__main__", "detect.api"}
"""Doors into the house: they import anything, and nothing imports them."""
MOST_AT_ROOT = 6


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ROOT


def imports_of(module: str) -> Iterator[str]:
    """Modules of the project that a file imports, in functions as well."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            if node.module is not None and node.module.split(".")[0] == "detect":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield name if name in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "detect")


def fault(module: str, imported: str) -> str | None:
    """What is wrong with an import, or None."""
    if imported in ENTRY_POINTS:
        return "is an entry point"
    if module in ENTRY_POINTS:
        return None
    importer, target = package_of(module), package_of(imported)
    if ORDER.index(target) > ORDER.index(importer):
        return f"points up from {importer} to {target}"
    return "joins training and deploy" if {importer, target} == APART else None


@pytest.mark.parametrize("module", FILES)
def test_imports_follow_the_law(module: str) -> None:
    assert package_of(module) in ORDER, f"{module} stands in a package that no rule knows"
    faults = {imported: why for imported in imports_of(module) if (why := fault(module, imported))}
    assert not faults


def test_no_cycle() -> None:
    graph = {module: set(imports_of(module)) - {module} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' -> '.join(error.args[1])}")


def test_the_root_stays_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_ROOT


@pytest.mark.parametrize(
    ("module", "imported", "why"),
    [
        ("detect.data.dataset", "detect.model.ssdlite", "points up from data to model"),
        ("detect.deploy.export", "detect.training.module", "joins training and deploy"),
        ("detect.types", "detect.system.files", "points up from root to system"),
        ("detect.report.html", "detect.api", "is an entry point"),
        ("detect.api", "detect.deploy.load", None),
        ("detect.report.html", "detect.system.files", None),
    ],
)
def test_the_law_itself(module: str, imported: str, why: str | None) -> None:
    assert fault(module, imported) == why


LIGHTNING_LOOPS = "detect.training.lightning_loops"
INSIDES = re.compile(r"\bfit_loop\b|\bepoch_loop\b|^from lightning\S* import .*\b_\w+", re.MULTILINE)
"""Parts of Lightning that a new version may move without a word."""


@pytest.mark.parametrize("module", FILES)
def test_one_file_touches_the_insides_of_lightning(module: str) -> None:
    found = INSIDES.findall(FILES[module].read_text(encoding="utf-8"))
    assert bool(found) == (module == LIGHTNING_LOOPS), found

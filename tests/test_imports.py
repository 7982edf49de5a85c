import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "detect"

ALLOWED = {
    "types": set(),
    "boxes": set(),
    "schedule": set(),
    "blocks": set(),
    "anchors": {"boxes", "types"},
    "box_coder": {"boxes", "types"},
    "matcher": {"boxes", "types"},
    "losses": {"anchors", "box_coder", "boxes", "matcher", "types"},
    "postprocess": {"anchors", "box_coder", "boxes", "matcher", "types"},
    "backbones": {"backbones", "blocks"},
    "ssdlite": {"anchors", "backbones", "blocks", "types"},
    "data": {"boxes", "data", "types"},
    "coco_eval": {"boxes", "coco_backends", "data.labels", "types"},
    "coco_backends": {"boxes", "data.labels", "types"},
}
"""What a file or folder may import of the project, besides `LEAVES`, which import nothing."""
LEAVES = {"allocator", "errors", "garbage"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports anywhere, by their name below `detect`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            if node.module == "detect":
                yield from (alias.name for alias in node.names)
            elif node.module is not None and node.module.startswith("detect."):
                yield node.module.removeprefix("detect.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("detect.") for a in node.names if a.name.startswith("detect."))


def is_in(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
RULED = [name for name in FILES if is_in(name, set(ALLOWED))]


def test_every_rule_is_about_a_file_that_is_there() -> None:
    for name in set(ALLOWED) | LEAVES:
        assert any(is_in(module, {name}) for module in FILES), name


@pytest.mark.parametrize("name", RULED)
def test_arrows_point_down(name: str) -> None:
    rule = next(rule for rule in ALLOWED if is_in(name, {rule}))
    wrong = [module for module in imports_of(FILES[name]) if not is_in(module, ALLOWED[rule] | LEAVES)]
    assert not wrong, f"{name} imports {', '.join(wrong)}"


def test_leaves_import_nothing_of_the_project() -> None:
    for name in LEAVES:
        assert not list(imports_of(FILES[name]))


def test_nothing_imports_the_command_line() -> None:
    importers = {name for name, path in FILES.items() if "cli" in imports_of(path)}
    assert importers == {"__main__"}

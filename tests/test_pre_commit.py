"""What runs before a commit is what scripts/test runs, with tools that are installed already."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HOOKS = [
    (repository, hook)
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
]


def test_nothing_is_fetched() -> None:
    assert HOOKS
    for repository, hook in HOOKS:
        assert repository["repo"] == "local"
        assert hook["language"] == "system"


def test_every_check_of_the_script_is_a_hook() -> None:
    entries = [hook["entry"] for _, hook in HOOKS]
    script = (ROOT / "scripts" / "test").read_text()
    checks = [
        line.split("-m ")[1].split()
        for line in script.splitlines()
        if " -m ruff" in line or " -m mypy" in line
    ]
    assert len(checks) == 3
    for tool, *rest in checks:
        subcommand = [word for word in rest[:1] if not word.startswith(("-", "."))]
        assert any(entry.split()[: 1 + len(subcommand)] == [tool, *subcommand] for entry in entries), tool

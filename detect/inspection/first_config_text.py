"""A `FirstConfig` as commented YAML, and as the ten lines that `detect init` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from detect.inspection.first_config import FirstConfig

COLUMN = 15
LONG_S = 3600.0
"""A training this long is worth a word on how to shorten it."""


def config_text(config: FirstConfig, path: Path) -> str:
    """The file that `detect fit --config PATH` takes as it is."""
    lines = [
        f"# A first configuration for {config.root.absolute().name}, written by `detect init`.",
        f"# {config.data_line}.",
        f"# detect fit --config {path}",
        f"# Start: {config.reasons['start']}.",
        "# Every value may be changed, here or on the command line (--trainer.max_epochs 60);",
        "# docs/configuration.md has them all.",
        "seed_everything: 0",
    ]
    for section in ("model", "data", "trainer"):
        lines.append(f"{section}:")
        for key, value in getattr(config, section).items():
            lines += _entry(key, value, config.reasons.get(f"{section}.{key}"))
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, reason: str | None) -> Iterator[str]:
    """A key with its value; its reason stands above."""
    if reason is not None:
        yield f"  # {reason}"
    if isinstance(value, dict) and "class_path" in value:
        yield f"  {key}:"
        yield from (f"    {name}: {_flow(one)}" for name, one in value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"  {key}:"
        for entry in value:
            for number, (name, one) in enumerate(entry.items()):
                yield f"    {'  ' if number else '- '}{name}: {_flow(one)}"
    else:
        yield f"  {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def summary(config: FirstConfig, path: Path) -> list[str]:
    """What was chosen and why, one line each, and the next commands."""
    side, rate = config.model["image_size"][0], config.model["optimizer"]["init_args"]["lr"]
    scales = config.model["anchors"].get("scales")
    rows = {
        "data": config.data_line,
        "start": config.reasons["start"],
        "backbone": config.reasons["model.backbone"],
        "input": f"{side} x {side}: {config.reasons['model.image_size']}",
        "anchors": (f"scales {scales}: " if scales else "") + config.reasons["model.anchors"],
        "augmentations": config.reasons["data.augmentations"],
        "steps": f"{config.data['total_batch_size']} images each, learning rate {rate}, warm-up "
        f"{config.model['schedule']['warmup_steps']} steps; {config.reasons['trainer.max_epochs']}",
        "time": f"{config.time} (measured on this machine){_shorter(config)}",
        "written": str(path),
        "next": f"detect data check {config.root} --config {path}",
        "": f"detect fit --config {path}",
    }
    return [f"{name:{COLUMN}}{text}" for name, text in rows.items()]


def _shorter(config: FirstConfig) -> str:
    """What would take less, where that is long and there is a smaller network."""
    arguments = config.model["backbone"]["init_args"]
    if config.time.seconds < LONG_S or arguments.get("size") == "small":
        return ""
    return "; with --for phone less than half of it"

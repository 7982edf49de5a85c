"""S/found.yaml: the configuration of the start with the widths that were found; it reads as Table 1."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from detect.search.state import SearchState
from detect.search.widths import REPLACED, with_widths
from detect.system.files import write_atomically

LINE_WIDTH = 120


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Lists of plain values on one line: a row of a table is a line."""


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    plain = not any(isinstance(value, list | dict) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


_Dumper.add_representer(list, _represent_list)


def write_found(path: Path, config: dict[str, Any], start: dict[str, Any], state: SearchState) -> Path:
    """Write the configuration of the network that a search has found; returns `path`.

    Args:
        path: where to.
        config: of the start, plain values of a file of `detect fit`.
        start: settings of its network that state every width.
        state: of the search.
    """
    current = state.current
    header = (
        f"# Found by detect search in {current.number} steps: {current.measured_ms:.2f} ms, the start "
        f"{state.start_ms:.2f} ms, wanted {state.target_ms:.2f} ms\n"
        f"# ({', '.join(str(state.settings[name]) for name in ('runtime', 'precision'))}, "
        f"{state.settings['threads']} thread(s)). Rows are [kernel, expansion, out, SE, NL, stride].\n"
    )
    write_config(path, found_config(config, with_widths(start, current.widths)), header)
    return path


def write_config(path: Path, config: dict[str, Any], header: str) -> None:
    """Write a configuration of `detect fit`, a row of its table on a line, under comments on what it is."""
    text = yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=LINE_WIDTH, allow_unicode=True)
    header += f"# detect fit --config {path.name} --data.root path/to/data trains it from scratch.\n"
    write_atomically(path, header + text)


def found_config(config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the widths of other settings.

    Args:
        config: of the start. Its `init_from` is left out: the widths are others.
        found: a `model:` section that states every width.
    """
    config = deepcopy(config)
    model = config["model"]
    model.pop("init_from", None)
    given = model["backbone"].get("init_args") or {} if isinstance(model["backbone"], dict) else {}
    stated = found["backbone"]["init_args"]
    widths = {key: stated[key] for key in ("stem", "rows", "last") if key in stated}
    kept = {key: value for key, value in given.items() if key not in (*REPLACED, *widths)}
    model["backbone"] = {"class_path": found["backbone"]["class_path"], "init_args": {**kept, **widths}}
    if found.get("neck") is not None:
        model["neck"] = found["neck"]
    model["extra_levels"] = [list(level) for level in found["extra_levels"]]
    return config

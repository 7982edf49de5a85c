"""S/search.json: all that a search has done, written whole after every proposal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from detect.errors import InputError
from detect.search.widths import Widths
from detect.system.files import write_atomically

STATE_FILE = "search.json"
FORMAT_VERSION = 1


class Proposal(NamedTuple):
    """A width that was made smaller, trained and scored."""

    name: str
    channels: int
    predicted: float
    """Of the resource: ms, or multiply-adds."""
    accuracy: float
    """MAP on the images that no trial is shown."""
    seconds: float


class Step(NamedTuple):
    """A step of a search; what follows `proposals` is known once one of them is accepted."""

    number: int
    """From 1; 0 is the start."""
    widths: Widths
    """Of the network that it ended with; before that, the one that it began with."""
    target: float
    """Of the resource."""
    proposals: list[Proposal]
    accepted: str | None = None
    predicted_ms: float | None = None
    """None at the start, and where the resource is no latency."""
    measured_ms: float = 0.0
    accuracy: float = 0.0
    value: float = 0.0
    """Of the resource: as measured, or as counted."""

    @property
    def before(self) -> Widths:
        """The widths that an unfinished step began with."""
        return self.widths

    @property
    def error(self) -> float | None:
        """Of the predicted latency, as a fraction of what was measured."""
        return None if self.predicted_ms is None else abs(self.predicted_ms / self.measured_ms - 1)


@dataclass
class SearchState:
    """What a search has done.

    Args:
        path: of the file.
        settings: what the search was begun with; another is refused.
        start_ms: measured latency of the start.
        target_ms: the latency that is wanted.
        ratio: share of the start that the first step takes less.
    """

    path: Path
    settings: dict[str, Any]
    start_ms: float
    target_ms: float
    ratio: float
    steps: list[Step] = field(default_factory=list)
    """Finished; the start first."""
    unfinished: Step | None = None
    planned: int = 0
    """Proposals of the unfinished step."""

    @property
    def current(self) -> Step:
        """The last finished step."""
        return self.steps[-1]

    @property
    def errors(self) -> list[float]:
        """Of the predicted latency of each accepted network."""
        return [step.error for step in self.steps if step.error is not None]

    @property
    def median_error(self) -> float | None:
        """None: nothing was predicted yet."""
        return median(self.errors) if self.errors else None

    def write(self) -> None:
        """Write everything whole or not at all."""
        content = {
            "format_version": FORMAT_VERSION,
            "settings": self.settings,
            "start_ms": self.start_ms,
            "target_ms": self.target_ms,
            "ratio": self.ratio,
            "planned": self.planned,
            "median_error": self.median_error,
            "steps": [_plain(step) for step in self.steps],
            "unfinished": None if self.unfinished is None else _plain(self.unfinished),
        }
        write_atomically(self.path, json.dumps(content, indent=1) + "\n")


def _plain(step: Step) -> dict[str, Any]:
    proposals = [proposal._asdict() for proposal in step.proposals]
    return {**step._asdict(), "proposals": proposals, "error": step.error}


def read_state(path: Path) -> SearchState | None:
    """The state in a file; None where there is none.

    Raises:
        InputError: it is no state of this version.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise InputError(f"{path} is of another version of detect: give another --out")
        unfinished = content["unfinished"]
        return SearchState(
            path,
            content["settings"],
            content["start_ms"],
            content["target_ms"],
            content["ratio"],
            [_step(step) for step in content["steps"]],
            None if unfinished is None else _step(unfinished),
            content["planned"],
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as the state of a search ({error!r}): give another --out"
        ) from error


def _step(content: dict[str, Any]) -> Step:
    values = {key: value for key, value in content.items() if key != "error"}
    return Step(**{**values, "proposals": [Proposal(**proposal) for proposal in content["proposals"]]})


def refuse_other_settings(state: SearchState, settings: dict[str, Any]) -> None:
    """Stop where a search would be resumed with other settings.

    Raises:
        InputError: names them.
    """
    was = state.settings
    other = [name for name in sorted(was | settings) if was.get(name) != settings.get(name)]
    if other:
        named = ", ".join(f"{name} {was.get(name)} (now {settings.get(name)})" for name in other)
        raise InputError(
            f"{state.path.parent} holds a search with other settings: {named}. Give the same ones to resume "
            "it, or another --out"
        )

"""Latency over the widths of a network, and what it predicts for others; read without torch.

Isolated layers do not add up to a network: so every point is the whole network with one width changed, over
the network that the search starts from, in the same rounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from detect.errors import InputError
from detect.system.files import write_atomically

FORMAT_VERSION = 1
OTHER_MACHINE = "--other_machine"
KEY_DIGITS = 16


@dataclass(frozen=True)
class Setting:
    """What a latency belongs to: the machine, the runtime and how it runs a network."""

    cpu: str
    cores: int
    system: str
    """Of the machine: Linux x86_64."""
    runtime: str
    version: str
    """Of the runtime's package."""
    precision: str
    threads: int
    image_size: tuple[int, int]
    """(H, W) of the input in px."""
    clock: str
    """Wall time, or processor time."""

    @property
    def key(self) -> str:
        """A hash: two tables with the same key can be used in place of each other."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:KEY_DIGITS]

    def differences(self, other: Setting) -> list[str]:
        """What is not the same, in words: this one's, then the other's."""
        theirs = asdict(other)
        pairs = [(name, value, theirs[name]) for name, value in asdict(self).items()]
        return [f"{name} {value}, here {there}" for name, value, there in pairs if value != there]


class Point(NamedTuple):
    """The whole network with one width changed, over the start in the same rounds."""

    channels: int
    ratio: float
    """Median over the rounds of its time over that of the start."""
    low: float
    """5th percentile over the rounds."""
    high: float
    """95th percentile over the rounds."""


class Check(NamedTuple):
    """A network with several widths changed: what was predicted and what was measured."""

    widths: dict[str, int]
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Of the prediction, as a fraction of what was measured."""
        return abs(self.predicted_ms / self.measured_ms - 1)


@dataclass(frozen=True)
class LatencyTable:
    """Latency over widths, for one network in one setting."""

    setting: Setting
    network: dict[str, Any]
    """The start: a `model:` section with every width stated."""
    start: dict[str, int]
    """Its widths, by the names of `detect.search.widths`."""
    rounds: int
    whole_ms: dict[str, float] = field(default_factory=dict)
    """Median time of the start beside each width's networks: a spread over the time that it took."""
    points: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """Of each width that is measured, by channels; the start itself is not among them."""
    checks: tuple[Check, ...] = ()

    @property
    def start_ms(self) -> float:
        """Latency of the start."""
        return median(self.whole_ms.values())

    @property
    def missing(self) -> list[str]:
        """Widths that are not measured yet."""
        return [name for name in self.start if name not in self.points]

    @property
    def median_error(self) -> float:
        """Of the predictions that were checked, as a fraction of what was measured."""
        return median(check.error for check in self.checks)

    def difference_ms(self, name: str, channels: int) -> float:
        """What the network gains or loses by one width, interpolated between the points.

        Raises:
            InputError: the width is not in the table, or so many channels lie outside of its points.
        """
        if name not in self.points:
            known = ", ".join(self.points)
            raise InputError(f"the latency table has no width {name}; it has {known}")
        known_ratios = {point.channels: point.ratio for point in self.points[name]} | {self.start[name]: 1.0}
        places = sorted(known_ratios)
        if not places[0] <= channels <= places[-1]:
            raise InputError(
                f"{name}: {channels} channels; the latency table has {places[0]} to {places[-1]}"
            )
        above = next(place for place in places if place >= channels)
        below = max((place for place in places if place <= channels), default=above)
        share = 0.0 if above == below else (channels - below) / (above - below)
        ratio = known_ratios[below] * (1 - share) + known_ratios[above] * share
        return (ratio - 1) * self.start_ms

    def predict(self, widths: Mapping[str, int]) -> float:
        """Latency in ms of the network with these widths: the start and the sum of its differences.

        Args:
            widths: by name; those that are left out are the start's.

        Raises:
            InputError: see `difference_ms`.
        """
        return self.start_ms + sum(
            self.difference_ms(name, channels)
            for name, channels in widths.items()
            if channels != self.start.get(name)
        )

    def predict_from(self, widths: Mapping[str, int], base: Mapping[str, int], base_ms: float) -> float:
        """As `predict`, from another network that was measured: errors do not add up over steps."""
        return base_ms + self.predict(widths) - self.predict(base)

    def with_points(self, name: str, points: tuple[Point, ...], whole_ms: float) -> LatencyTable:
        """The table with one width more."""
        return replace(self, points={**self.points, name: points}, whole_ms={**self.whole_ms, name: whole_ms})

    def require(self, setting: Setting, path: Path, *, other_machine: bool = False) -> None:
        """Stop where the table was measured in another setting.

        Raises:
            InputError: says what differs.
        """
        if other_machine or self.setting.key == setting.key:
            return
        raise InputError(
            f"{path} holds for another machine or setting ({'; '.join(self.setting.differences(setting))}): "
            f"latency does not carry over. Measure another table here, or read this one all the same with "
            f"{OTHER_MACHINE}"
        )

    def write(self, path: Path) -> None:
        """Write the table whole or not at all."""
        content = {"format_version": FORMAT_VERSION, "key": self.setting.key, **asdict(self)}
        content["points"] = {
            name: [point._asdict() for point in points] for name, points in self.points.items()
        }
        content["checks"] = [{**check._asdict(), "error": check.error} for check in self.checks]
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_table(path: Path) -> LatencyTable:
    """The table in a file.

    Raises:
        InputError: no such file, or it is no latency table of this version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = None if content["format_version"] != FORMAT_VERSION else _table_of(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a latency table: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no latency table ({error!r}): measure another") from error
    if table is None:
        raise InputError(f"{path} is a latency table of version {content['format_version']}: measure again")
    return table


def _table_of(content: dict[str, Any]) -> LatencyTable:
    setting = content["setting"]
    return LatencyTable(
        setting=Setting(**{**setting, "image_size": tuple(setting["image_size"])}),
        network=content["network"],
        start=content["start"],
        rounds=content["rounds"],
        whole_ms=content["whole_ms"],
        points={
            name: tuple(Point(**point) for point in points) for name, points in content["points"].items()
        },
        checks=tuple(
            Check(check["widths"], check["predicted_ms"], check["measured_ms"]) for check in content["checks"]
        ),
    )

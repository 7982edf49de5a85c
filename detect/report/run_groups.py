"""Runs of one configuration under several seeds, taken together: mean, spread, and differences that hold."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.evaluation.average_precision import WeightedAp
from detect.evaluation.bootstrap import RESAMPLES, Difference, compare_groups, draw_weights, resampled_map
from detect.inspection.models import Model
from detect.report.run_files import RunFiles
from detect.report.scored_files import Scored

NOT_SETTINGS = (
    *("seed_everything", "out", "ckpt_path", "config", "data.seed"),
    *("checkpoint_minutes", "data.cache", "data.prefetch", "data.workers"),
    *("trainer.enable_progress_bar", "trainer.logger"),
)
"""Keys of config.yaml in which runs of one configuration may differ: the seed, and what moves no weight."""
SEED_SUFFIX = re.compile(r"[-_.]?(seed)?[-_.]?\d+$")


@dataclass(frozen=True)
class RunGroup:
    """Runs whose configurations differ in the seed alone."""

    name: str
    runs: tuple[RunFiles, ...]
    settings: dict[str, Any]
    """The configuration without the seed, keys with dots."""
    model: Model | None

    def values(self, metric: str) -> list[float]:
        """The metric of every run that was scored and has it."""
        values = [(run.metrics or {}).get(metric, -1.0) for run in self.runs]
        return [value for value in values if isinstance(value, int | float) and value >= 0]

    def mean(self, metric: str) -> float | None:
        """Over the seeds; None where no run has the metric."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Standard deviation over the seeds; None with fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def curve(self, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(epochs, mean over the seeds that have the epoch) of a column of metrics.csv."""
        by_epoch: dict[float, list[float]] = {}
        for run in self.runs:
            for epoch, value in zip(run.curves.get("epoch", []), run.curves.get(column, []), strict=False):
                if np.isfinite(value):
                    by_epoch.setdefault(float(epoch), []).append(float(value))
        epochs = sorted(by_epoch)
        return np.array(epochs), np.array([statistics.fmean(by_epoch[epoch]) for epoch in epochs])


def group_runs(runs: Sequence[tuple[RunFiles, Model | None]]) -> list[RunGroup]:
    """Put runs of one configuration together, in the order in which they were given."""
    groups: dict[str, list[tuple[RunFiles, Model | None]]] = {}
    for run, model in runs:
        settings = flat_settings(run.config)
        key = json.dumps(settings, sort_keys=True, default=str) if settings else str(run.folder.absolute())
        groups.setdefault(key, []).append((run, model))
    names = unique_names([[run.folder for run, _ in members] for members in groups.values()])
    return [
        RunGroup(name, tuple(run for run, _ in members), flat_settings(members[0][0].config), members[0][1])
        for name, members in zip(names, groups.values(), strict=True)
    ]


def unique_names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """A name per group: its folder's, without the seed where it has several; longer where two are alike."""
    for parts in range(1, 20):
        names = []
        for folders in groups:
            name = str(Path(*folders[0].absolute().parts[-parts:]))
            names.append(SEED_SUFFIX.sub("", name) or name if len(folders) > 1 else name)
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def flat_settings(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with dotted keys, without what belongs to a seed or a place."""
    return {key: value for key, value in _flat(config, "") if key not in NOT_SETTINGS}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value


def differing_settings(groups: Sequence[RunGroup]) -> dict[str, list[Any]]:
    """Keys that are not the same in all groups, with the value of each; None where a group lacks it."""
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    values = {key: [group.settings.get(key) for group in groups] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


class Pair(NamedTuple):
    """The difference of two groups, or why it is not known."""

    first: RunGroup
    second: RunGroup
    difference: Difference | None
    reason: str
    """Empty where the difference is known."""


def compare_pairs(groups: Sequence[RunGroup], *, resamples: int = RESAMPLES) -> list[Pair]:
    """The second's mAP minus the first's for every two groups, by a paired bootstrap of images and seeds."""
    samples: dict[str, NDArray[np.float64]] = {}
    full: dict[str, float] = {}
    splits: dict[str, str] = {}
    for run in (run for group in groups for run in group.runs):
        if (scored := run.scored) is None:
            continue
        key = str(run.folder)
        ap = WeightedAp(*scored)
        images = len(scored.annotations)
        splits[key] = fingerprint(scored)
        full[key] = float(ap.mean(np.ones((1, images)))[0])
        samples[key] = resampled_map(ap, draw_weights(images, resamples=resamples))

    def pair(first: RunGroup, second: RunGroup) -> Pair:
        keys = [
            [str(run.folder) for run in group.runs if run.scored is not None] for group in (first, second)
        ]
        if not all(keys):
            missing = first if not keys[0] else second
            return Pair(
                first, second, None, f"{missing.name} has no detections.json: run detect report on it"
            )
        if len({splits[key] for own in keys for key in own}) > 1:
            return Pair(first, second, None, "scored on different images or boxes")
        if any(np.isnan(full[key]) for own in keys for key in own):
            return Pair(first, second, None, "the split has no boxes")
        one, two = ([samples[key] for key in own] for own in keys)
        of_all = ([full[key] for key in keys[0]], [full[key] for key in keys[1]])
        return Pair(first, second, compare_groups(one, two, full=of_all), "")

    return [pair(first, second) for first, second in combinations(groups, 2)]


def fingerprint(scored: Scored) -> str:
    """The same for two runs that were scored on the same images and boxes in the same order."""
    annotations = scored.annotations
    digest = hashlib.sha256(repr(annotations.classes.names).encode())
    for array in (annotations.image_ids, annotations.offsets, annotations.labels, annotations.ignore):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(annotations.boxes.round(3).tobytes())
    return digest.hexdigest()

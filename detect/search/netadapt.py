"""NetAdapt: a network is made narrower step by step, each time where a little time costs the least accuracy.

Source: NetAdapt (arXiv 1804.03230) algorithm 1; proposals and choice as in "Searching for MobileNetV3" (arXiv
1905.02244) section 4.2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from detect.model.checkpoint import read_checkpoint, write_checkpoint
from detect.model.counts import count
from detect.search.latency_table import LatencyTable
from detect.search.networks import structure
from detect.search.proposals import Outcome, Task, Trainer
from detect.search.state import Proposal, SearchState, Step
from detect.search.widths import STEP, Widths, build_shapes, widths_of, with_widths

Proposing = Literal["netadapt", "random"]
ResourceName = Literal["latency", "madds"]


class Resource(Protocol):
    """What every step takes less of: milliseconds that a table predicts, or multiply-adds."""

    def predict(self, widths: Widths, *, base: Widths, base_value: float) -> float:
        """Of a network, from another of which it is known."""

    def lowest(self, name: str) -> int:
        """The fewest channels of a width that can be predicted."""


class Latency:
    """Milliseconds, by the differences of a table from the network that was measured last."""

    def __init__(self, table: LatencyTable) -> None:
        self.table = table

    def predict(self, widths: Widths, *, base: Widths, base_value: float) -> float:
        """See `Resource`."""
        return self.table.predict_from(widths, base, base_value)

    def lowest(self, name: str) -> int:
        """See `Resource`."""
        points = self.table.points.get(name, ())
        return min((point.channels for point in points), default=self.table.start[name])


class MultiplyAdds:
    """Multiply-adds, counted exactly; a search by latency is compared with one by these.

    Args:
        start: settings that state every width.
        least: share of each width that is its smallest.
    """

    def __init__(self, start: dict[str, Any], *, least: float) -> None:
        self.start, self.least = start, least
        self._count = cache(lambda items: self._counted(dict(items)))
        self._widths = widths_of(start)

    def predict(self, widths: Widths, *, base: Widths, base_value: float) -> float:
        """See `Resource`."""
        return float(self._count(tuple(sorted(widths.items()))))

    def lowest(self, name: str) -> int:
        """See `Resource`."""
        return max(STEP, round(self.least * self._widths[name] / STEP) * STEP)

    def _counted(self, widths: Widths) -> int:
        net = build_shapes(with_widths(self.start, widths))
        return count(net, net.image_size).madds


@dataclass(frozen=True)
class NetAdaptOptions:
    """How the search goes."""

    target_ms: float
    ratio: float = 0.03
    """What the first step takes less, as a share of the start."""
    decay: float = 0.96
    """What each later step takes less, as a share of the step before it."""
    step_channels: int = STEP
    proposals: Proposing = "netadapt"
    resource: ResourceName = "latency"
    seed: int = 0

    def reduction(self, step: int) -> float:
        """Share of the start that step 1, 2, ... takes less."""
        return self.ratio * self.decay ** (step - 1)


def steps_needed(share: float, *, ratio: float, decay: float) -> int | None:
    """Steps until `share` of the start is taken away; None: they never reach it."""
    rest = 1 - share * (1 - decay) / ratio if decay < 1 else None
    if rest is None:
        return max(1, int(np.ceil(share / ratio - 1e-9)))
    return max(1, int(np.ceil(np.log(rest) / np.log(decay) - 1e-9))) if rest > 0 else None


def ratio_for(share: float, steps: int, *, decay: float) -> float:
    """The first step's share, so that `steps` steps take `share` of the start away."""
    return share / sum(decay**i for i in range(steps))


class Candidate(NamedTuple):
    """A width to make smaller in a step, not yet trained."""

    name: str
    channels: int
    predicted: float


class Search:
    """One search in a folder; what is done is on disk, and a new one of the same folder resumes.

    Args:
        folder: holds `state` and the networks.
        start: settings that state every width.
        state: what is done.
        options: how it goes.
        trainer: trains and scores.
        resource: what every step takes less of.
        measure: latencies in ms of networks by their settings, the start's first.
        tell: is told what happened, with the state as it then is on disk.
    """

    def __init__(
        self,
        folder: Path,
        start: dict[str, Any],
        state: SearchState,
        options: NetAdaptOptions,
        trainer: Trainer,
        resource: Resource,
        *,
        measure: Callable[[dict[str, Any]], float],
        tell: Callable[[SearchState], None] = lambda state: None,
    ) -> None:
        self.folder, self.start, self.state, self.options = folder, start, state, options
        self.trainer, self.resource, self.measure, self.tell = trainer, resource, measure, tell

    def run(self) -> None:
        """Continue until the network is as fast as wanted, or nothing can be made smaller.

        Raises:
            RunStopped: the trainer's `stop` says so; everything that is done is on disk.
        """
        if not self.state.steps:
            self._first()
        self._remove_leftovers()
        while self.state.current.measured_ms > self.options.target_ms and self._step():
            pass

    def network_file(self, step: int) -> Path:
        """The checkpoint of the network that a step ended with; of 0, the start."""
        return self.folder / "networks" / f"{step:03d}.ckpt"

    def _proposal_file(self, step: int, name: str) -> Path:
        return self.folder / "networks" / f"{step:03d}-{name}.ckpt"

    def _first(self) -> None:
        """Score and measure the start."""
        ((_, outcome),) = self.trainer.run([Task(0, self.start, self.network_file(0), None)])
        widths = widths_of(self.start)
        value = self.resource.predict(widths, base=widths, base_value=self.state.start_ms)
        self.state.steps.append(
            Step(0, widths, value, [], None, None, self.state.start_ms, outcome.accuracy, value)
        )
        self._save()

    def _step(self) -> bool:
        """One step; False: no width can be made small enough."""
        current = self.state.current
        number = current.number + 1
        if self.state.unfinished is None or self.state.unfinished.number != number:
            self.state.unfinished = Step(number, current.widths, self._target(number), [])
        step = self.state.unfinished
        candidates = self.candidates(step)
        if self.options.proposals == "random" and candidates:
            rng = np.random.default_rng((self.options.seed, number))
            candidates = [candidates[rng.integers(len(candidates))]]
        if not candidates:
            return False
        self.state.planned = len(candidates)
        known = {proposal.name for proposal in step.proposals}
        candidates = [candidate for candidate in candidates if candidate.name not in known]
        wide, wide_file = self._settings(current.widths), self.network_file(current.number)
        tasks = [
            Task(number, wide, wide_file, self._settings({**current.widths, name: channels}))
            for name, channels, _ in candidates
        ]
        for place, outcome in self.trainer.run(tasks):
            self._note(step, candidates[place], outcome)
        self._accept(step)
        return True

    def _target(self, number: int) -> float:
        """Of the resource in a step: never less than what is needed in the end."""
        current, first = self.state.current, self.state.steps[0]
        wanted = current.value - self.options.reduction(number) * first.value
        return max(wanted, current.value * self.options.target_ms / current.measured_ms)

    def candidates(self, step: Step) -> list[Candidate]:
        """For each width the largest value below its present one that meets the step's target.

        It is found by bisection: less channels are taken to be faster.
        """
        current = self.state.current
        found = []
        for name, channels in current.widths.items():
            by = self.options.step_channels
            values = [v for v in range((channels - 1) // by * by, 0, -by) if v >= self.resource.lowest(name)]

            def predicted(value: int, name: str = name) -> float:
                widths = {**current.widths, name: value}
                return self.resource.predict(widths, base=current.widths, base_value=current.value)

            # From the widest on: the first that is as small as the target wants.
            place = bisect_left(values, -step.target, key=lambda value: -predicted(value))
            for value in values[place:]:
                if predicted(value) <= step.target and self._same_layers({**current.widths, name: value}):
                    found.append(Candidate(name, value, predicted(value)))
                    break
        return found

    def _same_layers(self, widths: Widths) -> bool:
        """Whether no residual or expansion appears or goes where widths become or are no longer the same."""
        return structure(self._settings(widths)) == structure(self.start)

    def _settings(self, widths: Widths) -> dict[str, Any]:
        return with_widths(self.start, widths)

    def _note(self, step: Step, candidate: Candidate, outcome: Outcome) -> None:
        """Note one proposal, and keep its network where it is the best so far."""
        step.proposals.append(Proposal(*candidate, outcome.accuracy, outcome.seconds))
        if self._best(step) is step.proposals[-1]:
            write_checkpoint(self._proposal_file(step.number, candidate.name), outcome.content)
        self._save()
        self._remove_leftovers()

    def _best(self, step: Step) -> Proposal | None:
        """The proposal that loses the least accuracy per latency; of equal ones the first of the network."""
        current = self.state.current
        return max(
            in_order(step),
            key=lambda p: (p.accuracy - current.accuracy) / (current.value - p.predicted),
            default=None,
        )

    def _accept(self, step: Step) -> None:
        """Measure the best proposal's network and continue with it."""
        best = self._best(step)
        assert best is not None
        widths = {**step.before, best.name: best.channels}
        measured = self.measure(self._settings(widths))
        by_latency = self.options.resource == "latency"
        done = step._replace(
            widths=widths,
            proposals=in_order(step),
            accepted=best.name,
            predicted_ms=best.predicted if by_latency else None,
            measured_ms=measured,
            accuracy=best.accuracy,
            value=measured if by_latency else best.predicted,
        )
        kept = self._proposal_file(step.number, best.name)
        content = read_checkpoint(kept).raw
        write_checkpoint(self.network_file(step.number), content)
        self.state.steps.append(done)
        self.state.unfinished = None
        self._save()
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove networks that nothing continues: losers, and those of a search that was killed."""
        wanted = {self.network_file(0), self.network_file(self.state.current.number)}
        step = self.state.unfinished
        if step is not None and (best := self._best(step)) is not None:
            wanted.add(self._proposal_file(step.number, best.name))
        for path in self.network_file(0).parent.glob("*.ckpt"):
            if path not in wanted:
                path.unlink()

    def _save(self) -> None:
        self.state.write()
        self.tell(self.state)


def in_order(step: Step) -> list[Proposal]:
    """The proposals in the order of the network, whichever was finished first."""
    order = list(step.before)
    return sorted(step.proposals, key=lambda proposal: order.index(proposal.name))

"""What a person sees while a search runs: a line for every proposal and step, and the time that is left."""

from __future__ import annotations

from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from detect.evaluation.metrics import show_metric
from detect.search.netadapt import steps_needed
from detect.search.state import Proposal, SearchState, Step

SECONDS_PER_MINUTE = 60
LEAST_ACCURACY = 0.05
"""MAP of a start, below which a search sees nothing."""


class SearchProgress:
    """Told of every change of a search's state; a bar on a terminal, lines in a file.

    Args:
        unit: of the resource: "ms" or "M MAdds".
        scale: of its values to that unit.
        decay: of the search.
        workers: proposals that are trained at the same time.
    """

    def __init__(self, *, unit: str, scale: float, decay: float, workers: int) -> None:
        self.unit, self.scale, self.decay, self.workers = unit, scale, decay, workers
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), console=self.console, transient=True
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, state: SearchState) -> None:
        """Show what the last change was."""
        step = state.unfinished
        if step is not None:
            self.console.print(self._proposal(state, step, step.proposals[-1]))
        elif state.current.number == 0:
            self.console.print(f"start: {self._network(state.current)}; wanted {state.target_ms:.2f} ms")
            if state.current.accuracy < LEAST_ACCURACY:
                self.console.print(
                    "WARNING: the start has learnt hardly anything: differences of proposals are chance. "
                    "Train it longer first"
                )
        else:
            self.console.print(self._step(state))
        done, left, minutes = remaining(state, decay=self.decay, workers=self.workers)
        current = state.current
        words = f"step {current.number + 1}: now {self._network(current)}, {minutes} left"
        self._bar.update(self._task, description=words, completed=done, total=done + left)

    def _proposal(self, state: SearchState, step: Step, proposal: Proposal) -> str:
        name, before = proposal.name, step.widths[proposal.name]
        change = proposal.accuracy - state.current.accuracy
        return (
            f"  step {step.number}, {len(step.proposals)} of {state.planned}: {name} {before} -> "
            f"{proposal.channels}, predicted {proposal.predicted * self.scale:.2f} {self.unit}, mAP "
            f"{show_metric(proposal.accuracy)} ({change:+.3f}), {proposal.seconds:.0f} s"
        )

    def _step(self, state: SearchState) -> str:
        before, step = state.steps[-2], state.current
        assert step.accepted is not None
        error = "" if step.error is None else f" (predicted {step.predicted_ms:.2f}, error {step.error:.1%})"
        return (
            f"step {step.number}: {step.accepted} {before.widths[step.accepted]} -> "
            f"{step.widths[step.accepted]}: {self._network(step)}{error}; about "
            f"{remaining(state, decay=self.decay, workers=self.workers)[2]} left"
        )

    def _network(self, step: Step) -> str:
        return f"{step.measured_ms:.2f} ms, mAP {show_metric(step.accuracy)} on held-out images"


def remaining(state: SearchState, *, decay: float, workers: int = 1) -> tuple[int, int, str]:
    """Proposals that are done, about how many are left, and the minutes that these will take in words."""
    done = [proposal for step in state.steps for proposal in step.proposals]
    current = state.current
    per_step = max(1, state.planned)
    share = (current.measured_ms - state.target_ms) / state.start_ms
    ratio = state.ratio * decay**current.number
    steps = 0 if share <= 0 else steps_needed(share, ratio=ratio, decay=decay) or 1
    left = steps * per_step
    if state.unfinished is not None:
        done += state.unfinished.proposals
        left = max(0, left - len(state.unfinished.proposals))
    if not done:
        return 0, left, "an unknown time"
    seconds = left * fmean(proposal.seconds for proposal in done) / workers
    return len(done), left, f"{seconds / SECONDS_PER_MINUTE:.0f} min"

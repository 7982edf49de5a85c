"""S/search.html: the path of a search, what it tried, and how far its predictions were from the clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from detect.evaluation.metrics import show_metric
from detect.report.html import DASH, write_page
from detect.report.plots import Colours, Draw, Plot, plot
from detect.search.latency_table import LatencyTable, Setting
from detect.search.state import SearchState, Step

PAGE = "search.html"
PATH_INCHES = (5.2, 4.2)
BARS_INCHES = 5.2
BAR_INCHES = 0.22
LETTER_SHARE = 0.02
"""Width of a letter behind a bar, as a share of the axes."""


class Tried(NamedTuple):
    """A network that was scored: one that a step ended with, or a proposal."""

    latency_ms: float
    accuracy: float
    label: str
    measured: bool


def write_search_page(folder: Path, state: SearchState | None, table: LatencyTable) -> None:
    """Write the page of a search that is finished, stopped or under way.

    Args:
        folder: of the search.
        state: null: nothing is scored yet, and no page is written.
        table: of latencies, for the machine and the runtime.
    """
    if state is None or not state.steps:
        return
    values = {
        "title": f"Search of {folder.absolute().name}",
        "subtitle": subtitle(table.setting),
        "notices": notices_of(state),
        "facts": facts_of(state),
        "path": [plot("Accuracy against latency", draw_path(state), size=PATH_INCHES)],
        "front": front_rows(state),
        "predictions": [plot("Predicted against measured", draw_predictions(state))] if state.errors else [],
        "prediction_rows": prediction_rows(state),
        "widths": [widths_plot(state)],
        "steps": [(heading(state, i), proposal_rows(state, i)) for i in range(1, len(state.steps))],
        "headings": (
            "width",
            "channels",
            f"predicted {unit_of(state)[0]}",
            "mAP",
            "change of mAP",
            "seconds",
            "",
        ),
        "settings": [(name, str(value)) for name, value in state.settings.items() if value is not None],
    }
    write_page(folder / PAGE, PAGE, values)


def subtitle(setting: Setting) -> str:
    """In what latency was measured."""
    return (
        f"{setting.runtime} {setting.version}, {setting.precision}, {setting.threads} thread(s), "
        f"input {setting.image_size[0]} x {setting.image_size[1]} px; {setting.cpu}"
    )


def unit_of(state: SearchState) -> tuple[str, float]:
    """Unit of the resource, and the factor that brings its values to it."""
    return ("ms", 1.0) if state.settings.get("resource", "latency") == "latency" else ("M MAdds", 1e-6)


def in_percent(fraction: float | None) -> str:
    """A share in percent with a digit; a dash for none."""
    return DASH if fraction is None else f"{fraction:.1%}"


def facts_of(state: SearchState) -> list[tuple[str, str]]:
    """The figures of the present network, with their names."""
    current = state.current
    return [
        ("latency, ms", f"{current.measured_ms:.2f}"),
        ("start, ms", f"{state.start_ms:.2f}"),
        ("wanted, ms", f"{state.target_ms:.2f}"),
        ("mAP on held-out images", show_metric(current.accuracy)),
        ("start's mAP", show_metric(state.steps[0].accuracy)),
        ("steps", str(current.number)),
        ("median error of predictions", in_percent(state.median_error)),
    ]


def notices_of(state: SearchState) -> list[str]:
    """What a reader must know first."""
    found = []
    if state.current.measured_ms > state.target_ms:
        found.append("The search is not finished: the network is slower than wanted.")
    if state.unfinished is not None:
        done = len(state.unfinished.proposals)
        found.append(
            f"Step {state.unfinished.number} is under way: {done} of {state.planned} proposals are scored."
        )
    return found


def tried(state: SearchState) -> list[Tried]:
    """Every network that was scored; a proposal's latency is its prediction, if that is one."""
    networks = [Tried(step.measured_ms, step.accuracy, f"step {step.number}", True) for step in state.steps]
    if unit_of(state)[0] != "ms":
        return networks
    steps = [*state.steps, *([] if state.unfinished is None else [state.unfinished])]
    for step in steps:
        networks += [
            Tried(p.predicted, p.accuracy, f"step {step.number}: {p.name} {p.channels}", False)
            for p in step.proposals
            if p.name != step.accepted
        ]
    return networks


def pareto_front(networks: list[Tried]) -> list[Tried]:
    """Networks that no faster one is as good as, from fast to slow."""
    front: list[Tried] = []
    for network in sorted(networks, key=lambda one: (one.latency_ms, -one.accuracy)):
        if not front or network.accuracy > front[-1].accuracy:
            front.append(network)
    return front


def front_rows(state: SearchState) -> list[tuple[str, ...]]:
    """The Pareto front as a table."""
    return [
        (
            one.label,
            f"{one.latency_ms:.2f}",
            "measured" if one.measured else "predicted",
            show_metric(one.accuracy),
        )
        for one in pareto_front(tried(state))
    ]


def draw_path(state: SearchState) -> Draw:
    """Steps as a line with their numbers, what was tried as dots, the front, the budget."""
    networks = tried(state)
    front = pareto_front(networks)

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        others = [one for one in networks if not one.measured]
        axes.plot(
            [one.latency_ms for one in others],
            [one.accuracy for one in others],
            ".",
            color=colours.muted,
            alpha=0.6,
            label="proposals (predicted latency)",
        )
        axes.step(
            [one.latency_ms for one in front],
            [one.accuracy for one in front],
            where="post",
            label="Pareto front",
            **colours.line(1),
        )
        latency, accuracy = ([getattr(s, name) for s in state.steps] for name in ("measured_ms", "accuracy"))
        axes.plot(latency, accuracy, marker="o", markersize=4, label="steps (measured)", **colours.line(0))
        for step in state.steps:
            place = (step.measured_ms, step.accuracy)
            axes.annotate(str(step.number), place, xytext=(3, 4), textcoords="offset points", fontsize=8)
        axes.axvline(state.target_ms, label="wanted", **colours.line(2))
        axes.set(xlabel="latency, ms", ylabel="mAP on held-out images")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    return draw


def draw_predictions(state: SearchState) -> Draw:
    """Accepted networks: predicted over measured, with the diagonal and 5 % on both sides."""
    pairs = [(step.measured_ms, step.predicted_ms) for step in state.steps if step.predicted_ms is not None]
    measured, predicted = np.array(pairs).T

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        ends = np.array([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
        axes.plot(ends, ends, color=colours.muted, linewidth=1)
        axes.fill_between(ends, 0.95 * ends, 1.05 * ends, color=colours.muted, alpha=0.15, label="within 5 %")
        axes.plot(measured, predicted, "o", markersize=4, color=colours.lines[0], label="accepted networks")
        axes.set(xlabel="measured, ms", ylabel="predicted, ms")
        axes.legend()

    return draw


def prediction_rows(state: SearchState) -> list[tuple[str, ...]]:
    """Each accepted network's latency as predicted and as measured."""
    return [
        (str(step.number), f"{step.predicted_ms:.2f}", f"{step.measured_ms:.2f}", in_percent(step.error))
        for step in state.steps
        if step.predicted_ms is not None
    ]


def widths_plot(state: SearchState) -> Plot:
    """Every width as a bar: the found one in front of the start's."""
    before, after = state.steps[0].widths, state.current.widths
    bars = [
        Bar(name, before[name], after[name], str(before[name]))
        if after[name] == before[name]
        else Bar(name, before[name], after[name], f"{before[name]} → {after[name]}")
        for name in before
    ]
    return bars_plot("Channels by block", bars, x_label="channels")


class Bar(NamedTuple):
    """Channels of a place in the network, in the start and as found; 0: it is not there."""

    name: str
    before: int
    after: int
    text: str


def bars_plot(title: str, bars: Sequence[Bar], *, x_label: str) -> Plot:
    """Start and found network by block, the found one in front."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        places = np.arange(len(bars))[::-1]
        start, found = [bar.before for bar in bars], [bar.after for bar in bars]
        axes.barh(places, start, height=0.7, color=colours.muted, alpha=0.3, label="start")
        axes.barh(places, found, height=0.4, color=colours.lines[0], label="found")
        for place, bar in zip(places, bars, strict=True):
            end = (max(bar.before, bar.after), place)
            axes.annotate(bar.text, end, xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [bar.name for bar in bars])
        axes.set_xlabel(x_label)
        text_share = min(0.7, LETTER_SHARE * max(len(bar.text) for bar in bars))
        axes.margins(x=text_share / (1 - text_share), y=0.01)
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)

    return plot(title, draw, size=(BARS_INCHES, 1 + BAR_INCHES * len(bars)))


def heading(state: SearchState, number: int) -> str:
    """What a step did, in one line."""
    before, step = state.steps[number - 1], state.steps[number]
    assert step.accepted is not None
    return (
        f"Step {step.number}: {step.accepted} {before.widths[step.accepted]} → {step.widths[step.accepted]}, "
        f"{step.measured_ms:.2f} ms, mAP {show_metric(step.accuracy)}"
    )


def proposal_rows(state: SearchState, number: int) -> list[tuple[Any, ...]]:
    """The proposals of a step, as they were tried."""
    before, step = state.steps[number - 1], state.steps[number]
    return [proposal_row(state, before, step, i) for i in range(len(step.proposals))]


def proposal_row(state: SearchState, before: Step, step: Step, i: int) -> tuple[Any, ...]:
    """One proposal; the last cell says whether it was accepted."""
    proposal, scale = step.proposals[i], unit_of(state)[1]
    return (
        proposal.name,
        f"{before.widths[proposal.name]} → {proposal.channels}",
        f"{proposal.predicted * scale:.2f}",
        show_metric(proposal.accuracy),
        f"{proposal.accuracy - before.accuracy:+.3f}",
        f"{proposal.seconds:.0f}",
        "accepted" if proposal.name == step.accepted else "",
    )

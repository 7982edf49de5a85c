"""S/search.html of a block search: trials over time, accuracy against latency, and the blocks found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detect.evaluation.metrics import show_metric
from detect.report.html import DASH, write_page
from detect.report.plots import Colours, Draw, Plot, plot
from detect.search.blocks import BlockSearch, Result
from detect.search.page import PAGE, PATH_INCHES, Bar, bars_plot, subtitle
from detect.search.space import Params

TEMPLATE = "search_blocks.html"
IN_WORDS = {"complete": "complete", "pruned": "stopped early", "failed": "failed"}
"""States of a trial."""


def write_blocks_page(folder: Path, search: BlockSearch) -> None:
    """Write the page of a search that is finished, stopped or under way.

    Args:
        folder: of the worker.
        search: with the trials of all workers.
    """
    results = search.results()
    scored = [result for result in results if result.accuracy is not None]
    if not scored:
        return
    best = search.found() if any(result.state == "complete" for result in results) else None
    start = next((result for result in scored if result.params == search.space.start), None)
    changed = [] if best is None else changed_choices(search, best.params)
    values = {
        "title": f"Search of {folder.absolute().name}",
        "subtitle": subtitle(search.setting),
        "notices": notices_of(search, best),
        "facts": facts_of(search, best, start),
        "over_time": [
            plot("Trials over time", draw_trials(search, scored), size=PATH_INCHES),
            plot("Accuracy against latency", draw_latency(search, scored, best, start), size=PATH_INCHES),
        ],
        "front": [trial_row(result, {}) for result in search.front()],
        "blocks": [] if best is None else [blocks_plot(search, best.params)],
        "choices": changed,
        "same": len(search.space.start) - len(changed),
        "trials": [trial_row(result, marks_of(best, start)) for result in results],
        "headings": ("trial", "", "mAP", "latency, ms", "reward", "seconds", ""),
        "settings": settings_of(search),
    }
    write_page(folder / PAGE, TEMPLATE, values)


def notices_of(search: BlockSearch, best: Result | None) -> list[str]:
    """What a reader must know first."""
    done = sum(result.state != "failed" for result in search.results())
    found = []
    if done < search.options.trials:
        found.append(f"The search is not finished: {done} of {search.options.trials} trials are done.")
    if best is not None and (best.latency_ms or 0.0) > search.target_ms:
        found.append("The network that was found is slower than wanted: the target of the reward is soft.")
    return found


def facts_of(search: BlockSearch, best: Result | None, start: Result | None) -> list[tuple[str, str]]:
    """The figures of the best trial beside the start's."""
    facts = [("trials", str(len(search.results())))]
    if best is not None:
        facts += [("found in trial", str(best.number)), ("its mAP", show_metric(best.accuracy))]
        facts.append(("its latency, ms", f"{best.latency_ms:.2f}"))
    if start is not None:
        facts.append(("start's mAP", show_metric(start.accuracy)))
    return [*facts, ("start, ms", f"{search.start_ms:.2f}"), ("wanted, ms", f"{search.target_ms:.2f}")]


def draw_trials(search: BlockSearch, scored: Sequence[Result]) -> Draw:
    """The goal of every trial in the order of their numbers, and the best so far."""
    by_reward = search.options.goal == "reward"

    def value(result: Result) -> float:
        return (result.reward if by_reward else result.accuracy) or 0.0

    done = [result for result in scored if result.state == "complete"]
    best = [max(value(one) for one in done[: i + 1]) for i in range(len(done))]

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        ended_early = [result for result in scored if result.state != "complete"]
        numbers = [result.number for result in ended_early]
        axes.plot(numbers, [*map(value, ended_early)], "x", color=colours.muted, label="ended early")
        numbers = [result.number for result in done]
        axes.plot(numbers, [*map(value, done)], ".", color=colours.lines[0], label="complete")
        axes.step(numbers, best, where="post", label="best so far", **colours.line(1))
        axes.set(xlabel="trial", ylabel="reward" if by_reward else "mAP on held-out images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)

    return draw


def draw_latency(
    search: BlockSearch, scored: Sequence[Result], best: Result | None, start: Result | None
) -> Draw:
    """All trials, the Pareto front, the start, what was found and the budget."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()

        def dots(results: Sequence[Result], mark: str, label: str, colour: str, size: float = 6) -> None:
            places = [[getattr(r, name) for r in results] for name in ("latency_ms", "accuracy")]
            axes.plot(*places, mark, color=colour, label=label, markersize=size)

        dots([r for r in scored if r.state != "complete"], "x", "ended early", colours.muted, 4)
        dots([r for r in scored if r.state == "complete"], ".", "complete", colours.lines[0])
        front = search.front()
        latency, accuracy = ([getattr(r, name) for r in front] for name in ("latency_ms", "accuracy"))
        axes.step(latency, accuracy, where="post", label="Pareto front", **colours.line(1))
        if start is not None:
            dots([start], "s", "start", colours.ink)
        if best is not None:
            dots([best], "*", "found", colours.lines[1], 12)
        axes.axvline(search.target_ms, label="wanted", **colours.line(2))
        axes.set(xlabel="latency, ms", ylabel="mAP on held-out images")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)

    return draw


def blocks_plot(search: BlockSearch, params: Params) -> Plot:
    """Every block's expansion as a bar, with its kernel, SE and nonlinearity; stages stand side by side."""
    space = search.space
    found = iter(space.network(params)["backbone"]["init_args"]["rows"])
    bars = []
    for number, before in enumerate(space.stages, 1):
        after = list(islice(found, int(params[f"stage{number}.repeats"])))
        for i, (old, new) in enumerate(zip_longest(before, after), 1):
            said = [DASH if row is None else block_in_words(row) for row in (old, new)]
            text = said[0] if said[0] == said[1] else " → ".join(said)
            bars.append(Bar(f"stage {number}, {i}", (old or [0, 0])[1], (new or [0, 0])[1], text))
    return bars_plot("Blocks of the start and of what was found", bars, x_label="channels of the expansion")


def block_in_words(row: Sequence[Any]) -> str:
    """A row of the table: 3x3, 96, SE, HS."""
    kernel, expansion, _, squeeze, nonlinearity, _ = row
    return f"{kernel}x{kernel}, {expansion}, {'SE, ' if squeeze else ''}{nonlinearity}"


def changed_choices(search: BlockSearch, params: Params) -> list[tuple[str, str, str]]:
    """Choices that are not the start's: name, the start's, as found."""
    return [
        (name, str(own), str(params[name])) for name, own in search.space.start.items() if params[name] != own
    ]


def marks_of(best: Result | None, start: Result | None) -> dict[int, str]:
    """What stands behind a trial, by its number."""
    marks = {} if start is None else {start.number: "start"}
    return marks if best is None else {**marks, best.number: "found"}


def trial_row(result: Result, marks: dict[int, str]) -> tuple[str, ...]:
    """One trial."""
    return (
        str(result.number),
        IN_WORDS[result.state],
        show_metric(result.accuracy),
        DASH if result.latency_ms is None else f"{result.latency_ms:.2f}",
        DASH if result.reward is None else f"{result.reward:.3f}",
        DASH if result.seconds is None else f"{result.seconds:.0f}",
        marks.get(result.number, ""),
    )


def settings_of(search: BlockSearch) -> list[tuple[str, str]]:
    """What the study was told."""
    options = search.options
    told = {
        "objective": options.goal,
        "power": options.power if options.goal == "reward" else None,
        "target": options.target,
        "target_ms": options.target_ms,
        "trials": options.trials,
        "sampler": options.sampler,
        "sampler_seed": options.seed,
    }
    return [(name, str(value)) for name, value in told.items() if value is not None]

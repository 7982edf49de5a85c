"""`detect search`: a network for a latency budget, from a trained start to a comparison of trained networks.

Everything that is done lies in OUT; the same command resumes where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from detect.commands.search_training import FOUND_FILE, SearchFolder
from detect.config.renames import accept_old_class_paths
from detect.config.trusted_classes import trust
from detect.config.unknown_keys import build
from detect.data.datamodule import DetectionData
from detect.errors import InputError, RunStopped
from detect.model.checkpoint import (
    Checkpoint,
    build_from_checkpoint,
    checkpoint_content,
    read_checkpoint,
    write_checkpoint,
)
from detect.search.found import write_found
from detect.search.latency_table import LatencyTable
from detect.search.measure import (
    Bench,
    MeasureOptions,
    TableOptions,
    begin_table,
    measure_missing,
    network_alone,
)
from detect.search.netadapt import (
    Latency,
    MultiplyAdds,
    NetAdaptOptions,
    Proposing,
    Resource,
    ResourceName,
    Search,
    ratio_for,
    steps_needed,
)
from detect.search.page import PAGE, unit_of, write_search_page
from detect.search.progress import SearchProgress
from detect.search.proposals import OneByOne, PerDevice, Task, Trainer
from detect.search.state import STATE_FILE, SearchState, read_state, refuse_other_settings
from detect.search.trial import TrialOptions, Trials
from detect.search.widths import explicit, step_of, widths_of
from detect.system.devices import CPU
from detect.training.manifest import hash_weights
from detect.training.run_module import check_known_classes
from detect.training.stop_signals import StopSignals
from detect.types import ClassMap

RATIO = 0.03
"""Share of the start that the first step takes less, where neither steps nor hours are given."""
SECONDS_PER_HOUR = 3600
HASH_DIGITS = 16


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, and how."""

    target: float | None = None
    """Of the start's latency."""
    target_ms: float | None = None
    steps: int | None = None
    hours: float | None = None
    decay: float = 0.96
    proposals: Proposing = "netadapt"
    resource: ResourceName = "latency"
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    trials: TrialOptions = field(default_factory=TrialOptions)
    table: TableOptions = field(default_factory=TableOptions)

    def check(self) -> None:
        """Stop at options that make no search.

        Raises:
            InputError: names the option.
        """
        if (self.target is None) == (self.target_ms is None):
            raise InputError("give --target (a share of the start's latency) or --target_ms, one of them")
        if self.target is not None and not 0 < self.target < 1:
            raise InputError(f"--target is {self.target}; give a share of the start's latency, 0 to 1")
        if self.steps is not None and self.hours is not None:
            raise InputError("give --steps or --hours, one of them")
        for name, value in (("steps", self.steps), ("hours", self.hours), ("target_ms", self.target_ms)):
            if value is not None and not value > 0:
                raise InputError(f"--{name} is {value}; give more than 0")
        if not 0 < self.decay <= 1:
            raise InputError(f"--decay is {self.decay}; give a number above 0, at most 1")
        self.measuring.check()
        self.table.require_sense()
        self.trials.check()


def search(folder: SearchFolder, options: SearchOptions, *, ckpt_path: Path | None) -> int:
    """Search, write OUT/found.yaml, train what was found and compare it with the start.

    Args:
        folder: the start, and where and how networks are trained.
        options: how it is searched.
        ckpt_path: a trained start; null: it is trained by the configuration first.

    Raises:
        InputError: something that the user gave is wrong.
        RunStopped: on SIGINT or SIGTERM; what is done is on disk.
    """
    options.check()
    folder.check()
    out = folder.out
    (out / "networks").mkdir(parents=True, exist_ok=True)
    settings = folder.settings()
    folder.jobs_of_start()  # refuses wrong seeds before the search
    checkpoint = read_checkpoint(ckpt_path or folder.trained_start())
    start = start_of(checkpoint, folder.config, settings)
    found = search_in(folder, start, checkpoint, settings, options)
    path = write_found(out / FOUND_FILE, folder.config_with_flags(), found.start, found.state)
    print(f"written: {path}, {out / PAGE}")
    return 0 if folder.search_only else folder.compare_with_start(path)


def start_of(checkpoint: Checkpoint, config: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the checkpoint's network that state every width.

    Raises:
        InputError: it is not the configuration's network.
    """
    start = network_alone(explicit(checkpoint.description["model"]))
    classes = checkpoint.classes.num_classes
    ours = widths_of(explicit({**settings["model"], "num_classes": classes}))
    if ours != (theirs := widths_of(start)):
        different = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        raise InputError(
            f"{checkpoint.path} is not the network of {config}: {different[0]} is "
            f"{theirs.get(different[0])}, in the configuration {ours.get(different[0])}"
        )
    return start


def search_in(
    folder: SearchFolder,
    start: dict[str, Any],
    checkpoint: Checkpoint,
    settings: dict[str, Any],
    options: SearchOptions,
) -> Search:
    """Measure what is missing of the latency table, and search; returns the finished search.

    Raises:
        InputError, RunStopped: see `search`.
    """
    out, signals = folder.out, StopSignals()
    state = read_state(out / STATE_FILE)
    fixed = fixed_settings(settings, checkpoint, options)
    if state is not None:
        refuse_other_settings(state, fixed)

    def stop() -> None:
        if signals.signum:
            write_search_page(out, state, table)
            message = f"stopped; what is done is in {out}, the same command resumes"
            raise RunStopped(message, exit_code=128 + signals.signum)

    def after_width(table: LatencyTable) -> None:
        table.write(table_file)
        stop()

    with tempfile.TemporaryDirectory(prefix="detect-search-") as files, ExitStack() as stack:
        bench = Bench(Path(files), options.measuring)
        table_file = out / "latency_table.json"
        table = begin_table(start, table_file, options.measuring, other_machine=options.table.other_machine)
        signals.install()
        stack.callback(signals.remove)
        table = measure_missing(table, bench, options.table, after_width=after_width)
        trainer = open_trainer(folder, settings, checkpoint, options.trials, stop=stop, stack=stack)
        if state is None:
            first = out / "networks" / "000.ckpt"
            write_checkpoint(first, checkpoint_content(build_from_checkpoint(checkpoint)))
            state = begin(folder, start, table, fixed, options, trainer)
        done = netadapt(folder, table, bench, state, options, trainer)
    write_search_page(out, state, table)
    return done


def fixed_settings(
    settings: dict[str, Any], checkpoint: Checkpoint, options: SearchOptions
) -> dict[str, Any]:
    """What decides the result of a search, in plain values: it is resumed with the same alone."""
    learnt = json.dumps([settings["model"], settings["data"], settings["seed_everything"]], sort_keys=True)
    measuring = options.measuring
    return {
        **{name: getattr(options, name) for name in ("target", "target_ms", "steps", "hours", "decay")},
        "proposals": options.proposals,
        "resource": options.resource,
        "runtime": measuring.runtime,
        "precision": "int8" if measuring.int8 else "fp32",
        "threads": measuring.threads,
        **asdict(options.trials),
        "seed": settings["seed_everything"],
        "start_weights": hash_weights(checkpoint.state_dict)[:HASH_DIGITS],
        "configuration": hashlib.sha256(learnt.encode()).hexdigest()[:HASH_DIGITS],
    }


def open_trainer(
    folder: SearchFolder,
    settings: dict[str, Any],
    checkpoint: Checkpoint,
    options: TrialOptions,
    *,
    stop: Callable[[], None],
    stack: ExitStack,
) -> Trainer:
    """What trains proposals: this process on a CPU; a process for each GPU, where this one only measures.

    Raises:
        InputError: the data cannot be read, or has other classes than the checkpoint.
    """
    model, classes = checkpoint.description["model"], checkpoint.classes
    trials = open_trials(settings, model, classes, options, stop=stop)
    if folder.slots == [CPU]:
        return OneByOne(trials)
    elsewhere = partial(open_trials_elsewhere, folder, settings, model, classes, options)
    return stack.enter_context(PerDevice(folder.slots, elsewhere, stop=stop))


def open_trials_elsewhere(folder: SearchFolder, *what: Any) -> Trials:
    """`open_trials` in another process, which has to be told first what this one knows of class paths."""
    accept_old_class_paths()
    trust(folder.trust, beside=[folder.config])
    return open_trials(*what)


def open_trials(
    settings: dict[str, Any],
    model: dict[str, Any],
    classes: ClassMap,
    options: TrialOptions,
    *,
    stop: Callable[[], None] = lambda: None,
) -> Trials:
    """The short trainings of a search, on the training split alone.

    Args:
        settings: every value of the configuration.
        model: of the start's checkpoint.
        classes: of the start's checkpoint.
        options: how they go.
        stop: see `Trials`.

    Raises:
        InputError: the data cannot be read, or has other classes than the checkpoint.
    """
    given = settings["data"] | {"image_size": model["image_size"], "seed": settings["seed_everything"]}
    given["resize_rule"] = model["resize_rule"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionData, "data")
    data: DetectionData = build(parser, {"data": given}, what="data settings").data
    data.open(("train",))
    check_known_classes(classes, data.classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trials(settings["model"], data, options, device=device, stop=stop)


def begin(
    folder: SearchFolder,
    start: dict[str, Any],
    table: LatencyTable,
    fixed: dict[str, Any],
    options: SearchOptions,
    trainer: Trainer,
) -> SearchState:
    """The state of a new search: its budget, and how large its steps are.

    Raises:
        InputError: the start is as fast as wanted, or steps of the usual size never get there.
    """
    target_ms = options.target_ms or (options.target or 1.0) * table.start_ms
    share = 1 - target_ms / table.start_ms
    if share <= 0:
        raise InputError(f"--target_ms is {target_ms:.2f}; the start takes {table.start_ms:.2f} ms already")
    steps = options.steps
    usual = steps_needed(share, ratio=RATIO, decay=options.decay)
    if options.hours is not None:
        first = folder.out / "networks" / "000.ckpt"
        ((_, outcome),) = trainer.run([Task(1, start, first, start)])
        seconds = outcome.seconds * -(-len(table.start) // len(folder.slots))
        steps = max(1, int(options.hours * SECONDS_PER_HOUR // seconds))
        steps = steps if usual is None else min(steps, usual)
        print(f"a step takes about {seconds / 60:.0f} min: {steps} steps in {options.hours:g} h")
    elif steps is None and usual is None:
        most = RATIO / (1 - options.decay)
        raise InputError(
            f"steps of {RATIO:.0%} with --decay {options.decay} take away {most:.0%} at most, and "
            f"{share:.0%} are wanted: give --steps or --hours"
        )
    ratio = RATIO if steps is None else ratio_for(share, steps, decay=options.decay)
    return SearchState(folder.out / STATE_FILE, fixed, table.start_ms, target_ms, ratio)


def netadapt(
    folder: SearchFolder,
    table: LatencyTable,
    bench: Bench,
    state: SearchState,
    options: SearchOptions,
    trainer: Trainer,
) -> Search:
    """Run a search until it is finished; its page is written after every step."""
    start, out = table.network, folder.out
    of_latency = options.resource == "latency"
    resource: Resource = Latency(table) if of_latency else MultiplyAdds(start, least=options.table.least)
    adapting = NetAdaptOptions(
        state.target_ms,
        ratio=state.ratio,
        decay=options.decay,
        step_channels=step_of(table.setting.precision),
        proposals=options.proposals,
        resource=options.resource,
        seed=state.settings["seed"],
    )

    def measure(stated: dict[str, Any]) -> float:
        return bench.ratio(stated, start) * table.start_ms

    def tell(state: SearchState) -> None:
        progress(state)
        if state.unfinished is None:
            write_search_page(out, state, table)

    unit, scale = unit_of(state)
    with SearchProgress(unit=unit, scale=scale, decay=options.decay, workers=len(folder.slots)) as progress:
        done = Search(out, start, state, adapting, trainer, resource, measure=measure, tell=tell)
        done.run()
    if state.current.measured_ms > state.target_ms:
        print(f"no width can be made smaller any more: {state.current.measured_ms:.2f} ms is the least")
    return done

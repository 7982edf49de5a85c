"""Commands for a latency budget: `detect latency-table` and `detect search`.

Nothing that takes time to import is imported above the functions: `detect --help` shows their docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detect.commands.arguments import (
    add_protocol_arguments,
    add_trust_argument,
    choice,
    new_parser,
    parse,
    split_fit_flags,
)
from detect.errors import InputError
from detect.system.files import require_writable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from detect.commands.search_blocks import BlockRun
    from detect.search.measure import MeasureOptions
    from detect.system.devices import Slot

OF_STRATEGY = {
    "netadapt": (
        *("ckpt_path", "steps", "decay", "proposals", "resource", "train_steps", "lr_factor"),
        *("most_held_out", "keep", "points", "least"),
    ),
    "blocks": ("trials", "epochs", "objective", "power", "sampler", "sampler_seed", "study"),
}
"""Options of `detect search` that one strategy alone takes."""


def latency_table_command(args: list[str]) -> int:
    """Measure how latency changes with every width of a network, for `detect search`."""
    from detect.search.measure import TableOptions, latency_table

    config = parse(latency_table_parser(), args)
    require_writable(config.out)
    options = TableOptions(config.points, config.least, config.check, config.other_machine)
    return latency_table(
        config.config, config.out, measuring_of(config), options, num_classes=config.num_classes
    )


def latency_table_parser() -> ArgumentParser:
    """The options of `detect latency-table`."""
    from detect.search.measure import TableOptions

    parser = new_parser(
        "latency-table",
        latency_table_command,
        "detect latency-table --config my.yaml --runtime onnxruntime --out table.json",
    )
    parser.add_argument("--config", type=Path, required=True, help="the network to start from")
    add_trust_argument(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="the table; written after every width, so that it resumes"
    )
    parser.add_argument(
        "--num_classes", type=int | None, default=None, help="null: the configuration's, or 90 as COCO"
    )
    parser.add_argument(
        "--check", type=int, default=TableOptions.check, help="random networks to compare predictions on"
    )
    _add_measuring_arguments(parser)
    return parser


def search_command(args: list[str]) -> int:
    """Find a network that is as fast as wanted on this machine: a narrower one, or one of other blocks."""
    from detect.commands.search import SearchOptions, search
    from detect.commands.search_blocks import search_blocks
    from detect.commands.search_training import SearchFolder
    from detect.search.measure import TableOptions
    from detect.search.trial import TrialOptions
    from detect.system.devices import job_slots

    own, fit_flags = split_fit_flags(args)
    parser = search_parser()
    config = parse(parser, own)
    for name in OF_STRATEGY["blocks" if config.strategy == "netadapt" else "netadapt"]:
        if config[name] != parser.get_default(name):
            raise InputError(f"--{name} is of no use to --strategy {config.strategy}: leave it out")
    measuring, slots = measuring_of(config), job_slots(config.devices, 1)
    folder = SearchFolder(
        config.config,
        config.out,
        fit_flags,
        slots,
        seeds=config.seeds,
        runtime=config.runtime,
        trust=config.trust,
        search_only=config.search_only,
    )
    if config.strategy == "blocks":
        return search_blocks(folder, block_run(config, measuring, slots[0]))
    options = SearchOptions(
        target=config.target,
        target_ms=config.target_ms,
        steps=config.steps,
        hours=config.hours,
        decay=config.decay,
        proposals=config.proposals,
        resource=config.resource,
        measuring=measuring,
        trials=TrialOptions(
            config.train_steps, config.lr_factor, config.held_out, config.most_held_out, config.keep
        ),
        table=TableOptions(config.points, config.least, other_machine=config.other_machine),
    )
    return search(folder, options, ckpt_path=config.ckpt_path)


def block_run(config: Namespace, measuring: MeasureOptions, slot: Slot) -> BlockRun:
    """What `--strategy blocks` is told."""
    from detect.commands.search_blocks import BlockRun
    from detect.search.blocks import BlockOptions

    blocks = BlockOptions(
        target=config.target,
        target_ms=config.target_ms,
        power=config.power,
        goal=config.objective,
        sampler=config.sampler,
        trials=config.trials,
        hours=config.hours,
        seed=config.sampler_seed,
        other_machine=config.other_machine,
    )
    return BlockRun(blocks, measuring, config.epochs, config.held_out, config.study, slot, config.trust)


def search_parser() -> ArgumentParser:
    """The options of `detect search`, but for those of `detect fit`."""
    from detect.commands.search import SearchOptions
    from detect.search.netadapt import Proposing, ResourceName

    parser = new_parser(
        "search",
        search_command,
        "detect search --config my.yaml --data.root D --runtime onnxruntime --target 0.8 --out runs/search",
    )
    parser.add_argument("--config", type=Path, required=True, help="the network to start from")
    parser.add_argument(
        "--strategy",
        type=Literal["netadapt", "blocks"],
        default="netadapt",
        help="narrower step by step, or other blocks drawn by Optuna",
    )
    parser.add_argument(
        "--ckpt_path", type=Path | None, default=None, help="the start, trained; null: it is trained first"
    )
    add_trust_argument(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the search; the same one resumes")
    parser.add_argument("--target", type=float | None, default=None, help="share of the start's latency")
    parser.add_argument("--target_ms", type=float | None, default=None, help="instead: the latency itself")
    parser.add_argument(
        "--steps",
        type=int | None,
        default=None,
        help="about so many; null: the first takes 0.03 of the start",
    )
    parser.add_argument(
        "--hours", type=float | None, default=None, help="instead: about as many steps as fit"
    )
    parser.add_argument(
        "--decay", type=float, default=SearchOptions.decay, help="of what a step takes, to the step before"
    )
    parser.add_argument(
        "--proposals", type=Proposing, default=SearchOptions.proposals, help="random: for comparison"
    )
    parser.add_argument(
        "--resource", type=ResourceName, default=SearchOptions.resource, help="madds: for comparison"
    )
    _add_trial_arguments(parser)
    _add_measuring_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings from scratch")
    parser.add_argument("--devices", type=str, nargs="+", default=None, help="GPUs; null: all that are free")
    parser.add_argument("--search_only", action="store_true", help="train nothing from scratch at the end")
    _add_block_arguments(parser)
    return parser


def _add_trial_arguments(parser: ArgumentParser) -> None:
    """How a proposal is trained and scored."""
    from detect.search.inherit import Keep
    from detect.search.trial import TrialOptions

    parser.add_argument(
        "--train_steps", type=int, default=TrialOptions.train_steps, help="steps of each proposal"
    )
    parser.add_argument(
        "--lr_factor", type=float, default=TrialOptions.lr_factor, help="of the configuration's learning rate"
    )
    parser.add_argument(
        "--held_out",
        type=float,
        default=TrialOptions.held_out,
        help="share of the training images: to score on",
    )
    parser.add_argument(
        "--most_held_out", type=int, default=TrialOptions.most_held_out, help="images that score, at most"
    )
    parser.add_argument("--keep", type=Keep, default=TrialOptions.keep, help="which filters are kept")


def _add_block_arguments(parser: ArgumentParser) -> None:
    """Of `--strategy blocks` alone."""
    from detect.commands.search_blocks import BlockRun
    from detect.search.blocks import BlockOptions, Goal, Sampler

    parser.add_argument(
        "--trials", type=int, default=BlockOptions.trials, help="blocks: networks of all workers together"
    )
    parser.add_argument("--epochs", type=int, default=BlockRun.epochs, help="blocks: of each trial")
    parser.add_argument(
        "--objective", type=Goal, default=BlockOptions.goal, help="blocks: mAP x (latency / target)^power"
    )
    parser.add_argument(
        "--power", type=float, default=BlockOptions.power, help="blocks: -0.15 for small models, or -0.07"
    )
    parser.add_argument(
        "--sampler", type=Sampler | None, default=None, help="blocks: null: tpe, nsga2 for a front"
    )
    parser.add_argument("--sampler_seed", type=int, default=BlockOptions.seed, help="blocks: what is drawn")
    parser.add_argument(
        "--study",
        type=str | None,
        default=None,
        help="blocks: of several workers: study.journal, sqlite:///study.db, postgresql://user@host/name",
    )


def _add_measuring_arguments(parser: ArgumentParser) -> None:
    """How networks are measured and how many, for `latency-table` and `search`."""
    from detect.deploy.runtimes.table import RUNTIMES
    from detect.search.measure import MeasureOptions, TableOptions

    measuring = MeasureOptions()
    runtimes = choice(name for name, record in RUNTIMES.items() if record.reads)
    parser.add_argument("--runtime", type=runtimes, default=measuring.runtime)
    parser.add_argument("--int8", action="store_true", help="measure networks in 8 bits")
    parser.add_argument("--threads", type=int, default=measuring.threads)
    parser.add_argument(
        "--points", type=int, default=TableOptions.points, help="networks of each width, beside the start"
    )
    parser.add_argument(
        "--least", type=float, default=TableOptions.least, help="share of a width that is its smallest point"
    )
    add_protocol_arguments(parser, measuring.protocol, runs_of="network")
    parser.add_argument(
        "--other_machine", action="store_true", help="read a table of another machine all the same"
    )


def measuring_of(config: Namespace) -> MeasureOptions:
    """What `_add_measuring_arguments` was told."""
    from detect.deploy.latency import Protocol
    from detect.search.measure import MeasureOptions

    protocol = Protocol(config.rounds, config.warmup, config.clock)
    return MeasureOptions(config.runtime, config.int8, config.threads, protocol)

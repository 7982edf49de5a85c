"""Commands about runs: train, repeat, report and compare them.

Nothing that takes time to import is imported above the functions: `detect --help` shows their docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detect.commands.arguments import (
    add_measuring_arguments,
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
        *("most_held_out", "keep", "points", "least", "seeds", "search_only"),
    ),
    "blocks": ("trials", "epochs", "objective", "power", "sampler", "sampler_seed", "study"),
}
"""Options of `detect search` that one strategy alone takes."""


def fit_command(args: list[str]) -> int:
    """Train a detector, validate it after each epoch, keep the best and the last checkpoint."""
    from detect.commands.fit import fit

    return fit(args)


def pretrain_command(args: list[str]) -> int:
    """Train a classifier of one of the backbones; its weights are for detectors to start from."""
    from detect.commands.pretrain import pretrain

    return pretrain(args)


def report_command(args: list[str]) -> int:
    """Write RUN/report.html for a run that is finished, stopped or broken."""
    from detect.report.run_page import report

    parser = new_parser("report", report_command, "detect report runs/bccd-001")
    parser.add_argument("run", type=Path, help="run folder")
    add_trust_argument(parser)
    return report(parse(parser, args).run)


def compare_command(args: list[str]) -> int:
    """Put runs and benchmark files side by side, and say which differences hold."""
    from detect.evaluation.bootstrap import RESAMPLES
    from detect.report.compare import compare

    parser = new_parser(
        "compare", compare_command, "detect compare runs/a runs/b benchmark.json --out comparison"
    )
    parser.add_argument("paths", type=Path, nargs="+", help="run folders and benchmark files")
    parser.add_argument("--out", type=Path, required=True, help="folder of index.html and table.md")
    add_trust_argument(parser)
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="resamples of the bootstrap over images"
    )
    parser.add_argument("--json", type=Path | None, default=None, help="write the figures there")
    config = parse(parser, args)
    require_writable(config.json)
    return compare(config.paths, config.out, resamples=config.resamples, json_file=config.json)


def sweep_command(args: list[str]) -> int:
    """Train configurations under several seeds, one job per free device; export, benchmark, compare."""
    from detect.commands.sweep import SweepOptions, plan_jobs, sweep
    from detect.commands.sweep_slurm import Slurm, sbatch_options
    from detect.deploy.latency import Protocol
    from detect.deploy.runtimes.table import RUNTIMES
    from detect.system.devices import job_slots

    own, fit_flags = split_fit_flags(args)
    parser = new_parser(
        "sweep",
        sweep_command,
        "detect sweep configs/table6/*.yaml --data.root D --model.num_classes null --seeds 0 1 --out runs/t6",
    )
    parser.add_argument("configs", type=Path, nargs="+", help="configurations of detect fit")
    add_trust_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the comparison")
    parser.add_argument("--devices", type=str, nargs="+", default=None, help="GPUs; null: all that are free")
    parser.add_argument("--devices_per_job", type=int, default=1, help="more than 1: torchrun")
    parser.add_argument(
        "--slurm",
        type=str,
        nargs="*",
        default=None,
        metavar="OPTION",
        help="run the jobs as one array of SLURM; options of sbatch: gpus-per-node=1 time=12:00:00",
    )
    parser.add_argument("--runtime", type=choice(RUNTIMES), nargs="+", default=list(SweepOptions.runtimes))
    parser.add_argument("--rounds", type=int, default=SweepOptions.rounds, help="rounds of the benchmark")
    config = parse(parser, own)
    Protocol(config.rounds).check()
    jobs = plan_jobs(config.configs, config.seeds, config.out, fit_flags, trust=config.trust)
    if config.slurm is None:
        slots = job_slots(config.devices, config.devices_per_job)
        return sweep(jobs, config.out, SweepOptions(slots, config.runtime, config.rounds))
    if config.devices is not None or config.devices_per_job != 1:
        raise InputError("--devices and --devices_per_job are for this machine; give --slurm gpus-per-node=2")
    slurm = Slurm(sbatch_options(config.slurm))
    return sweep(jobs, config.out, SweepOptions((), config.runtime, config.rounds, elsewhere=slurm))


def search_command(args: list[str]) -> int:
    """Find a network that is as fast as wanted on this machine: a narrower one, or one of other blocks."""
    from detect.commands.search import SearchOptions, search
    from detect.commands.search_blocks import search_blocks
    from detect.deploy.latency import Protocol
    from detect.search.measure import MeasureOptions, TableOptions
    from detect.search.trial import TrialOptions
    from detect.system.devices import job_slots

    own, fit_flags = split_fit_flags(args)
    parser = search_parser()
    config = parse(parser, own)
    for name in OF_STRATEGY["blocks" if config.strategy == "netadapt" else "netadapt"]:
        if config[name] != parser.get_default(name):
            raise InputError(f"--{name} is of no use to --strategy {config.strategy}: leave it out")
    measuring = MeasureOptions(
        config.runtime, config.int8, config.threads, Protocol(config.rounds, config.warmup, config.clock)
    )
    slots = job_slots(config.devices, 1)
    if config.strategy == "blocks":
        blocks = block_run(config, measuring, slots[0])
        return search_blocks(config.config, config.out, blocks, fit_flags=fit_flags)
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
        train=not config.search_only,
        seeds=config.seeds,
        trust=config.trust,
    )
    return search(
        config.config, config.out, options, ckpt_path=config.ckpt_path, fit_flags=fit_flags, slots=slots
    )


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
    parser.add_argument("--steps", type=int | None, default=None, help="null: the first of 0.03 of the start")
    parser.add_argument("--hours", type=float | None, default=None, help="instead: as many steps as fit")
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
    add_measuring_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings from scratch")
    parser.add_argument("--devices", type=str, nargs="+", default=None, help="GPUs for these; null: all free")
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


def reproduce_command(args: list[str]) -> int:
    """Repeat a run from its manifest: say what differs, train, and compare weights and metrics."""
    from detect.commands.reproduce import ReproduceOptions, reproduce

    own, fit_flags = split_fit_flags(args)
    parser = new_parser(
        "reproduce", reproduce_command, "detect reproduce runs/bccd-001 --out runs/bccd-again --data.root D"
    )
    parser.add_argument("source", type=Path, help="run folder, or a manifest.json alone")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new run")
    add_trust_argument(parser)
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[], help="runs of other seeds: their spread is the margin"
    )
    parser.add_argument("--json", type=Path | None, default=None, help="write differences and verdict there")
    config = parse(parser, own)
    require_writable(config.json)
    options = ReproduceOptions(fit_flags, config.runs, config.json)
    return reproduce(config.source, config.out, options)


def replay_command(args: list[str]) -> int:
    """Repeat the step that stopped a run with a NaN, and show the first layer that is not finite."""
    from detect.training.nan_report import replay

    parser = new_parser("replay", replay_command, "detect replay runs/a/nan")
    parser.add_argument("folder", type=Path, help="RUN/nan")
    add_trust_argument(parser)
    return replay(parse(parser, args).folder)

"""Commands about runs: train, repeat, report and compare them.

Nothing that takes time to import is imported above the functions: `detect --help` shows their docstrings.
"""

from __future__ import annotations

from pathlib import Path

from detect.commands.arguments import (
    add_trust_argument,
    choice,
    new_parser,
    parse,
    split_fit_flags,
)
from detect.errors import InputError
from detect.system.files import require_writable


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
    from detect.commands.sweep import SweepOptions, sweep
    from detect.commands.sweep_jobs import plan_jobs
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

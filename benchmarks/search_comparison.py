"""What a search is worth: five ways to one measured latency, each trained under several seeds, in one table.

python benchmarks/search_comparison.py --config configs/bccd.yaml --data.root BCCD --out search-bccd
    [--target 0.75] [--seeds 0 1 2] [--beside configs/plus/bccd.yaml] [--steps 8 | --hours 2] [--clock cpu]
    [other options of detect search] [flags of detect fit for data and trainer]

The start is MobileNetV3-Small with its full tail in the given configuration. NetAdapt by latency searches
first; the network that it finds sets the latency. The others are the start made narrower everywhere, the
paper's reduced tail, a search of random proposals and NetAdapt by multiply-adds. Of one that is not within
2 % of that latency, every width that a search may change is scaled by one factor, found by bisection on
measured latency. Then `detect sweep` trains all. Writes OUT/configs, OUT/trained/comparison, OUT/table.md
and OUT/table.json; the same command resumes and does nothing again that was finished.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from detect.commands.arguments import split_fit_flags
from detect.commands.main import main as detect
from detect.config.model_section import read_config, read_model_section
from detect.deploy.latency import Protocol, Ratio, paired_ratio
from detect.evaluation.bootstrap import Difference
from detect.model.blocks import make_divisible
from detect.model.checkpoint import read_checkpoint
from detect.report.comparison import Comparison, gather
from detect.search.found import found_config, write_config
from detect.search.latency_table import LatencyTable, read_table
from detect.search.measure import Bench, MeasureOptions, network_alone
from detect.search.widths import explicit, widths_of, with_widths
from detect.system.files import write_atomically

TOLERANCE = 0.02
"""Of latency: networks within it are compared."""
SCALED_WITHIN = 0.01
"""Scaled networks come closer: they are measured again at the end."""
MOST_TRIES = 8
LEAST_FACTOR, LARGEST_FACTOR = 0.25, 2.0
WARMUP = 3
START, NETADAPT, UNIFORM, REDUCED = "start", "netadapt", "uniform", "reduced"
SEARCHES: dict[str, list[str]] = {
    NETADAPT: [],
    "random": ["--proposals", "random"],
    "madds": ["--resource", "madds"],
}
TITLES = {
    START: "V3-Small, full tail",
    NETADAPT: "NetAdapt by latency",
    UNIFORM: "uniform width",
    REDUCED: "reduced tail (the paper's)",
    "random": "random proposals",
    "madds": "NetAdapt by multiply-adds",
}
HEADINGS = (
    *("network", "latency / NetAdapt's before scaling", "widths x", "latency / start's"),
    *("latency / NetAdapt's (5 to 95 % of rounds)", "M MAdds", "mAP, mean ± spread (seeds)"),
    "NetAdapt minus it (95 %)",
)
Network = dict[str, Any]
"""A `model:` section that states every width."""


class Matched(NamedTuple):
    """How a network was brought to NetAdapt's latency."""

    own: float
    """Its latency over NetAdapt's, before."""
    factor: float
    """Of its widths."""


class Row(NamedTuple):
    """A line of the table."""

    name: str
    matched: Matched | None
    """None: it stays as it is."""
    of_start: Ratio
    """Its latency over the start's."""
    of_netadapt: Ratio
    """Its latency over that of NetAdapt's network."""
    madds: int
    mAP: list[float]
    """Of each seed."""
    lead: Difference | None
    """NetAdapt's mAP minus this one's; None for NetAdapt itself."""


def run(*words: str) -> None:
    """A command of detect; where it fails this ends with its exit code."""
    if code := detect(list(words)):
        raise SystemExit(code)


def write_start(path: Path, config: dict[str, Any], *, reduced_tail: bool) -> None:
    """A configuration with MobileNetV3-Small in the place of its backbone."""
    backbone = {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "reduced_tail": reduced_tail},
    }
    write_config(path, config | {"model": config["model"] | {"backbone": backbone}}, "")


def stated(config: Path, num_classes: int) -> Network:
    """The network of a configuration."""
    return network_alone(explicit({**(read_model_section(config) or {}), "num_classes": num_classes}))


def scaled(network: Network, factor: float) -> Network:
    """A network with every width that a search may change times a factor."""
    widths = {name: make_divisible(channels * factor) for name, channels in widths_of(network).items()}
    return network if factor == 1.0 else with_widths(network, widths)


def match(latency_of: Callable[[float], float]) -> Matched:
    """The factor that brings a network to the wanted latency, by bisection.

    Args:
        latency_of: of the network with its widths times a factor, measured, over the wanted one.
    """
    tried = {1.0: latency_of(1.0)}
    own = tried[1.0]
    low, high = (LEAST_FACTOR, 1.0) if own > 1 else (1.0, LARGEST_FACTOR)
    close = abs(own - 1) <= TOLERANCE
    while not close and len(tried) < MOST_TRIES:
        middle = (low + high) / 2
        tried[middle] = latency_of(middle)
        low, high = (low, middle) if tried[middle] > 1 else (middle, high)
        close = abs(tried[middle] - 1) <= SCALED_WITHIN
    return Matched(own, min(tried, key=lambda factor: abs(tried[factor] - 1)))


def search_all(out: Path, checkpoint: Path, words: Sequence[str]) -> LatencyTable:
    """The three searches, on one latency table, which is returned."""
    table = out / NETADAPT / "latency_table.json"
    for name, own in SEARCHES.items():
        folder = out / name
        if (folder / "found.yaml").is_file():
            continue
        folder.mkdir(exist_ok=True)
        if name != NETADAPT:
            shutil.copy(table, folder / table.name)
        start = ["--config", str(out / "configs" / f"{START}.yaml"), "--ckpt_path", str(checkpoint)]
        run("search", *start, "--out", str(folder), "--search_only", *own, *words)
    return read_table(table)


def match_all(out: Path, num_classes: int, bench: Bench) -> dict[str, Matched]:
    """Write a configuration of every network at NetAdapt's latency; what is there stays."""
    file, configs = out / "matched.json", out / "configs"
    noted = json.loads(file.read_text()) if file.is_file() else {}
    done = {name: Matched(*values) for name, values in noted.items()}
    shutil.copy(out / NETADAPT / "found.yaml", configs / f"{NETADAPT}.yaml")
    wanted = stated(configs / f"{NETADAPT}.yaml", num_classes)
    sources = {UNIFORM: configs / f"{START}.yaml", REDUCED: out / "reduced_tail.yaml"}
    sources |= {name: out / name / "found.yaml" for name in SEARCHES if name != NETADAPT}
    for name in [name for name in sources if name not in done]:
        network = stated(sources[name], num_classes)

        def latency_of(factor: float, name: str = name, network: Network = network) -> float:
            ratio = bench.ratio(scaled(network, factor), wanted)
            print(f"{name}, widths x {factor:.3f}: {ratio:.3f} of NetAdapt's latency", flush=True)
            return ratio

        matched = match(latency_of)
        content = found_config(read_config(sources[name]), scaled(network, matched.factor))
        header = f"# {TITLES[name]}, every width x {matched.factor:.3f}\n"
        write_config(configs / f"{name}.yaml", content, header)
        done[name] = matched
        write_atomically(file, json.dumps(done, indent=1) + "\n")
    return done


def rows_of(
    networks: dict[str, Network],
    matched: dict[str, Matched],
    bench: Bench,
    comparison: Comparison,
) -> list[Row]:
    """What is known of each network; all are measured beside each other."""
    times = dict(zip(networks, bench.measure(list(networks.values())), strict=True))
    groups = {
        run.folder.name.rsplit("-seed", 1)[0]: group for group in comparison.groups for run in group.runs
    }
    leads = {pair.first.name: pair.difference for pair in comparison.pairs if pair.second is groups[NETADAPT]}
    rows = []
    for name in networks:
        model = groups[name].model
        assert model is not None
        ratios = (paired_ratio(times[name], times[other]) for other in (START, NETADAPT))
        lead = leads.get(groups[name].name)
        rows.append(
            Row(name, matched.get(name), *ratios, model.counts.madds, groups[name].values("mAP"), lead)
        )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table for people."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1))]
    for row in rows:
        ratio = row.of_netadapt
        equal = "" if abs(ratio.median - 1) <= TOLERANCE else ", not equal"
        spread = f" ± {stdev(row.mAP):.3f}" if len(row.mAP) > 1 else ""
        lines.append(
            (
                TITLES.get(row.name, row.name),
                *("" if value is None else f"{value:.3f}" for value in row.matched or (None, None)),
                f"{row.of_start.median:.3f}",
                f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}){equal}",
                f"{row.madds / 1e6:.1f}",
                f"{fmean(row.mAP):.3f}{spread} ({len(row.mAP)})",
                "" if row.lead is None else str(row.lead),
            )
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def plain(row: Row) -> dict[str, Any]:
    """For JSON."""
    values = row._asdict()
    return {key: value._asdict() if hasattr(value, "_asdict") else value for key, value in values.items()}


def read_arguments() -> tuple[argparse.Namespace, list[str], list[str]]:
    """Our options, those of `detect search`, and the flags of `detect fit`."""
    own, fit_flags = split_fit_flags(sys.argv[1:])
    if any(flag.startswith("--model.") for flag in fit_flags):
        raise SystemExit("the network stands in --config: flags of --model would change all of them")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", type=float, default=0.75, help="of the start's latency")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="configurations to train as well")
    return *parser.parse_known_args(own), fit_flags


def main() -> None:
    arguments, of_search, fit_flags = read_arguments()
    out, trained = arguments.out, arguments.out / "trained"
    configs, seeds = out / "configs", [str(seed) for seed in arguments.seeds]
    configs.mkdir(parents=True, exist_ok=True)
    given = read_config(arguments.config)
    write_start(configs / f"{START}.yaml", given, reduced_tail=False)
    write_start(out / "reduced_tail.yaml", given, reduced_tail=True)
    run("sweep", str(configs / f"{START}.yaml"), "--seeds", seeds[0], "--out", str(trained), *fit_flags)
    checkpoint = trained / f"{START}-seed{seeds[0]}" / "checkpoints" / "best.ckpt"
    table = search_all(out, checkpoint, ["--target", str(arguments.target), *of_search, *fit_flags])

    setting, protocol = table.setting, Protocol(table.rounds, WARMUP, table.setting.clock)
    measuring = MeasureOptions(setting.runtime, setting.precision == "int8", setting.threads, protocol)
    num_classes = read_checkpoint(checkpoint).classes.num_classes
    with tempfile.TemporaryDirectory() as files:
        bench = Bench(Path(files), measuring)
        matched = match_all(out, num_classes, bench)
        paths = [*(configs / f"{name}.yaml" for name in TITLES), *arguments.beside]
        run("sweep", *map(str, paths), "--seeds", *seeds, "--out", str(trained), *fit_flags)
        networks = {path.stem: stated(path, num_classes) for path in paths}
        names = [*(name for name in networks if name != NETADAPT), NETADAPT]  # pairs are second minus first
        comparison = gather([trained / f"{name}-seed{seed}" for name in names for seed in seeds])
        rows = rows_of(networks, matched, bench, comparison)
    print(markdown(rows))
    write_atomically(out / "table.md", markdown(rows))
    content = {"setting": asdict(setting), "rows": [plain(row) for row in rows]}
    write_atomically(out / "table.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

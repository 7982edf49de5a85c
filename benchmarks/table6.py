"""Latency of the eleven detectors of Table 6 on one thread, and its ratios beside the paper's.

python benchmarks/table6.py [--runtime onnxruntime openvino litert] [--rounds 50] [--json FILE]

Every config of configs/table6 is exported with random weights (latency does not depend on their values), and
the raw networks of all of them on all runtimes are measured interleaved. The paper's figures are TFLite on
one big core of a Pixel 1; ratios are what can be compared. A runtime that is not installed is left out and
named. With --folder the exported files are kept there and used again; --clock cpu is for a shared machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from detect.deploy.benchmark import (
    BenchmarkOptions,
    Measured,
    measure,
    plan_rows,
    write_images,
)
from detect.deploy.latency import Protocol, Ratio, paired_ratio, pin
from detect.deploy.latency_text import protocol_lines
from detect.errors import InputError
from detect.evaluation.draw import PALETTE
from detect.inspection.models import TABLE_6

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "table6"
RUNTIMES = ("onnxruntime", "openvino", "litert")
CONFIG_OF_ROW = {
    "V1": "v1",
    "V2": "v2",
    "MnasNet": "mnasnet",
    "V3": "v3_large",
    "V3†": "v3_large_reduced",
    "V2 0.35": "v2_035",
    "V2 0.5": "v2_050",
    "MnasNet 0.35": "mnasnet_035",
    "MnasNet 0.5": "mnasnet_050",
    "V3-Small": "v3_small",
    "V3-Small†": "v3_small_reduced",
}
PAIRS = (
    ("V3†", "V3"),
    ("V3-Small†", "V3-Small"),
    ("V3†", "V2"),
    ("V3-Small†", "V2 0.35"),
    ("V3-Small†", "MnasNet 0.35"),
)
"""Ratios that the paper's text rests on: the reduced tail, and V3 against the families before it."""
PAPER_MS = {row.row: float(row.latency_ms) for row in TABLE_6}


class Result(NamedTuple):
    """Rows of Table 6 by runtimes, in the order of `CONFIG_OF_ROW`, then of `runtimes`."""

    measured: Measured
    runtimes: list[str]

    def ms(self, runtime: str, row: str) -> Any:
        """(rounds,) of the network of a row of Table 6."""
        place = self.runtimes.index(runtime) + list(CONFIG_OF_ROW).index(row) * len(self.runtimes)
        return self.measured.samples_ms[place]["network"]

    def ratio(self, runtime: str, pair: tuple[str, str]) -> Ratio:
        return paired_ratio(self.ms(runtime, pair[0]), self.ms(runtime, pair[1]))

    def order(self, runtime: str) -> list[str]:
        """Rows from fast to slow."""
        return sorted(CONFIG_OF_ROW, key=lambda row: self.median(runtime, row))

    def median(self, runtime: str, row: str) -> float:
        return float(sorted(self.ms(runtime, row))[len(self.ms(runtime, row)) // 2])


def run(runtimes: list[str], protocol: Protocol, folder: Path, console: Console) -> Result:
    configs = [CONFIGS / f"{name}.yaml" for name in CONFIG_OF_ROW.values()]
    options = BenchmarkOptions(runtimes=runtimes, protocol=protocol, form="raw", memory=False)
    rows = plan_rows(configs, options, folder, console)
    return Result(measure(rows, write_images(folder), options), runtimes)


def installed(runtimes: list[str], console: Console) -> list[str]:
    """Those that can export and run here; the others are named with the line that installs them."""
    from detect.deploy.runtimes.base import require

    packages = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "litert_torch"}
    found = []
    for runtime in runtimes:
        try:
            require(packages[runtime], extra="export" if runtime == "onnxruntime" else runtime)
        except InputError as error:
            console.print(f"left out {runtime}: {error}", highlight=False, markup=False)
        else:
            found.append(runtime)
    return found


def ratio_table(result: Result) -> Table:
    table = Table(title="Network time on one thread: ratios, with the spread over rounds")
    table.add_column("ratio")
    table.add_column("paper (TFLite, Pixel 1)", justify="right")
    for runtime in result.runtimes:
        table.add_column(runtime, justify="right")
    for pair in PAIRS:
        paper = PAPER_MS[pair[0]] / PAPER_MS[pair[1]]
        figures = [str(result.ratio(runtime, pair)) for runtime in result.runtimes]
        table.add_row(f"{pair[0]} / {pair[1]}", f"{paper:.3f}", *figures)
    return table


def latency_table(result: Result) -> Table:
    table = Table(title="Median ms of the network, one thread; in brackets the place from the fastest")
    table.add_column("row of Table 6")
    table.add_column("paper", justify="right")
    for runtime in result.runtimes:
        table.add_column(runtime, justify="right")
    paper_order = sorted(CONFIG_OF_ROW, key=PAPER_MS.__getitem__)
    orders = {runtime: result.order(runtime) for runtime in result.runtimes}
    for row in CONFIG_OF_ROW:
        figures = [
            f"{result.median(runtime, row):.2f} ({orders[runtime].index(row) + 1})"
            for runtime in result.runtimes
        ]
        table.add_row(row, f"{PAPER_MS[row]:.0f} ({paper_order.index(row) + 1})", *figures)
    return table


def plot(result: Result, path: Path) -> None:
    """Each row's time over V3†'s, the paper's beside every runtime's."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    rows = sorted(CONFIG_OF_ROW, key=PAPER_MS.__getitem__)
    series = {"paper, Pixel 1": [PAPER_MS[row] / PAPER_MS["V3†"] for row in rows]}
    for runtime in result.runtimes:
        series[runtime] = [result.ratio(runtime, (row, "V3†")).median for row in rows]
    height = 0.8 / len(series)
    for number, ((name, values), colour) in enumerate(zip(series.items(), PALETTE, strict=False)):
        places = [place + number * height for place in range(len(rows))]
        axes.barh(places, values, height=height, label=name, color=[c / 255 for c in colour])
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(rows))], rows)
    axes.invert_yaxis()
    axes.set_xlabel("network time over that of V3† (MobileNetV3-Large, reduced tail)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def to_json(result: Result) -> dict[str, Any]:
    ratios = {
        f"{pair[0]} / {pair[1]}": {
            "paper": round(PAPER_MS[pair[0]] / PAPER_MS[pair[1]], 4),
            **{runtime: result.ratio(runtime, pair)._asdict() for runtime in result.runtimes},
        }
        for pair in PAIRS
    }
    orders = {runtime: result.order(runtime) for runtime in result.runtimes}
    return result.measured.to_json() | {"ratios": ratios, "fastest_first": orders}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--cores", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, help="keep exported files there")
    parser.add_argument("--json", type=Path, help="the plot comes beside it")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    cores = tuple(arguments.cores) if arguments.cores else None
    protocol = Protocol(arguments.rounds, clock=arguments.clock, cores=cores)
    pin(protocol.cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(installed(arguments.runtime, console), protocol, folder, console)
    console.print(latency_table(result), ratio_table(result), soft_wrap=False)
    for line in protocol_lines(result.measured.protocol):
        console.print(line, highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(to_json(result), indent=1) + "\n")
        plot(result, arguments.json.with_suffix(".png"))


if __name__ == "__main__":
    main()

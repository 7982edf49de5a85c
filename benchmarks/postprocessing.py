"""What decoding and NMS add to a trained network, outside and inside the exported graph.

python benchmarks/postprocessing.py CKPT [--runtime onnxruntime openvino] [--picture FILE ...] [--json FILE]

The checkpoint is exported in its three forms with `--score_threshold`: raw (decoding and NMS by torch after
the network), decoded (NMS alone after it), nms (both in the graph). All take turns, one thread. The share of
a form is what its network and the rest take together beyond the raw network alone in the same round, as a
part of that. It has to be a trained detector: random scores lie all above or all below a threshold. Of the
best form of each runtime at most `SHARE_LIMIT` is promised; the exit code is 1 where it is more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detect.api import Detector
from detect.deploy.benchmark import PhotographToBoxes, describe_protocol, write_images
from detect.deploy.export import ExportOptions, export
from detect.deploy.latency import Protocol, interleave, load_average, paired_ratio, pin, summarise
from detect.deploy.latency_text import protocol_lines
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import RuntimeOptions
from detect.deploy.spec import Form

FORMS: tuple[Form, ...] = get_args(Form)
RUNTIMES: tuple[str, ...] = ("onnxruntime", "openvino")
"""That run all three forms, from one file each."""
SHARE_LIMIT = 0.08
Samples = dict[str, NDArray[np.float64]]
"""(rounds,) ms of each stage."""


def share(form: Samples, raw: Samples) -> dict[str, float]:
    """What a form takes beyond the raw network, as a part of it: median and spread over rounds."""
    ratio = paired_ratio(form["network"] + form["post"], raw["network"])
    return {"median": ratio.median - 1, "low": ratio.low - 1, "high": ratio.high - 1}


def measure(files: dict[Form, Path], pictures: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON: a row for each runtime and form, and the protocol."""
    protocol = Protocol(
        arguments.rounds,
        clock=arguments.clock,
        cores=tuple(arguments.cores) if arguments.cores else None,
    )
    protocol.check()
    pin(protocol.cores)
    torch.set_num_threads(1)
    before = load_average()
    kinds = [(runtime, form) for runtime in arguments.runtime for form in FORMS]
    detectors = [
        Detector(open_exported(files[form], name, options=RuntimeOptions(1))) for name, form in kinds
    ]
    subjects = [PhotographToBoxes(detector, pictures, 1, protocol) for detector in detectors]
    taken = dict(zip(kinds, interleave(subjects, protocol), strict=True))
    rows = [
        {
            "runtime": runtime,
            "form": form,
            "network_ms": summarise(taken[runtime, form]["network"]),
            "post_ms": summarise(taken[runtime, form]["post"]),
            "share": share(taken[runtime, form], taken[runtime, "raw"]),
        }
        for runtime, form in kinds
    ]
    return {"rows": rows, "protocol": describe_protocol(protocol, pictures, before)}


def table(result: dict[str, Any]) -> Table:
    """The rows for people."""
    grid = Table(title="decoding and NMS, median ms, one thread")
    for column in ("runtime", "form", "network", "after it", "decoding + NMS of the raw network"):
        grid.add_column(column, justify="left" if column in ("runtime", "form") else "right")
    for row in result["rows"]:
        part = row["share"]
        grid.add_row(
            row["runtime"],
            row["form"],
            f"{row['network_ms']['p50']:.2f}",
            f"{row['post_ms']['p50']:.2f}",
            f"{part['median']:.1%} ({part['low']:.1%} to {part['high']:.1%})",
        )
    return grid


def shortfalls(result: dict[str, Any]) -> list[str]:
    """Runtimes of which every form takes more than is promised."""
    found = []
    for runtime in dict.fromkeys(row["runtime"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["runtime"] == runtime]
        best = min(rows, key=lambda row: row["share"]["median"])
        if best["share"]["median"] > SHARE_LIMIT:
            found.append(
                f"{runtime}: decoding + NMS take {best['share']['median']:.1%} of the network's time in "
                f"form {best['form']}, its best; promised {SHARE_LIMIT:.0%}"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--score_threshold", type=float, default=0.05)
    parser.add_argument(
        "--picture", type=Path, nargs="+", help="instead of generated ones, which hold little"
    )
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    parser.add_argument("--cores", type=int, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {form: Path(folder) / f"{form}.onnx" for form in FORMS}
        for form, file in files.items():
            export(
                arguments.checkpoint,
                file,
                ExportOptions(form=form, score_threshold=arguments.score_threshold),
            )
        pictures = arguments.picture or write_images(Path(folder))
        result = measure(files, pictures, arguments)
    console = Console(soft_wrap=True)
    console.print(table(result))
    for line in protocol_lines(result["protocol"]):
        console.print(line, highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    for shortfall in shortfalls(result):
        console.print(f"falls short: {shortfall}", highlight=False)
    return 1 if shortfalls(result) else 0


if __name__ == "__main__":
    sys.exit(main())

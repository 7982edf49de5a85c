"""Kill a training run with SIGKILL at random moments, go on each time, and compare with a run never stopped.

bash scripts/kill_and_resume --kills 20
"""

from __future__ import annotations

import argparse
import collections
import random
import signal
import sys
import tempfile
import time
from copy import deepcopy
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from tests.conftest import make_coco
from tests.fit_cases import STEPS_PER_EPOCH, TINY, fit_args, read_raw, run_differences, write_config
from tests.processes import start_detect

CHECKPOINTS_PER_EPOCH = STEPS_PER_EPOCH + 1
"""After each step and after the validation."""


def start(args: list[str], log: Path) -> ForkServerProcess:
    """Start `detect fit` with a checkpoint after every step."""
    return start_detect(["fit", *args, "--checkpoint_minutes", "0"], log)


def exit_code(process: ForkServerProcess) -> int | None:
    """Once it has ended."""
    process.join()
    return process.exitcode


def wait_for_checkpoints(process: ForkServerProcess, last: Path, number: int) -> None:
    """Until the process has written so many, or is at its end."""
    written, known = 0, last.stat().st_mtime_ns if last.exists() else 0
    while written < number and process.is_alive():
        time.sleep(0.01)
        if last.exists() and last.stat().st_mtime_ns != known:
            written, known = written + 1, last.stat().st_mtime_ns


def moment_of(run: Path) -> str:
    """Where the kill fell, as far as the folder tells."""
    if list((run / "checkpoints").glob(".*.ckpt.*")):
        return "in the writing of a checkpoint"
    if not (run / "checkpoints" / "last.ckpt").exists():
        return "before the first checkpoint"
    steps = read_raw(run)["position"]["steps"]
    return "in a validation" if steps == STEPS_PER_EPOCH else "in or between steps"


def kill_and_resume(folder: Path, *, kills: int, epochs: int, seed: int) -> list[str]:
    """Differences between the run that was killed `kills` times and the one that was not.

    After each kill the rest of the run is begun anew with `--ckpt_path last`.

    Args:
        folder: an empty place for data and runs.
        kills: how many.
        epochs: of the run, each of 4 steps and a validation.
        seed: of the moments.
    """
    settings = deepcopy(TINY)
    settings["trainer"]["max_epochs"] = epochs
    config, data = write_config(folder, settings), make_coco(folder / "coco", train=16, val=5)
    straight, run, log = folder / "straight", folder / "run", folder / "log.txt"
    process = start(fit_args(config, data, straight), log)
    wait_for_checkpoints(process, straight / "checkpoints" / "last.ckpt", 1)
    began, checkpoints = time.monotonic(), epochs * CHECKPOINTS_PER_EPOCH
    if exit_code(process) != 0:
        raise SystemExit(log.read_text(errors="replace"))
    seconds_per_checkpoint = (time.monotonic() - began) / checkpoints

    rng, moments = random.Random(seed), collections.Counter[str]()
    args = fit_args(config, data, run, "--ckpt_path", "last")
    while True:
        process = start(args, log)
        if moments.total() < kills:
            # Up to its share of the run, so that the last kill comes before the end; then anywhere in a step.
            number = rng.randint(0, checkpoints // (kills + 1))
            wait_for_checkpoints(process, run / "checkpoints" / "last.ckpt", number)
            process.join(timeout=rng.uniform(0, seconds_per_checkpoint))
            if process.is_alive():
                process.kill()
        code = exit_code(process)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            return [f"exit code {code}:\n{log.read_text(errors='replace')}"]
        moments[moment_of(run)] += 1
        print(f"kill {moments.total()} of {kills}: {moment_of(run)}", flush=True)
    print(f"{moments.total()} kills: {dict(moments)}")
    found = run_differences(straight, run)
    if moments.total() < kills:
        found.append(f"the run ended after {moments.total()} of {kills} kills: give it more --epochs")
    return found


def main() -> int:
    """Returns 1 where the results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_resume(Path(folder), kills=args.kills, epochs=args.epochs, seed=args.seed)
    same = "weights, averages, optimizer and schedule are the same bit for bit, and so is metrics.csv"
    print("\n".join(found) or same)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""`detect search --strategy blocks`: trials of the block search, each trained by `detect fit`."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from detect.commands.search_training import FOUND_FILE, SearchFolder
from detect.commands.sweep import POLL_SECONDS, last_line, launch
from detect.commands.sweep_jobs import DETECT
from detect.config.unknown_keys import build
from detect.data.checks.splits import without_images
from detect.data.convert import write_copy
from detect.data.datamodule import DetectionData
from detect.data.divide import TRAIN, VAL, DivideOptions, choose_val
from detect.errors import InputError, RunStopped
from detect.search.blocks import BlockOptions, BlockSearch, Result, TrialFailed
from detect.search.blocks_page import write_blocks_page
from detect.search.found import found_config, write_config
from detect.search.measure import Bench, MeasureOptions
from detect.search.page import PAGE
from detect.search.study import open_storage
from detect.search.widths import explicit
from detect.system.devices import CPU, Slot
from detect.system.files import write_atomically
from detect.system.output_folder import new_folder
from detect.system.signals import how_it_ended, noted_signals
from detect.training.callbacks.metrics_file import EpochFile

STUDY_FILE = "study.journal"
TRIALS_FILE = "trials.json"


@dataclass(frozen=True)
class BlockRun:
    """How trials are measured, trained and scored."""

    blocks: BlockOptions
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    epochs: int = 5
    """Of each trial."""
    held_out: float = 0.2
    """Share of the training images that trials are scored on; the validation split stays unseen."""
    study: str | None = None
    """Null: a journal in the folder of the search."""
    slot: Slot = CPU
    trust: Sequence[str] = ()
    """The user's own modules."""

    def check(self) -> None:
        """Stop at options that make no search.

        Raises:
            InputError: names the option.
        """
        self.blocks.check()
        self.measuring.check()
        if self.epochs < 1:
            raise InputError(f"--epochs is {self.epochs}; give 1 or more")
        DivideOptions(self.held_out).check()


def search_blocks(folder: SearchFolder, options: BlockRun) -> int:
    """Search, train what was found and compare it with the start; the same command resumes or joins.

    Writes OUT/found.yaml, OUT/search.html and OUT/trials.json.

    Args:
        folder: of this worker, with the start.
        options: how.

    Raises:
        InputError: something that the user gave is wrong.
        RunStopped: on SIGINT or SIGTERM; the trial that ran is lost, the others are kept.
    """
    options.check()
    folder.check()
    out = folder.out
    storage = open_storage(options.study or str(out / STUDY_FILE))
    folder.jobs_of_start()  # refuses wrong seeds before the search
    settings, classes = hold_out(folder.settings(), out / "data", options.held_out)
    config = folder.config_with_flags()
    start = explicit({**settings["model"], "num_classes": classes})
    trials = TrialRuns(settings, out / "trials", options)
    with tempfile.TemporaryDirectory(prefix="detect-search-") as files:
        search = BlockSearch(
            start,
            options.blocks,
            storage=storage,
            setting=options.measuring.setting(start),
            bench=Bench(Path(files), options.measuring),
        )
        search.after_trial = lambda: write_results(out, config, search)
        run_trials(search, trials)
    best = search.found()  # there may be none
    write_results(out, config, search)
    print(f"written: {out / FOUND_FILE}, {out / PAGE}, {out / TRIALS_FILE}")
    if folder.search_only:
        return 0
    if best.params == search.space.start:
        print("no trial is better than the start: there is nothing to train")
        return 0
    # By the name of its trial: where more trials find another network, the start's trainings are kept.
    path = folder.trained / f"trial{best.number}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_config(path, config_of_trial(config, search, best), "")
    return folder.compare_with_start(path)


def run_trials(search: BlockSearch, trials: TrialRuns) -> None:
    """Run the search until it is over.

    Raises:
        InputError: see `BlockSearch.run`.
        RunStopped: on a signal.
    """
    try:
        search.run(trials.train)
    except KeyboardInterrupt as error:  # not while a trial is trained: it is drawn, measured or noted
        message = "the search was stopped; what is done is kept, the same command resumes"
        raise RunStopped(message, exit_code=128 + signal.SIGINT) from error


def hold_out(settings: dict[str, Any], folder: Path, share: float) -> tuple[dict[str, Any], int]:
    """Divide the training split into `folder`, once; returns settings that train on it, and K.

    Raises:
        InputError: the data cannot be read.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionData, "data")
    given = settings["data"] | {"image_size": settings["model"]["image_size"]}
    data: DetectionData = build(parser, {"data": given}, what="data settings").data
    data.open(("train",))
    if not folder.exists():
        held, _ = choose_val(data.train, DivideOptions(share))
        with new_folder(folder) as copy:
            sides = {TRAIN: without_images(data.train, held), VAL: without_images(data.train, ~held)}
            write_copy(copy, sides, "coco", "link")
        print(f"{int(held.sum())} of {len(held)} training images are held out to score trials")
    places = {f"{split}_{what}": None for split in (TRAIN, VAL) for what in ("annotations", "images")}
    divided = {"root": str(folder), "train_split": TRAIN, "val_split": VAL, "box_convention": None}
    return {**settings, "data": settings["data"] | places | divided}, data.classes.num_classes


class TrialRuns:
    """Trains the networks of trials by `detect fit`, each in a process and a folder of its own.

    Args:
        settings: of the start, every value; data that is divided.
        folder: of the trials.
        options: epochs, device.
    """

    def __init__(self, settings: dict[str, Any], folder: Path, options: BlockRun) -> None:
        self.settings, self.folder, self.options = settings, folder, options

    def train(self, network: dict[str, Any], number: int, after_epoch: Callable[[float], bool]) -> bool:
        """See `blocks.TrainTrial`.

        Raises:
            TrialFailed: the training ended with an error.
            RunStopped: on a signal, after the training has ended.
        """
        run = self.folder / f"{number:04d}"
        shutil.rmtree(run, ignore_errors=True)  # of a trial of this number in another study
        run.parent.mkdir(parents=True, exist_ok=True)
        config, log = run.with_suffix(".yaml"), run.with_suffix(".log")
        write_atomically(config, json.dumps(self.trial_settings(network), indent=1))
        trust = ["--trust", *self.options.trust] if self.options.trust else []
        command = [*DETECT, "fit", "--config", str(config), "--out", str(run), *trust]
        seen, stopped = 0, False
        with noted_signals() as signals:
            process = launch(command, log, self.options.slot)
            while True:
                ended = process.poll() is not None  # asked first: what it wrote last is read below
                rows = [row for row in EpochFile(run / "metrics.csv").read() if row.get("val/mAP")]
                for row in rows[seen:]:
                    stopped = stopped or after_epoch(max(0.0, float(row["val/mAP"])))
                seen = len(rows)
                if ended:
                    break
                if signals or stopped:
                    process.terminate()
                    process.wait()
                    break
                time.sleep(POLL_SECONDS)
        for part in ("checkpoints", "tensorboard"):
            shutil.rmtree(run / part, ignore_errors=True)
        if signals:
            message = f"the search was stopped; trial {number} is lost, the same command resumes"
            raise RunStopped(message, exit_code=128 + signals[0])
        if process.returncode and not stopped:
            how = how_it_ended(process.returncode)
            raise TrialFailed(f"trial {number} {how}: {last_line(log)} (log: {log})")
        return stopped

    def trial_settings(self, network: dict[str, Any]) -> dict[str, Any]:
        """Everything that a trial's `detect fit` needs."""
        trainer = self.settings["trainer"] | {
            **{"max_epochs": self.options.epochs, "max_steps": -1, "check_val_every_n_epoch": 1},
            **{"logger": False, "enable_progress_bar": False},
        }
        return {**self.settings, "model": network, "trainer": trainer}


def write_results(out: Path, config: dict[str, Any], search: BlockSearch) -> None:
    """Write OUT/trials.json and OUT/search.html, and OUT/found.yaml once a trial was completed.

    Args:
        out: the folder.
        config: of the start, plain values of a file of `detect fit`.
        search: with its trials.
    """
    write_atomically(out / TRIALS_FILE, json.dumps(search.to_json(), indent=1) + "\n")
    write_blocks_page(out, search)
    if not any(result.state == "complete" for result in search.results()):
        return
    best = search.found()
    write_config(
        out / FOUND_FILE,
        config_of_trial(config, search, best),
        f"# Found by detect search --strategy blocks in trial {best.number} of {len(search.results())}: "
        f"{best.latency_ms:.2f} ms, the start {search.start_ms:.2f} ms,\n"
        f"# wanted {search.target_ms:.2f} ms; mAP {best.accuracy:.3f} on images held out after a short "
        "training.\n",
    )


def config_of_trial(config: dict[str, Any], search: BlockSearch, result: Result) -> dict[str, Any]:
    """The configuration of the start with the network of a trial."""
    network = search.space.network(result.params)
    content = found_config(config, network)
    content["model"]["image_size"] = network["image_size"]
    content["model"]["backbone"]["init_args"].pop("weights", None)  # of another network
    return content

"""Trains the proposals of a step: one by one in this process, or one per device in processes of their own.

What a proposal becomes depends on its task alone, so that both give the same networks, bit for bit.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import torch

from detect.errors import InputError
from detect.model.checkpoint import checkpoint_content, read_checkpoint
from detect.search.trial import Trials
from detect.system.devices import VISIBLE_GPUS, Slot
from detect.system.signals import how_it_ended
from detect.training.module import DetectionModule

POLL_SECONDS = 0.2


class Task(NamedTuple):
    """A network to train and score, in plain values and files."""

    step: int
    """Of the search."""
    wide: dict[str, Any]
    """Settings of the network that it inherits from, every width stated."""
    wide_file: Path
    """That network's checkpoint."""
    narrow: dict[str, Any] | None
    """Settings of the network; None: score the wide one as it is."""


class Outcome(NamedTuple):
    """A network that was trained and scored."""

    accuracy: float
    """MAP on the images that no trial is shown."""
    seconds: float
    content: dict[str, Any]
    """Of its checkpoint."""


class Trainer(Protocol):
    """What trains proposals."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """The place and the outcome of every task, as they are finished."""


class OneByOne:
    """Trains proposals in this process."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials
        self._wide: tuple[Path, DetectionModule] | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """See `Trainer`."""
        for place, task in enumerate(tasks):
            yield place, self.outcome(task)

    def outcome(self, task: Task) -> Outcome:
        """Train and score one network."""
        if self._wide is None or self._wide[0] != task.wide_file:
            self._wide = task.wide_file, self.trials.load(task.wide, read_checkpoint(task.wide_file))
        module = self._wide[1]
        if task.narrow is not None:
            self.trials.batches(task.step)  # the first proposal of a step would seem to be slow
        began = time.monotonic()
        if task.narrow is not None:
            module = self.trials.narrower(module, task.narrow, step=task.step)
            self.trials.train(module, step=task.step)
        accuracy = self.trials.score(module)
        return Outcome(accuracy, time.monotonic() - began, checkpoint_content(module.detector))


class PerDevice:
    """Trains proposals in a process per slot, each with its own copy of the data.

    Args:
        slots: GPUs, or the CPU several times.
        open_trials: opens the data; it is called in each process, so it must be something that pickle takes.
        stop: called while waiting; raises where the search is to end.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        open_trials: Callable[[], Trials],
        *,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.stop = stop
        self.workers = [_begin(slot, open_trials) for slot in slots]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes: what they are at is not noted, and is done again by the search that resumes."""
        for process, connection in self.workers:
            process.terminate()
            connection.close()
        for process, _ in self.workers:
            process.join()

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """See `Trainer`.

        Raises:
            InputError: a process has died.
        """
        waiting, busy = list(enumerate(tasks)), dict[Connection, int]()
        while waiting or busy:
            self.stop()
            try:
                for _, connection in self.workers:
                    if waiting and connection not in busy:
                        busy[connection], task = waiting.pop(0)
                        connection.send(task)
                ready = wait(list(busy), timeout=POLL_SECONDS)
                finished = [
                    (busy.pop(connection), pickle.loads(connection.recv_bytes()))
                    for connection in list(busy)
                    if connection in ready
                ]
            except (EOFError, ConnectionError) as error:
                self.stop()  # what ended the process may have been meant for this one too
                raise InputError(
                    f"a process that trains proposals {self._how_one_ended()}; what is done is kept, the "
                    "same command resumes"
                ) from error
            yield from finished

    def _how_one_ended(self) -> str:
        """Of the first process that has ended, in words."""
        ready = wait([process.sentinel for process, _ in self.workers])
        ended = next(process for process, _ in self.workers if process.sentinel in ready)
        ended.join()  # it is there to be asked a moment after its sentinel says so
        return how_it_ended(ended.exitcode or 0)


def _begin(
    slot: Slot, open_trials: Callable[[], Trials]
) -> tuple[multiprocessing.context.SpawnProcess, Connection]:
    """A process that sees the GPUs of a slot alone, and where it takes its tasks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, open_trials, torch.get_num_threads()))
    before = os.environ.get(VISIBLE_GPUS)
    os.environ[VISIBLE_GPUS] = ",".join(slot)
    # Ctrl-C reaches it too, from its first import on, and is not its business: the search ends it.
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
        del os.environ[VISIBLE_GPUS]
        if before is not None:
            os.environ[VISIBLE_GPUS] = before
    theirs.close()
    return process, ours


def _serve(tasks: Connection, open_trials: Callable[[], Trials], threads: int) -> None:
    """Train what comes until the search has ended."""
    logging.disable(logging.WARNING)  # of the data, which the search itself has told
    torch.set_num_threads(threads)
    worker = OneByOne(open_trials())
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        tasks.send_bytes(pickle.dumps(worker.outcome(task)))

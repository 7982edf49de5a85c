"""Which file each loading process is working on, so that one that hangs can be named."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray

from torch.utils.data import get_worker_info

STALL_S = 60.0
"""A batch takes a second or two on a slow disk; who waits a minute wants to know for what."""
IDLE = -1


class InHand:
    """The row that each worker is at and since when, in memory that all processes of a loader share.

    Args:
        workers: of the loader; without any the process itself is the one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._rows = RawArray("q", [IDLE] * max(1, workers))
        self._since = RawArray("d", max(1, workers))

    @contextmanager
    def take(self, row: int) -> Iterator[None]:
        """Note that this process is at image `row`."""
        info = get_worker_info()
        worker = 0 if info is None else info.id
        self._since[worker] = time.monotonic()  # one clock for all processes of a machine
        self._rows[worker] = row
        yield
        # Not in a `finally`: an error ends the loader, and says its file itself.
        self._rows[worker] = IDLE

    def held(self) -> list[tuple[int, int, float]]:
        """(worker, row, seconds) of each that holds an image, the longest first."""
        now = time.monotonic()
        rows = [
            (worker, int(row), now - self._since[worker])
            for worker, row in enumerate(self._rows)
            if row != IDLE
        ]
        return sorted(rows, key=lambda entry: -entry[2])


def describe_stall(in_hand: InHand, name_of: Callable[[int], object], *, waited_s: float) -> str:
    """Message about a loader that gives no batch.

    Args:
        in_hand: of its workers.
        name_of: file of a row.
        waited_s: since a batch was asked for.
    """
    lines = [f"no batch for {waited_s:.0f} s:"]
    for worker, row, seconds in in_hand.held():
        who = f"worker {worker}" if in_hand.workers else "this process"
        lines.append(f"  {who} has been at {name_of(row)} for {seconds:.0f} s")
    if len(lines) == 1:
        lines.append("  no worker has a file in hand; is one killed, or the machine out of memory?")
    return "\n".join(lines)


@contextmanager
def stall_reported(in_hand: InHand, name_of: Callable[[int], object]) -> Iterator[None]:
    """While the block runs: after `STALL_S` seconds, and every `STALL_S` more, say who is at what."""
    over = threading.Event()
    began = time.monotonic()

    def report() -> None:
        while not over.wait(STALL_S):
            waited_s = time.monotonic() - began
            print(describe_stall(in_hand, name_of, waited_s=waited_s), file=sys.stderr, flush=True)

    # A thread for each wait and none in between: workers are forked then, and a fork copies held locks.
    watch = threading.Thread(target=report, name="loader-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()

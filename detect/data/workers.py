"""Loading processes: how many a rank starts, and what each leaves to the trainer."""

from __future__ import annotations

import gc
import signal
from typing import NamedTuple

from detect.system.memory import keep_freed_memory

MAX_WORKERS = 8
"""More workers than this wait for each other's memory rather than for the trainer."""


class LoaderSettings(NamedTuple):
    """What decides how fast a rank loads, besides the files."""

    workers: int
    ranks_here: int
    """Processes that train on this machine."""
    cached: bool


def choose_workers(cores: int, ranks_here: int) -> int:
    """Workers of one rank: a core stays with the trainer, the ranks of the machine share the others."""
    return min(MAX_WORKERS, max(0, cores // ranks_here - 1))


def start_worker(worker: int) -> None:
    """Leave to the trainer what is the trainer's.

    Ctrl-C reaches the whole process group, and the trainer needs its workers to finish the step and save.
    Objects inherited from it (other loaders' iterators) must not be finalised here. What an image took is
    kept for the next one.
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()

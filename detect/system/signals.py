"""Ctrl-C and SIGTERM as a note, for whoever has something to save first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM go into a list, so that none comes between work and the note of it.

    Only a program's main thread may ask for signals; in others the list stays empty.
    """
    signals: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def how_it_ended(exit_code: int) -> str:
    """An exit code in words; Python gives signals as negative numbers."""
    if exit_code == -signal.SIGKILL:
        return "was killed from outside, as the system does when memory runs out"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with {exit_code}"

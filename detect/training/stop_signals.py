"""Ctrl-C and SIGTERM during training: a request that the trainer answers when everything can be saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from detect.errors import RunStopped

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Notes the first signal; a second Ctrl-C stops at once.

    Lightning's own SIGTERM handler broadcasts between the ranks from inside the handler, which cannot match
    what the other ranks are doing just then; while these are installed it is not called.
    """

    def __init__(self) -> None:
        self.signum = 0
        """The signal that was received; 0: none."""
        self._previous: dict[int, Any] = {}
        self._pid = 0
        self._pass_on: Callable[[int], None] | None = None

    def install(self, pass_on: Callable[[int], None] | None = None) -> None:
        """Take over the signals of this process.

        Args:
            pass_on: sends a SIGTERM on to processes that this one started; Ctrl-C reaches them by itself.
        """
        self._pid = os.getpid()
        self._pass_on = pass_on
        self._previous = {signum: signal.signal(signum, self._note) for signum in STOP_SIGNALS}

    def remove(self) -> None:
        """Give the signals back to who had them."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a loading process inherited this; its trainer tells it when to end
        if signum == signal.SIGINT and self.signum:
            raise RunStopped("stopped at once, without saving again", exit_code=128 + signum)
        if signum == signal.SIGTERM and self._pass_on is not None and not self.signum:
            self._pass_on(signum)
        self.signum = self.signum or signum
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step\n".encode())

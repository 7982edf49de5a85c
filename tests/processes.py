"""`detect` in processes of its own, forked from one that has imported it: the imports take 7 s of a core."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from detect.commands.main import main

TIMEOUT_S = 600


def _detect(
    words: Sequence[str], log: Path, environment: Mapping[str, str], prepare: Callable[[], None] | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if prepare is not None:
        prepare()
    sys.exit(main(list(words)))


def start_detect(
    words: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """Start `detect WORDS`, one thread; what it prints goes to `log`.

    Args:
        words: of the command line.
        log: a new file.
        environment: more than that of this process has.
        prepare: is called there first.
    """
    arguments = (words, log, {**os.environ, **(environment or {})}, prepare)
    process = get_context("forkserver").Process(target=_detect, args=arguments)
    process.start()
    return process


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run_ranks(
    words: Sequence[str], folder: Path, *, number: int = 2, prepare: Callable[[], None] | None = None
) -> str:
    """Run `detect WORDS` on ranks of this machine, as torchrun starts them; all that they print.

    Args:
        words: of the command line, without devices and strategy.
        folder: where the logs go.
        number: of ranks.
        prepare: is called in each first.
    """
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    meeting |= {"TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    logs = [folder / f"rank{rank}.log" for rank in range(number)]
    devices = ("--trainer.devices", str(number), "--trainer.strategy", "ddp")
    ranks = [
        start_detect(
            [*words, *devices],
            log,
            {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
            prepare,
        )
        for rank, log in enumerate(logs)
    ]
    for process in ranks:
        process.join(timeout=TIMEOUT_S)
    said = "".join(log.read_text(errors="replace") for log in logs)
    assert [process.exitcode for process in ranks] == [0] * number, said
    return said

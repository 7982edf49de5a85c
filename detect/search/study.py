"""Where the study of a block search is, and which of its workers are still there."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from detect.deploy.runtimes.base import require
from detect.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL_SUFFIXES = (".journal", ".log")


def require_optuna() -> ModuleType:
    """Optuna.

    Raises:
        InputError: it is not installed; with the line that installs it.
    """
    return require("optuna", extra="search", path="--strategy blocks")


def open_storage(url: str) -> BaseStorage:
    """Where a study is: a journal file, or a database.

    Args:
        url: sqlite:///FILE, postgresql://..., or a file that ends in .journal or .log.

    Raises:
        InputError: Optuna is missing, or nothing can be opened there.
    """
    optuna = require_optuna()
    if "://" not in url:
        path = Path(url)
        if path.suffix not in JOURNAL_SUFFIXES:
            raise InputError(
                f"--study {url}: give a file that ends in {' or '.join(JOURNAL_SUFFIXES)}, or the URL of a "
                "database: sqlite:///study.db, postgresql://user@host/name"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)
    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        raise InputError(f"--study {url}: its driver is not installed ({error})") from error
    except Exception as error:  # of SQLAlchemy and of drivers, without a common base
        raise InputError(f"--study {url} cannot be opened: {str(error).splitlines()[0]}") from error


def this_worker() -> list[Any]:
    """The machine and the process of a trial."""
    return [socket.gethostname(), os.getpid()]


def is_dead(worker: Sequence[Any] | None) -> bool:
    """Whether a process of this machine is gone; nothing is known of other machines."""
    if worker is None or worker[0] != socket.gethostname():
        return False
    if worker[1] == os.getpid():
        return True  # this one has not begun any: the number was another's before
    try:
        os.kill(worker[1], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

"""A run's folder: where it is, chosen once for all ranks."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from detect.errors import InputError
from detect.system.ranks import rank_by_environment

RUN_VARIABLE = "DETECT_RUN"
"""Hands the folder that the first process chose to the processes that Lightning starts."""

AGREEMENT_TIMEOUT = timedelta(minutes=10)
"""How long the ranks of a torchrun job wait for the first to choose."""


def choose_run_folder(out: Path | None, *, name: str, resume: bool) -> Path:
    """The folder of this run, the same on all its ranks: `out`, or the first free `runs/NAME-NNN`.

    Args:
        out: what the user gave.
        name: stem of the configuration file.
        resume: the run continues an old one, so its folder may exist.

    Raises:
        InputError: the folder holds a run and this one is new, it holds a file of the user's that a run would
            replace, or the ranks cannot agree on a number.
    """
    if rank_by_environment():
        return _chosen_by_rank_0(out)
    if out is None:
        store = _store_of_torchrun()
        out = _claim_numbered_folder(Path("runs"), name)
        if store is not None:
            store.set(RUN_VARIABLE, str(out))
    elif out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    elif not resume and out.exists() and any(out.iterdir()):
        raise InputError(
            f"{out} exists and is not empty: continue it with --ckpt_path last, or choose another --out"
        )
    elif (out / "config.yaml").exists() and not (out / "manifest.json").exists():
        raise InputError(
            f"{out / 'config.yaml'} is not a run's, and a run would replace it: choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    os.environ[RUN_VARIABLE] = str(out)
    return out


def _chosen_by_rank_0(out: Path | None) -> Path:
    """What rank 0 decided: it may be writing into the folder already, so nothing is checked here."""
    if out is not None:
        return out
    if store := _store_of_torchrun():
        return Path(store.get(RUN_VARIABLE).decode())
    if RUN_VARIABLE in os.environ:
        return Path(os.environ[RUN_VARIABLE])
    raise InputError("the tasks of this job cannot agree on a new run folder: give them one with --out")


def _store_of_torchrun() -> Store | None:
    """The key-value store that torchrun's ranks will meet at, or None where torchrun did not start this."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    store, _, _ = next(rendezvous("env://", timeout=AGREEMENT_TIMEOUT))
    return PrefixStore("detect", store)


def _claim_numbered_folder(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100_000):
        folder = parent / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{parent}: 99,999 runs named {name} exist; give --out")

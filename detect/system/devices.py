"""Which GPUs of this machine are free, asked without opening one."""

from __future__ import annotations

import os
import subprocess

from detect.errors import InputError

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
USED_SHARE = 0.1
"""A GPU with more of its memory in use belongs to someone else; a driver alone takes about 1 %."""
ASK_SECONDS = 30
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
"""Read when a process starts."""
CPU: tuple[str, ...] = ()
"""A slot without a GPU."""

Slot = tuple[str, ...]
"""The GPUs of one job, as CUDA_VISIBLE_DEVICES names them; empty: the CPU."""


def job_slots(wanted: list[str] | None, per_job: int) -> list[Slot]:
    """One slot for each job that may run at the same time.

    Args:
        wanted: GPUs to use whatever runs on them; None: all that are free, or the CPU where there is none.
        per_job: GPUs of a job.

    Raises:
        InputError: too few GPUs for one job, one is named twice, or all are in use.
    """
    if per_job < 1:
        raise InputError(f"--devices_per_job is {per_job}; a job needs at least 1")
    if wanted is not None and len(set(wanted)) < len(wanted):
        raise InputError(f"--devices {' '.join(wanted)}: a device is named twice")
    gpus = free_gpus() if wanted is None else wanted
    if not gpus and per_job == 1:
        return [CPU]
    if len(gpus) < per_job:
        raise InputError(f"--devices_per_job {per_job}: there are {len(gpus)} GPUs to use")
    return [tuple(gpus[i : i + per_job]) for i in range(0, len(gpus) - per_job + 1, per_job)]


def free_gpus() -> list[str]:
    """GPUs that this process may see and that no one uses; empty where there are none at all.

    Raises:
        InputError: there are some, and all are in use.
    """
    memory = memory_share()
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if "-1" in names:
            names = names[: names.index("-1")]  # as CUDA reads the list
    else:
        names = [name for name in memory if name.isdigit()]
    free = [name for name in names if memory.get(name, 0.0) <= USED_SHARE]
    for name in names:
        if name not in free:
            print(f"GPU {name} is left out: {memory[name]:.0%} of its memory is in use", flush=True)
    if names and not free:
        raise InputError("all GPUs are in use; name those to share with --devices")
    return free


def memory_share() -> dict[str, float]:
    """Share of the memory in use by index and by UUID; empty without NVIDIA's driver."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return {}
    shares = {}
    for line in answer.stdout.splitlines():
        index, uuid, used, total = (cell.strip() for cell in line.split(","))
        shares[index] = shares[uuid] = int(used) / int(total)
    return shares

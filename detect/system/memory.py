"""How the C library treats memory that torch frees on a CPU."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Parameters of glibc's mallopt(3), from its malloc.h."""


def keep_freed_memory() -> bool:
    """Let the process keep freed memory for its next step instead of giving it back to the system.

    By default glibc maps every block of more than 32 MiB again and gives the top of the heap back when it is
    freed. The activations of a step are such blocks: each step then takes a page fault for every 4 KiB of
    them, a fifth of its time (figures in docs/results.md). The peak hardly changes; up to 2 GiB of it are not
    returned before the process ends. That suits a process that is ours alone, as the command line's and a
    loader's worker; a library must not set it for its user.

    Returns:
        False where the C library is another one; nothing is changed then.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

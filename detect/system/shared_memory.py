"""Whether /dev/shm can hold the batches that workers keep ready.

Workers hand batches over in shared memory. Where it is full the kernel ends a worker with a bus error, hours
into a run and without a word about the reason; containers have 64 MB of it unless told otherwise.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from detect.errors import InputError

SHARED_MEMORY = Path("/dev/shm")
MIB = 2**20
BOX_BYTES = 4 * 4 + 8 + 1
"""Bytes of one row of a `Target`: box, label, ignore."""
ROW_BYTES = 8 + 2 * 8
"""Bytes of one image beside pixels and boxes: sample_idx, orig_size."""


def batch_bytes(batch_size: int, image_size: tuple[int, int], *, boxes: int, value_bytes: int = 1) -> int:
    """Memory of one batch.

    Args:
        batch_size: images.
        image_size: (H, W) of the input.
        boxes: per image after padding.
        value_bytes: of a pixel's channel; 1 for uint8.
    """
    height, width = image_size
    return batch_size * (3 * height * width * value_bytes + boxes * BOX_BYTES + ROW_BYTES)


def bytes_in_flight(batch: int, *, workers: int, prefetch: int) -> int:
    """What one loader holds at most: each worker's batches and the one in use."""
    return batch * (workers * prefetch + 1) if workers else 0


def require_shared_memory(needed: int, *, workers: int, prefetch: int) -> None:
    """Check that `needed` bytes are free.

    Args:
        needed: by all ranks of this machine.
        workers: of each rank, for the message.
        prefetch: batches of each worker, for the message.

    Raises:
        InputError: they are not; names the size that a container must be given.
    """
    if needed == 0 or not SHARED_MEMORY.is_dir():
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    if needed <= usage.free:
        return
    size = math.ceil((usage.total - usage.free + needed) / MIB)
    raise InputError(
        f"{SHARED_MEMORY} has {usage.free / MIB:.0f} MiB free, the batches that {workers} workers per device "
        f"prepare {prefetch} ahead need {math.ceil(needed / MIB)} MiB: start the container with "
        f"--shm-size={size}m, or lower --data.workers or --data.prefetch"
    )

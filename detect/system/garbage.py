"""When not to look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Python's search for cyclic garbage is off inside.

    For code that makes very many small objects, all of them in use: each search walks every object of the
    program and finds nothing, which can take longer than the work. Reference counting continues.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

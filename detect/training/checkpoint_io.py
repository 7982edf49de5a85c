"""How Lightning writes and reads a run's checkpoints: whole or not at all, at today's format version."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from detect.model.checkpoint import write_checkpoint
from detect.model.checkpoint_format import migrate


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint whole or not at all: a temporary file beside it, fsync, rename.

    Lightning's own goes through the system's temporary folder, which may be another, smaller disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """What Lightning resumes from, at today's format version."""
        content = super().load_checkpoint(Path(path), map_location, weights_only)
        return migrate(content, Path(path)) if "detect" in content else content

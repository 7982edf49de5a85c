"""`detect fit` with BatchNorm's averages held: the result then does not depend on how a batch is shared out.

Run as `python -m tests.fit_ranks ARGS`, so that Lightning can start the other ranks in the same way.
"""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from detect.commands.main import main
from detect.training.module import DetectionModule


def hold_averages(patch: pytest.MonkeyPatch) -> None:
    """Put every BatchNorm of what is trained in eval mode, as each batch begins."""
    start_batch = DetectionModule.on_train_batch_start

    def start_batch_with_averages_held(self: DetectionModule, *args: object) -> None:
        for child in self.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.eval()
        start_batch(self, *args)  # type: ignore[arg-type]

    patch.setattr(DetectionModule, "on_train_batch_start", start_batch_with_averages_held)


if __name__ == "__main__":
    torch.set_num_threads(1)
    hold_averages(pytest.MonkeyPatch())
    sys.exit(main(["fit", *sys.argv[1:]]))

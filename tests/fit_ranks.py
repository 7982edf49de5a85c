"""`detect fit` with BatchNorm's averages held: the result then does not depend on how a batch is shared out.

Run as `python -m tests.fit_ranks ARGS`, so that Lightning can start the other ranks in the same way.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from detect.commands.main import main
from detect.training.module import DetectionModule


def hold_averages(module: DetectionModule) -> None:
    """Put every BatchNorm in eval mode, as each batch begins."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    start_batch = DetectionModule.on_train_batch_start

    def start_batch_with_averages_held(self: DetectionModule, *args: object) -> None:
        hold_averages(self)
        start_batch(self, *args)  # type: ignore[arg-type]

    DetectionModule.on_train_batch_start = start_batch_with_averages_held  # type: ignore[method-assign]
    sys.exit(main(["fit", *sys.argv[1:]]))

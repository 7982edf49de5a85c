"""Tests of the tools before step 0, and explanations where the loss explodes or mAP stays at zero."""

from __future__ import annotations

from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch.nn import functional as F

from detect.data.sampler import TrainLoader
from detect.errors import InputError
from detect.evaluation.diagnostics import NEAR_ZERO_MAP, explain_zero_map, ground_truth_metrics, self_test
from detect.system.files import write_atomically
from detect.training.losses import TOTAL
from detect.training.module import DetectionModule
from detect.training.run_state import data_of, train_loader
from detect.types import Batch

FRESH_LOSS_MARGIN = 0.5
"""Nats between the class loss of a fresh head and what its biases alone give; see docs/results.md."""
DIAGNOSED_AFTER_EPOCHS = 5
"""A detector that still has no mAP then is more likely miswired than slow."""
EXPLODED = 10.0
"""Times its first value, twice in a row: no batch is so much harder than the first."""


class RunChecks(Callback):
    """Fails before step 0 where environment or loss is broken; explains a loss that explodes, a mAP of zero.

    Args:
        folder: the run's; an explanation is written to its diagnosis.txt as well.
        fresh: the heads start from their prior, and not from another detector.
    """

    def __init__(self, folder: Path, *, fresh: bool = True) -> None:
        self.folder = folder
        self.fresh = fresh
        self._explained = False
        self._start_step = 0
        self._first_loss: float | None = None
        self._high_before = self._said_exploded = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DetectionModule)
        self._start_step = trainer.global_step
        if trainer.global_step > 0:
            return
        if trainer.is_global_zero:
            try:
                self_test()
            except RuntimeError as error:  # the user's environment, and the message says how to mend it
                raise InputError(str(error)) from error
        if self.fresh:
            check_fresh_loss(pl_module, first_batch(train_loader(trainer)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DetectionModule)
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        # Within the first accumulation window, of a resumed run too, no loss is known.
        if step == self._start_step or self._said_exploded:
            return
        if self._first_loss is None:
            self._first_loss = pl_module.train_losses()[f"train/{TOTAL}"].item()
        elif step % every == 0 and f"train_step/{TOTAL}" in trainer.callback_metrics:
            loss = trainer.callback_metrics[f"train_step/{TOTAL}"].item()
            high = loss > EXPLODED * self._first_loss
            if high and self._high_before:
                self._said_exploded = True
                rank_zero_info(explain_explosion(trainer, loss, first=self._first_loss))
            self._high_before = high

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DetectionModule)
        if (
            self._explained
            or not trainer.is_global_zero
            or trainer.current_epoch + 1 < DIAGNOSED_AFTER_EPOCHS
        ):
            return
        if 0 <= pl_module.metrics.mAP < NEAR_ZERO_MAP:
            self._explained = True
            text = explain_near_zero(trainer, pl_module)
            write_atomically(self.folder / "diagnosis.txt", text + "\n")
            rank_zero_info(text)


def first_batch(loader: TrainLoader) -> Batch:
    """The first batch of the epoch, loaded here: no worker is started for it."""
    keys = next(islice(loader.batch_sampler, 1))
    batch: Batch = loader.collate_fn([loader.dataset[key] for key in keys])
    return batch


@torch.no_grad()
def check_fresh_loss(module: DetectionModule, batch: Batch) -> float:
    """Compare a fresh head's class loss with what its biases alone would give: ln(K + 1) where all are 0.

    The mean cross-entropy over all anchors, with no negatives left out. Returns it, in nats.

    Raises:
        InputError: they differ by more than FRESH_LOSS_MARGIN: images, initial weights or labels are off.
    """
    net = deepcopy(module.net).train()  # a copy, for the averages of BatchNorm
    images, target = (
        batch.images.to(module.device),
        type(batch.target)._make(column.to(module.device) for column in batch.target),
    )
    head_outputs = net(images)
    cls_logits = head_outputs.cls_logits.float()
    anchors, levels = net.anchors_of(images.shape[-2:])
    labels = module.loss.assigner(head_outputs, anchors, levels, target).labels
    bias = module.loss.prior_bias(net.num_classes).to(cls_logits)
    measured = F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten()).item()
    expected = F.cross_entropy(bias.expand_as(cls_logits).flatten(0, 1), labels.flatten()).item()
    if not abs(measured - expected) <= FRESH_LOSS_MARGIN:
        raise InputError(
            f"before the first step the class loss is {measured:.3f}, where {net.num_classes} classes and "
            f"an untrained head give {expected:.3f}: check model.mean and model.std, the initial weights "
            "and the labels of the data (`detect data check`)"
        )
    return measured


def explain_explosion(trainer: L.Trainer, loss: float, *, first: float) -> str:
    """What a loss many times its first value comes from, and what to change."""
    rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
    return (
        f"the loss is {loss:.3g} at step {trainer.global_step}, {loss / first:.0f} times its first value of "
        f"{first:.3g}: training diverges. The learning rate, {rate:.2g} now, is too high for batches of "
        f"{data_of(trainer).total_batch_size}: stop, and try a third of it in model.optimizer, or "
        "--trainer.gradient_clip_val 10"
    )


def explain_near_zero(trainer: L.Trainer, module: DetectionModule) -> str:
    """The checks of `diagnostics` as lines of text, the first that fails on top."""
    annotations = data_of(trainer).val
    truth = ground_truth_metrics(annotations).mAP
    checks = explain_zero_map(annotations, module.evaluator.detections, image_size=module.net.image_size)
    failed = next((check for check in checks if not check.passed), None)
    if truth < 1.0 - 1e-9:
        head = f"the ground truth scored as detections gives mAP {truth:.3f}, not 1: mend the annotations"
    elif failed is not None:
        head = f"the likely cause is {failed.name}: {failed.message}"
    else:
        head = "nothing is mixed up: the detector has not learnt yet; more epochs or another learning rate"
    epochs = trainer.current_epoch + 1
    return "\n".join([f"mAP is still below {NEAR_ZERO_MAP} after {epochs} epochs; {head}", *map(str, checks)])

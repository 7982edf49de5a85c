"""What every module in training does, whatever it learns: steps, schedule, sums over ranks, averages.

`module` trains detectors with it, `classification` classifiers.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from typing import Any, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from detect.errors import InputError
from detect.model.classifier import Classifier
from detect.model.ssdlite import SSDLite
from detect.system.ranks import sum_over_ranks, take_statistics_of_rank_0
from detect.training.batch_norm import images_of_epoch, norms_in_training, recompute_statistics
from detect.training.finite_guard import FiniteGuard
from detect.training.lightning_loops import set_epochs, validate_on_every_rank
from detect.training.losses import LossTerms
from detect.training.parameters import (
    ParameterConfig,
    freeze,
    hold_statistics,
    parameter_groups,
    scale_learning_rates,
)
from detect.training.run_state import RunLength, data_of, run_length, train_loader
from detect.training.schedules import Schedule, WarmupCosine
from detect.types import Batch, ClassMap

LOSS_UNIT = 256.0
"""Divides the summed loss before backward, so that gradients stay in the range of float16: about the
positives of a batch. The exact number divides the gradients once it is known."""


class RunModule(L.LightningModule):
    """Base class of what `detect fit` and `detect pretrain` train.

    A subclass gives sums over a batch (`LossTerms`) to `window_loss` and to `add_validation_sums`.

    Args:
        optimizer: from the parameters to an optimizer; its lr belongs to the total batch size.
        schedule: null: WarmupCosine.
        parameters: freezing, learning rates by part, weight decay by kind.
        statistics_images: training images for BatchNorm's statistics before each validation of a fit; 0: the
            running averages of training.

    Raises:
        InputError: `statistics_images` is 1 or negative.
    """

    length: RunLength
    """How far the trainer goes; from `setup` on."""
    guard: FiniteGuard
    """From the start of training on."""
    brief_metrics: tuple[str, ...] = ()
    """Names, as `val/NAME`, of the metrics in the table that is shown while it trains."""

    def __init__(
        self,
        *,
        optimizer: OptimizerCallable,
        schedule: Schedule | None,
        parameters: ParameterConfig,
        statistics_images: int,
    ) -> None:
        super().__init__()
        if statistics_images < 0 or statistics_images == 1:
            raise InputError(f"model.statistics_images is {statistics_images}; give 0, or 2 or more")
        self.parameter_config = parameters
        self.optimizer_from = optimizer
        self.schedule = WarmupCosine() if schedule is None else schedule
        self.statistics_images = statistics_images
        self.max_steps: int | None = None
        """End the run after so many optimizer steps, before the trainer's epochs are over."""

    # ---- what a subclass says

    @property
    @abstractmethod
    def net(self) -> SSDLite | Classifier:
        """The network."""

    @property
    @abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss in training, in order."""

    @property
    def val_term_names(self) -> tuple[str, ...]:
        """Those of a validation."""
        return self.term_names

    @property
    @abstractmethod
    def score(self) -> float:
        """What the last validation gave, by which the best checkpoint is chosen: more is better."""

    @abstractmethod
    def layout(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the weights."""

    @abstractmethod
    def batch_terms(self, batch: Batch) -> LossTerms:
        """Forward and loss of a training batch."""

    @abstractmethod
    def sample_terms(self, net: nn.Module, batch: Batch) -> list[LossTerms]:
        """The loss of each sample of a training batch by itself, from one forward pass of `net`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of the network."""

    # ---- set-up

    def start_sums(self) -> None:
        """Begin with nothing trained; once the terms are known."""
        freeze(self.net, self.parameter_config.freeze)
        self._window_sums = self._no_sums()
        self._epoch_sums = self._no_sums()
        self._val_sums = self._no_sums(self.val_term_names)

    def settle_length(self) -> None:
        """Find out how far the trainer goes; to be called in `setup`."""
        # DDP would send BatchNorm's averages around in every forward pass, in validation as well, where ranks
        # may have different numbers of batches. See `take_statistics_of_rank_0`.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.length = run_length(self.trainer, self.max_steps)
        set_epochs(self.trainer, self.length.epochs)
        data_of(self.trainer).run_epochs = self.length.epochs

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = parameter_groups(self.net, self.parameter_config)
        try:
            optimizer = self.optimizer_from(groups)
        except ValueError as error:  # torch's word for a rate or a decay out of range
            raise InputError(f"model.optimizer: {error}") from error
        scale_learning_rates(optimizer)
        # Lightning's own count of steps would start the loader, before a checkpoint can say where.
        steps = self.length.total_steps
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total_steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        hold_statistics(self.net, self.parameter_config.freeze)
        return self

    # ---- steps

    def on_train_start(self) -> None:
        self._window_sums = self._no_sums()
        self._epoch_sums = self._epoch_sums.to(self.device)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        # Torch marks its fused optimizers so; they alone ask the device whether to leave out an update.
        can_skip = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.guard = FiniteGuard(self.device, can_skip=can_skip)
        self._follow_schedule()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # What draws random numbers in a network (dropout, stochastic depth) draws the same after a restart.
        trainer = self.trainer
        seed = data_of(trainer).seed
        torch.manual_seed(draws_of_batch(seed, trainer.current_epoch, batch_idx, trainer.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.window_loss(self.batch_terms(batch))

    def window_loss(self, sums: LossTerms) -> Tensor:
        """What backward starts from, for a batch whose loss is `sums`."""
        self._window_sums = self._window_sums + sums.stacked()
        # Divided by a constant here and by the positives of all ranks and the whole accumulation window
        # in on_before_optimizer_step: only then is their number known.
        return sums.total / LOSS_UNIT

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        trainer, guard = self.trainer, self.guard
        sums = LossTerms.of(self.term_names, sum_over_ranks(self._window_sums))
        self._window_sums = torch.zeros_like(self._window_sums)
        # Lightning divides by the forward passes of a window, DDP by the ranks.
        micro_batches = trainer.accumulate_grad_batches * trainer.world_size
        factor = LOSS_UNIT * micro_batches / sums.positives.clamp(min=1)
        loss, step = sums.total, trainer.global_step
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None:
            guard.scale_gradients(optimizer, gradients, factor=factor, loss=loss, step=step)
        else:
            guard.scale_float16_gradients(scaler, gradients, factor=factor, loss=loss, step=step)
        self._epoch_sums = self._epoch_sums + sums.stacked()
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_dict(_logged("train_step", sums), on_step=True, on_epoch=False, batch_size=1)

    def on_train_epoch_start(self) -> None:
        self._epoch_sums = self._no_sums()  # not called where a run resumes within an epoch

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.train_losses())

    def train_losses(self) -> dict[str, Tensor]:
        """Losses of the epoch so far, over all ranks.

        Not by Lightning's averages: a run that is resumed within an epoch would forget the part before.
        """
        return _logged("train", LossTerms.of(self.term_names, self._epoch_sums))

    # ---- validation

    def on_validation_model_zero_grad(self) -> None:
        super().on_validation_model_zero_grad()
        validate_on_every_rank(self.trainer)  # the last hook before the loop decides

    def on_validation_epoch_start(self) -> None:
        self._val_sums = self._no_sums(self.val_term_names)
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._recompute_statistics()
        take_statistics_of_rank_0(self.net)

    def add_validation_sums(self, sums: LossTerms) -> None:
        """Note the loss of a validation batch."""
        self._val_sums += sums.stacked()

    def on_validation_epoch_end(self) -> None:
        self.log_dict(_logged("val", LossTerms.of(self.val_term_names, sum_over_ranks(self._val_sums))))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detect"] = self.describe()
        checkpoint["epoch_sums"] = self._epoch_sums.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._epoch_sums = checkpoint["epoch_sums"]

    # ---- helpers

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with weights of its own, for averaging; trainer, evaluator and optimizer stay shared.

        Lightning's EMA callback copies the whole module, and a trainer or a parser cannot be copied.
        """
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__ = dict(self.__dict__)
        for name in ("_parameters", "_buffers", "_modules"):
            copied.__dict__[name] = deepcopy(self.__dict__[name], memo)
        return copied

    def _recompute_statistics(self) -> None:
        """Give the weights that are validated, raw or averaged, their own BatchNorm statistics.

        Every rank does the same work: alone, SyncBatchNorm would wait for the others.
        """
        self.train()  # all but frozen parts
        norms = norms_in_training(self.net)
        self.eval()
        if not norms or not self.statistics_images:
            return
        trainer = self.trainer
        images = images_of_epoch(
            train_loader(trainer), epoch=trainer.current_epoch, count=self.statistics_images
        )
        with trainer.precision_plugin.forward_context():
            shown = (self.layout(some.to(self.device)) for some in images)
            recompute_statistics(norms, self.net, shown)

    def _no_sums(self, names: tuple[str, ...] | None = None) -> Tensor:
        """(T + 1,) zeros: the start of a sum of `LossTerms.stacked`, of training where no names are given."""
        return torch.zeros(len(self.term_names if names is None else names) + 1, device=self.device)

    def _follow_schedule(self) -> None:
        """Set the learning rates of this step: a resumed run may have another length than its checkpoint."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        step = self.trainer.global_step
        rates = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        for group, base_lr, factor in rates:
            group["lr"] = base_lr * factor(step)


def draws_of_batch(seed: int, epoch: int, batch_idx: int, rank: int) -> int:
    """What torch's generator is seeded with before a batch of a rank."""
    return int(np.random.SeedSequence((seed, epoch, batch_idx, rank)).generate_state(1, np.uint64)[0])


def check_class_count(num_classes: int, classes: ClassMap) -> None:
    """Compare a network's number of classes with the data's.

    Raises:
        InputError: they differ.
    """
    if num_classes != classes.num_classes:
        raise InputError(
            f"model.num_classes is {num_classes}, but the data has {classes.num_classes} classes "
            f"({', '.join(classes.names[:8])}): give model.num_classes null to follow it"
        )


def check_known_classes(known: ClassMap | None, classes: ClassMap) -> None:
    """Compare the classes of a checkpoint, if there is one, with the data's.

    Raises:
        InputError: names or order differ.
    """
    if known is not None and known.names != classes.names:
        raise InputError(
            f"the checkpoint knows the classes {list(known.names)}, the data has "
            f"{list(classes.names)}: names and order must be the same"
        )


def _logged(stage: str, sums: LossTerms) -> dict[str, Tensor]:
    """The losses of the papers, under the names that loggers and tables use."""
    return {f"{stage}/{name}": value for name, value in sums.per_positive().items()}

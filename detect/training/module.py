"""The training and validation steps: network, loss, post-processing and evaluator put together.

No arithmetic on boxes stands here; the order of the calls is the order of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.evaluation.metrics import metric_names
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.system.ranks import sum_over_ranks, take_statistics_of_rank_0
from detect.training.batch_norm import images_of_epoch, norms_in_training, recompute_statistics
from detect.training.finite_guard import FiniteGuard
from detect.training.lightning_loops import set_epochs, validate_on_every_rank
from detect.training.losses import DetectionLoss, LossTerms, MultiBoxLoss
from detect.training.parameters import (
    ParameterConfig,
    freeze,
    hold_statistics,
    parameter_groups,
    scale_learning_rates,
)
from detect.training.run_state import RunLength, data_of, run_length, train_loader
from detect.training.schedules import Schedule, WarmupCosine
from detect.types import Batch, ClassMap, Detections, HeadOutputs, Target

LOSS_UNIT = 256.0
"""Divides the summed loss before backward, so that gradients stay in the range of float16: about the
positives of a batch. The exact number divides the gradients once it is known."""
STATISTICS_IMAGES = 64
"""As good as 256 in the measurement of docs/results.md."""

PADDED_COUNTS = 8
"""Numbers of padded boxes, 8, 16, ... 1024: each size of the input has as many graphs at most."""


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """SGD with momentum: lr 0.05 a total batch of 64, the base point of the published SSDLite recipes."""
    return torch.optim.SGD(params, lr=0.025, momentum=0.9, weight_decay=4e-5, fused=True)


class DetectionModule(L.LightningModule):
    """A detector in training.

    `build.detection_module` has the other arguments in detail.

    Args:
        detector: what is trained; a fresh one starts from the prior of the loss, and scores as the loss says.
        loss: null: MultiBoxLoss.
        optimizer: from the parameters to an optimizer; its lr belongs to the total batch size.
        schedule: null: WarmupCosine.
        parameters: freezing, learning rates by part, weight decay by kind.
        statistics_images: training images for BatchNorm's statistics before each validation of a fit; 0: the
            running averages of training.
        compile: run forward and loss through torch.compile.

    Raises:
        InputError: `statistics_images` is 1 or negative; the box loss needs bins, and the detector has none.
    """

    evaluator: CocoEvaluator
    """Of the validation split; from `setup` on."""
    length: RunLength
    """How far the trainer goes; from `setup` on."""
    guard: FiniteGuard
    """From the start of training on."""
    metrics: Metrics
    """Results of the last validation; from the first on."""

    def __init__(
        self,
        detector: TorchDetector,
        *,
        loss: DetectionLoss | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule | None = None,
        parameters: ParameterConfig = ParameterConfig(),
        statistics_images: int = STATISTICS_IMAGES,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if statistics_images < 0 or statistics_images == 1:
            raise InputError(f"model.statistics_images is {statistics_images}; give 0, or 2 or more")
        self.detector = detector
        self.loss = MultiBoxLoss() if loss is None else loss
        box_loss = self.loss.box_loss
        if box_loss.needs_bins and detector.net.box_bins is None:
            raise InputError(
                f"loss.box_loss is {type(box_loss).__name__}, which learns distributions, and model.box_bins "
                "is null: give model.box_bins 16, or another box loss"
            )
        detector.postprocess.activation = self.loss.score_activation
        if detector.classes is None:  # neither trained nor loaded
            detector.net.set_class_prior(self.loss.prior_bias(detector.net.num_classes))
        self.parameter_config = parameters
        freeze(self.net, parameters.freeze)
        self.optimizer_from = optimizer
        self.schedule = WarmupCosine() if schedule is None else schedule
        self.statistics_images = statistics_images
        self.compile_step = compile
        self.max_steps: int | None = None
        """End the run after so many optimizer steps, before the trainer's epochs are over."""
        self._window_sums = self._no_sums()
        self._epoch_sums = self._no_sums()
        self._val_sums = self._no_sums()

    @property
    def net(self) -> SSDLite:
        """The network of the detector."""
        return self.detector.net

    # ---- set-up

    def setup(self, stage: str) -> None:
        data = data_of(self.trainer)
        self._check_input(data)
        check_class_count(self.net.num_classes, data.classes)
        known = self.detector.classes
        if known is not None and known.names != data.classes.names:
            raise InputError(
                f"the checkpoint knows the classes {list(known.names)}, the data has "
                f"{list(data.classes.names)}: names and order must be the same"
            )
        self.detector.classes = data.classes
        if stage == "fit":
            self.describe()  # what no checkpoint can name is refused before the first step
        self.evaluator = CocoEvaluator(data.val)
        # DDP would send BatchNorm's averages around in every forward pass, in validation as well, where ranks
        # may have different numbers of batches. See `take_statistics_of_rank_0`.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.length = run_length(self.trainer, self.max_steps)
        set_epochs(self.trainer, self.length.epochs)
        data.run_epochs = self.length.epochs
        if self.compile_step:
            allow_graphs(len(data.train_sizes))
            # Compiling the bound method keeps the keys of the state dict; mode and shapes stay static.
            self.loss_terms = torch.compile(self.loss_terms, fullgraph=True)  # type: ignore[method-assign]

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

    def train(self, mode: bool = True) -> DetectionModule:
        super().train(mode)
        hold_statistics(self.net, self.parameter_config.freeze)
        return self

    # ---- steps

    def forward(self, images: Tensor) -> Detections:
        """(B, 3, H, W) uint8 images to detections in px of the input."""
        detections: Detections = self.detector(images)
        return detections

    def loss_terms(self, images: Tensor, target: Target) -> LossTerms:
        """Forward and loss of a batch: the part that torch.compile takes whole."""
        return self.loss_of(self.net(images), target, images.shape[-2:])

    def loss_of(self, head_outputs: HeadOutputs, target: Target, image_size: Sequence[int]) -> LossTerms:
        """The loss of what the network gave for an input of `image_size` (H, W)."""
        anchors, levels = self.net.anchors_of(image_size)
        terms: LossTerms = self.loss(head_outputs, anchors, levels, target)
        return terms

    def on_train_start(self) -> None:
        self._window_sums = self._no_sums()
        self._epoch_sums = self._epoch_sums.to(self.device)
        for image_size in data_of(self.trainer).train_sizes:
            self.net.anchors_of(image_size)  # here and not in a graph of torch.compile
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        # Torch marks its fused optimizers so; they alone ask the device whether to leave out an update.
        can_skip = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.guard = FiniteGuard(self.device, can_skip=can_skip)
        self._follow_schedule()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # What draws random numbers in a network (dropout, stochastic depth) draws the same after a restart.
        trainer = self.trainer
        place = (data_of(trainer).seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sums = self.loss_terms(self.detector.layout(batch.images), batch.target)
        self._window_sums = self._window_sums + sums.stacked()
        # Divided by a constant here and by the positives of all ranks and the whole accumulation window
        # in on_before_optimizer_step: only then is their number known.
        return sums.total / LOSS_UNIT

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        trainer, guard = self.trainer, self.guard
        sums = self._terms(sum_over_ranks(self._window_sums))
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
        return _logged("train", self._terms(self._epoch_sums))

    def on_validation_model_zero_grad(self) -> None:
        super().on_validation_model_zero_grad()
        validate_on_every_rank(self.trainer)  # the last hook before the loop decides

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        head_outputs = self.net(self.detector.layout(batch.images))
        self._val_sums += self.loss_of(head_outputs, batch.target, batch.images.shape[-2:]).stacked()
        self.evaluator.update(batch.sample_idx, self.detector.detections(head_outputs, batch.orig_size))

    def on_validation_epoch_start(self) -> None:
        self.evaluator.reset()
        self._val_sums = self._no_sums()
        self.net.restore_constants()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._recompute_statistics()
        take_statistics_of_rank_0(self.net)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(_logged("val", self._terms(sum_over_ranks(self._val_sums))))
        limit = self.trainer.limit_val_batches
        self.evaluator.gather(partial=isinstance(limit, int) or limit < 1.0)
        self.metrics = self.evaluator.compute()
        for name in metric_names("epoch"):
            self.log(f"val/{name}", float(getattr(self.metrics, name)))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detect"] = self.describe()
        checkpoint["epoch_sums"] = self._epoch_sums.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._epoch_sums = checkpoint["epoch_sums"]

    def describe(self) -> dict[str, Any]:
        """The detector's description, with the loss that trains it."""
        description = self.detector.describe()
        return description | {"model": description["model"] | {"loss": self.loss.to_settings()}}

    # ---- helpers

    def _check_input(self, data: DetectionData) -> None:
        """Compare what the data gives with what the detector takes; the command line sets both by one value.

        Raises:
            InputError: they differ.
        """
        for name, mine in (("image_size", self.net.image_size), ("resize_rule", self.detector.resize_rule)):
            given = getattr(data, name)
            if given != mine:
                raise InputError(
                    f"the detector has {name} {mine!r} and the data {given!r}: "
                    f"DetectionData(..., {name}={mine!r})"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> DetectionModule:
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
            shown = (self.detector.layout(some.to(self.device)) for some in images)
            recompute_statistics(norms, self.net, shown)

    def _no_sums(self) -> Tensor:
        """(T + 1,) zeros: the start of a sum of `LossTerms.stacked`."""
        return torch.zeros(len(self.loss.term_names) + 1, device=self.device)

    def _terms(self, stacked: Tensor) -> LossTerms:
        return LossTerms.of(self.loss.term_names, stacked)

    def _follow_schedule(self) -> None:
        """Set the learning rates of this step: a resumed run may have another length than its checkpoint."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        step = self.trainer.global_step
        rates = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        for group, base_lr, factor in rates:
            group["lr"] = base_lr * factor(step)


def check_class_count(num_classes: int, classes: ClassMap) -> None:
    """Compare a detector's number of classes with the data's.

    Raises:
        InputError: they differ.
    """
    if num_classes != classes.num_classes:
        raise InputError(
            f"model.num_classes is {num_classes}, but the data has {classes.num_classes} classes "
            f"({', '.join(classes.names[:8])}): give model.num_classes null to follow it"
        )


def allow_graphs(image_sizes: int) -> None:
    """Let torch.compile make a graph for each size of the input and each number of padded boxes.

    It refuses a ninth where nothing is said.
    """
    limit = PADDED_COUNTS * image_sizes
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)


def _logged(stage: str, sums: LossTerms) -> dict[str, Tensor]:
    """The losses of the papers, under the names that loggers and tables use."""
    return {f"{stage}/{name}": value for name, value in sums.per_positive().items()}

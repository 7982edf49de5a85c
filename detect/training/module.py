"""The training and validation steps: network, loss, post-processing and evaluator put together.

No arithmetic on boxes stands here; the order of the calls is the order of the data.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from detect.boxes import rescale_boxes
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.model.anchors import AnchorConfig
from detect.model.backbones.base import Backbone, Rgb
from detect.model.blocks import ConvSettings, Init
from detect.model.checkpoint_format import FORMAT_VERSION
from detect.model.postprocess import PostProcess, PostProcessConfig
from detect.model.ssdlite import SSDLite
from detect.system.ranks import sum_over_ranks, take_statistics_of_rank_0
from detect.training.finite_guard import FiniteGuard
from detect.training.losses import DetectionLoss, LossSums, MultiBoxLoss
from detect.training.parameters import (
    ParameterConfig,
    freeze,
    hold_statistics,
    parameter_groups,
    scale_learning_rates,
)
from detect.training.run_state import RunLength, data_of, run_length, validate_on_every_rank
from detect.training.schedule import ScheduleConfig, warmup_cosine
from detect.types import Batch, ClassMap, Detections, ResizeRule, Target

LOSS_UNIT = 256.0
"""Divides the summed loss before backward, so that gradients stay in the range of float16: about the
positives of a batch. The exact number divides the gradients once it is known."""

LOGGED_METRICS = ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
"""Logged as val/NAME; -1 where there is nothing to measure."""
LOGGED_LOSSES = ("loss", "loss_cls", "loss_box")
"""Logged as train/NAME and val/NAME once an epoch, as train_step/NAME now and then."""


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """SGD with momentum: lr 0.05 a total batch of 64, the base point of the published SSDLite recipes."""
    return torch.optim.SGD(params, lr=0.025, momentum=0.9, weight_decay=4e-5, fused=True)


class DetectionModule(L.LightningModule):
    """An SSDLite detector in training.

    Args:
        backbone: a class of detect.model.backbones; the only part that differs between compared experiments.
        num_classes: K, without background; null: taken from the data by the command line.
        image_size: (H, W) of the input in px; anchors, data and exported files follow. Time grows with the
            area; small objects want it larger.
        anchors: style of the head ("paper" or "torchvision"), and anchors by hand.
        loss: class and box loss, a class of detect.training.losses; null: MultiBoxLoss.
        postprocess: from scores to detections.
        optimizer: a class of torch.optim with its init_args but the parameters. Its lr belongs to
            `data.total_batch_size`: change both by the same factor. Default: SGD, lr 0.025 for a total batch
            of 32, momentum 0.9, weight_decay 4e-5.
        schedule: warm-up and cosine, in optimizer steps.
        parameters: freezing, learning rates by part, weight decay by kind.
        init_from: a checkpoint to start from; its classes may be others, heads are copied by class name.
        norm: BatchNorm of extra levels and heads; the backbone's are its own `settings`.
        mean: of each input channel in 0..1; null: what the backbone was trained with.
        std: of each input channel in 0..1; null: likewise.
        init: of every convolution without pretrained weights: normal with a deviation of 0.03, or Kaiming's
            but for the last of each head.
        resize_rule: how files are stretched onto the input in evaluation and prediction. "antialias" is
            Pillow's; "torchvision" is for checkpoints from there, which were trained without antialias.
        channels_last: memory layout of images and weights; faster on CPU and on tensor cores.
        compile: run forward and loss through torch.compile; it takes minutes at the start, so for runs of
            hours.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int | None = None,
        image_size: tuple[int, int] = (320, 320),
        anchors: AnchorConfig = AnchorConfig(),
        loss: DetectionLoss | None = None,
        postprocess: PostProcessConfig = PostProcessConfig(),
        optimizer: OptimizerCallable = default_optimizer,
        schedule: ScheduleConfig = ScheduleConfig(),
        parameters: ParameterConfig = ParameterConfig(),
        init_from: str | None = None,
        norm: ConvSettings = ConvSettings(),
        mean: Rgb | None = None,
        std: Rgb | None = None,
        init: Init = "normal",
        resize_rule: ResizeRule = "antialias",
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if num_classes is None:
            raise InputError("model.num_classes is null: give the number of classes, or data to take it from")
        self.net = SSDLite(
            backbone,
            num_classes,
            image_size=image_size,
            anchors=anchors,
            settings=norm,
            mean=mean,
            std=std,
            init=init,
        )
        self.loss = MultiBoxLoss() if loss is None else loss
        self.net.set_class_prior(self.loss.prior_bias(num_classes))
        self.postprocess = PostProcess(
            postprocess, activation=self.loss.score_activation, image_size=self.net.image_size
        )
        self.parameter_config = parameters
        freeze(self.net, parameters.freeze)
        self.init_from = init_from
        self.optimizer_from = optimizer
        self.schedule = schedule
        self.resize_rule: ResizeRule = resize_rule
        self.channels_last = channels_last
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.compile_step = compile

        self.settings: dict[str, Any] | None = None
        """The plain values that this module was built from; `checkpoint.build_module` sets them."""
        self.classes: ClassMap | None = None
        """Which label means what; from the data, or from the checkpoint."""
        self.evaluator: CocoEvaluator | None = None
        self.metrics: Metrics | None = None
        """Of the last validation."""
        self.max_steps: int | None = None
        """End the run after so many optimizer steps, before the trainer's epochs are over."""
        self.length: RunLength | None = None
        """How far the trainer goes; known from `setup` on."""
        self.guard: FiniteGuard | None = None
        self._window_sums = torch.zeros(3)
        self._epoch_sums = torch.zeros(3)
        self._val_sums = torch.zeros(3)

    # ---- set-up

    def setup(self, stage: str) -> None:
        data = data_of(self.trainer)
        check_class_count(self.net.num_classes, data.classes)
        if self.classes is not None and self.classes.names != data.classes.names:
            raise InputError(
                f"the checkpoint knows the classes {list(self.classes.names)}, the data has "
                f"{list(data.classes.names)}: names and order must be the same"
            )
        self.classes = data.classes
        self.evaluator = CocoEvaluator(data.val)
        # DDP would send BatchNorm's averages around in every forward pass, in validation as well, where ranks
        # may have different numbers of batches. See `take_statistics_of_rank_0`.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.length = run_length(self.trainer, self.max_steps)
        self.trainer.fit_loop.max_epochs = self.length.epochs
        if self.compile_step:
            # Compiling the bound method keeps the keys of the state dict; mode and shapes stay static.
            self.loss_sums = torch.compile(self.loss_sums, fullgraph=True)  # type: ignore[method-assign]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = parameter_groups(self.net, self.parameter_config)
        try:
            optimizer = self.optimizer_from(groups)
        except ValueError as error:  # torch's word for a rate or a decay out of range
            raise InputError(f"model.optimizer: {error}") from error
        scale_learning_rates(optimizer)
        # Lightning's own count of steps would start the loader, before a checkpoint can say where.
        assert self.length is not None
        steps = self.length.total_steps
        scheduler = LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total_steps=steps, config=self.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train(self, mode: bool = True) -> DetectionModule:
        super().train(mode)
        hold_statistics(self.net, self.parameter_config.freeze)
        return self

    # ---- steps

    def forward(self, images: Tensor) -> Detections:
        """(B, 3, H, W) uint8 images to detections in px of the input."""
        return self.postprocess(self.net(self._layout(images)), self.net.anchors)

    def loss_sums(self, images: Tensor, target: Target) -> LossSums:
        """Forward and loss of a batch: the part that torch.compile takes whole."""
        return self.loss(self.net(images), self.net.anchors, target)

    def on_train_start(self) -> None:
        self._window_sums = torch.zeros(3, device=self.device)
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
        place = (data_of(trainer).seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sums = self.loss_sums(self._layout(batch.images), batch.target)
        self._window_sums = self._window_sums + torch.stack([value.detach() for value in sums])
        # Divided by a constant here and by the positives of all ranks and the whole accumulation window
        # in on_before_optimizer_step: only then is their number known.
        return (sums.loss_cls + sums.loss_box) / LOSS_UNIT

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        trainer, guard = self.trainer, self.guard
        assert guard is not None
        sums = LossSums(*sum_over_ranks(self._window_sums))
        self._window_sums = torch.zeros_like(self._window_sums)
        # Lightning divides by the forward passes of a window, DDP by the ranks.
        micro_batches = trainer.accumulate_grad_batches * trainer.world_size
        factor = LOSS_UNIT * micro_batches / sums.positives.clamp(min=1)
        loss, step = sums.loss_cls + sums.loss_box, trainer.global_step
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None:
            guard.scale_gradients(optimizer, gradients, factor=factor, loss=loss, step=step)
        else:
            guard.scale_float16_gradients(scaler, gradients, factor=factor, loss=loss, step=step)
        self._epoch_sums = self._epoch_sums + torch.stack(sums)
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_dict(_losses("train_step", sums), on_step=True, on_epoch=False, batch_size=1)

    def on_train_epoch_start(self) -> None:
        self._epoch_sums = torch.zeros(3, device=self.device)  # not called where an epoch is gone on with

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.train_losses())

    def train_losses(self) -> dict[str, Tensor]:
        """Losses of the epoch so far, over all ranks.

        Not by Lightning's averages: a run that is resumed within an epoch would forget the part before.
        """
        return _losses("train", LossSums(*self._epoch_sums))

    def on_validation_model_zero_grad(self) -> None:
        super().on_validation_model_zero_grad()
        validate_on_every_rank(self.trainer)  # the last hook before the loop decides

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        head_outputs = self.net(self._layout(batch.images))
        self._val_sums += torch.stack(self.loss(head_outputs, self.net.anchors, batch.target))
        detections = self.postprocess(head_outputs, self.net.anchors)
        boxes = rescale_boxes(detections.boxes, self.net.image_size, batch.orig_size)
        self.evaluator.update(batch.sample_idx, detections._replace(boxes=boxes))

    def on_validation_epoch_start(self) -> None:
        assert self.evaluator is not None
        self.evaluator.reset()
        self._val_sums = torch.zeros(3, device=self.device)
        self.net.restore_constants()
        take_statistics_of_rank_0(self.net)

    def on_validation_epoch_end(self) -> None:
        assert self.evaluator is not None
        self.log_dict(_losses("val", LossSums(*sum_over_ranks(self._val_sums))))
        limit = self.trainer.limit_val_batches
        self.evaluator.gather(partial=isinstance(limit, int) or limit < 1.0)
        self.metrics = self.evaluator.compute()
        for name in LOGGED_METRICS:
            self.log(f"val/{name}", float(getattr(self.metrics, name)))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detect"] = self.describe()
        checkpoint["epoch_sums"] = self._epoch_sums.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._epoch_sums = checkpoint["epoch_sums"]

    def describe(self) -> dict[str, Any]:
        """What a checkpoint or an exported file must say so that it can be used alone: plain values only."""
        if self.settings is None:
            raise RuntimeError(
                "this module was built by hand; build it with detect.model.checkpoint.build_module"
            )
        if self.classes is None:
            raise RuntimeError("this module knows no classes yet; fit it, or load it from a checkpoint")
        return {
            "format_version": FORMAT_VERSION,
            "model": self._resolved_settings(self.settings),
            "weights_origin": self.net.backbone.weights_origin,
            "classes": self.classes.to_list(),
            "input": {
                "image_size": list(self.net.image_size),
                "resize_rule": self.resize_rule,
                "mean": self.net.mean.tolist(),
                "std": self.net.std.tolist(),
            },
            "anchors": asdict(self.net.anchor_generator.config),
            "postprocess": {
                **asdict(self.postprocess.config),
                "score_activation": self.postprocess.activation,
            },
        }

    # ---- helpers

    def _resolved_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """`settings` with what pretrained weights decided: to build this network without them."""
        if self.net.backbone.weights_origin is None:
            return settings
        resolved = deepcopy(settings)
        resolved["backbone"].setdefault("init_args", {}).update(self.net.backbone.resolved_args())
        return resolved | {"mean": self.net.mean.tolist(), "std": self.net.std.tolist()}

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

    def _layout(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the weights."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

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


def _losses(stage: str, sums: LossSums) -> dict[str, Tensor]:
    """The losses of the papers, under the names that loggers and tables use."""
    loss_cls, loss_box, positives = (value.detach() for value in sums)
    positives = positives.clamp(min=1)
    values = (loss_cls + loss_box, loss_cls, loss_box)
    return {f"{stage}/{name}": value / positives for name, value in zip(LOGGED_LOSSES, values, strict=True)}

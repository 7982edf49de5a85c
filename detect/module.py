"""The training and validation steps: network, loss, post-processing and evaluator put together.

No arithmetic on boxes stands here; the order of the calls is the order of the data.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from detect.anchors import AnchorConfig
from detect.backbones.base import Backbone, Rgb
from detect.blocks import ConvSettings, Init
from detect.boxes import rescale_boxes
from detect.coco_eval import CocoEvaluator, Metrics
from detect.data.labels import ClassMap
from detect.errors import InputError
from detect.losses import DetectionLoss, LossSums, MultiBoxLoss
from detect.optim import (
    ParameterConfig,
    freeze,
    hold_statistics,
    parameter_groups,
    scale_learning_rates,
)
from detect.postprocess import PostProcess, PostProcessConfig
from detect.schedule import ScheduleConfig, warmup_cosine
from detect.ssdlite import SSDLite
from detect.types import Batch, Detections, ResizeRule, Target

FORMAT_VERSION = 1
"""Of the description in a checkpoint; raised when its keys change, with a migration in `checkpoint`."""

LOSS_UNIT = 256.0
"""Divides the summed loss before backward, so that gradients stay in the range of float16: about the
positives of a batch. The exact number divides the gradients once it is known."""


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """SGD with momentum: lr 0.05 a total batch of 64, the base point of every published SSDLite recipe."""
    return torch.optim.SGD(params, lr=0.025, momentum=0.9, weight_decay=4e-5, fused=True)


class DetectionModule(L.LightningModule):
    """An SSDLite detector in training.

    Args:
        backbone: the only part that differs between compared experiments.
        num_classes: K, without background; null: taken from the data by the command line.
        image_size: (H, W) of the input in px.
        anchors: style of the head ("paper" or "torchvision"), and anchors by hand.
        loss: class and box loss; null: MultiBoxLoss.
        postprocess: thresholds.
        optimizer: a function of the parameters; its learning rate belongs to `data.total_batch_size`.
        schedule: warm-up and cosine, in optimizer steps.
        parameters: freezing, learning rates by part, weight decay by kind.
        init_from: a checkpoint to start from; its classes may be others, heads are copied by class name.
        norm: BatchNorm of extra levels and heads.
        mean: of each input channel in 0..1; null: what the backbone was trained with.
        std: of each input channel in 0..1; null: likewise.
        init: of every convolution without pretrained weights.
        resize_rule: how files are stretched onto the input in evaluation and prediction.
        channels_last: memory layout of images and weights; faster on CPU and on tensor cores.
        compile: run forward and loss through torch.compile.
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
        self._window_positives = torch.zeros(())
        self._val_sums = torch.zeros(3)

    # ---- set-up

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.classes.num_classes != self.net.num_classes:
            raise InputError(
                f"model.num_classes is {self.net.num_classes}, but the data has {data.classes.num_classes} "
                f"classes ({', '.join(data.classes.names[:8])}): give model.num_classes null to follow it"
            )
        if self.classes is not None and self.classes.names != data.classes.names:
            raise InputError(
                f"the checkpoint knows the classes {list(self.classes.names)}, the data has "
                f"{list(data.classes.names)}: names and order must be the same"
            )
        self.classes = data.classes
        self.evaluator = CocoEvaluator(data.val)
        if self.compile_step:
            # Compiling the bound method keeps the keys of the state dict; mode and shapes stay static.
            self.loss_sums = torch.compile(self.loss_sums, fullgraph=True)  # type: ignore[method-assign]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer_from(parameter_groups(self.net, self.parameter_config))
        scale_learning_rates(optimizer)
        total_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total_steps=total_steps, config=self.schedule)
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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sums = self.loss_sums(self._layout(batch.images), batch.target)
        self._window_positives = self._window_positives + sums.positives.detach()
        self._log_losses("train", sums)
        # Divided by a constant here and by the positives of all ranks and the whole accumulation window
        # in on_before_optimizer_step: only then is their number known.
        return (sums.loss_cls + sums.loss_box) / LOSS_UNIT

    def on_train_start(self) -> None:
        self._window_positives = torch.zeros((), device=self.device)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        positives = self._window_positives
        if self.trainer.world_size > 1:
            positives = self.trainer.strategy.reduce(positives, reduce_op="sum")
        self._window_positives = torch.zeros_like(positives)
        micro_batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factor = LOSS_UNIT * micro_batches / positives.clamp(min=1)
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        torch._foreach_mul_(grads, factor)

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

    def on_validation_epoch_end(self) -> None:
        assert self.evaluator is not None
        sums = self.trainer.strategy.reduce(self._val_sums, reduce_op="sum")
        self._log_losses("val", LossSums(*sums))
        self.evaluator.gather()
        self.metrics = self.evaluator.compute()
        for name in ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
            self.log(f"val/{name}", float(getattr(self.metrics, name)))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detect"] = self.describe()

    def describe(self) -> dict[str, Any]:
        """What a checkpoint or an exported file must say so that it can be used alone: plain values only."""
        if self.settings is None:
            raise RuntimeError("this module was built by hand; build it with detect.checkpoint.build_module")
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
        resolved["backbone"].setdefault("init_args", {})["settings"] = asdict(self.net.backbone.settings)
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

    def _log_losses(self, stage: str, sums: LossSums) -> None:
        loss_cls, loss_box, positives = (value.detach() for value in sums)
        positives = positives.clamp(min=1)
        losses = {
            f"{stage}/loss": (loss_cls + loss_box) / positives,
            f"{stage}/loss_cls": loss_cls / positives,
            f"{stage}/loss_box": loss_box / positives,
        }
        self.log_dict(losses, on_step=stage == "train", on_epoch=True, batch_size=1)

"""The training and validation steps of a detector: network, loss, post-processing and evaluator put together.

No arithmetic on boxes stands here; the order of the calls is the order of the data. What the training of a
classifier shares with it is in `run_module`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.evaluation.metrics import metric_names
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.training.distillation import TERM_NAMES, Distillation, refuse_other_classes
from detect.training.losses import DetectionLoss, LossTerms, MultiBoxLoss
from detect.training.parameters import ParameterConfig
from detect.training.run_module import RunModule, check_class_count, check_known_classes
from detect.training.run_state import data_of
from detect.training.schedules import Schedule
from detect.types import Batch, Detections, HeadOutputs, Target

STATISTICS_IMAGES = 64
"""As good as 256 in the measurement of docs/results.md."""

PADDED_COUNTS = 8
"""Numbers of padded boxes, 8, 16, ... 1024: each size of the input has as many graphs at most."""


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """SGD with momentum: lr 0.05 a total batch of 64, the base point of the published SSDLite recipes."""
    return torch.optim.SGD(params, lr=0.025, momentum=0.9, weight_decay=4e-5, fused=True)


class DetectionModule(RunModule):
    """A detector in training.

    `build.detection_module` has the other arguments in detail.

    Args:
        detector: what is trained; a fresh one starts from the prior of the loss, and scores as the loss says.
        loss: null: MultiBoxLoss.
        optimizer: see `RunModule`, as the three below it.
        schedule: null: WarmupCosine.
        parameters: freezing, learning rates by part, weight decay by kind.
        distillation: a teacher, whose terms are added to the loss in training; no part of the state dict.
        statistics_images: training images for BatchNorm's statistics before each validation of a fit.
        compile: run forward and loss through torch.compile.

    Raises:
        InputError: `statistics_images` is 1 or negative; the box loss needs bins, and the detector has none.
    """

    evaluator: CocoEvaluator
    """Of the validation split; from `setup` on."""
    metrics: Metrics
    """Results of the last validation; from the first on."""
    brief_metrics = metric_names("brief")

    def __init__(
        self,
        detector: TorchDetector,
        *,
        loss: DetectionLoss | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule | None = None,
        parameters: ParameterConfig = ParameterConfig(),
        distillation: Distillation | None = None,
        statistics_images: int = STATISTICS_IMAGES,
        compile: bool = False,
    ) -> None:
        super().__init__(
            optimizer=optimizer,
            schedule=schedule,
            parameters=parameters,
            statistics_images=statistics_images,
        )
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
        if distillation is not None:
            distillation.require_match(detector.net)
        self.distillation = distillation
        self.compile_step = compile
        self.start_sums()

    @property
    def net(self) -> SSDLite:
        """The network of the detector."""
        return self.detector.net

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss, in order; those of the teacher come last, and in training alone."""
        return self.loss.term_names + (TERM_NAMES if self.distillation is not None else ())

    @property
    def val_term_names(self) -> tuple[str, ...]:
        """The terms of the loss, in order."""
        return self.loss.term_names

    @property
    def score(self) -> float:
        """MAP of the last validation."""
        return self.metrics.mAP

    # ---- set-up

    def setup(self, stage: str) -> None:
        data = data_of(self.trainer)
        self._check_input(data)
        check_class_count(self.net.num_classes, data.classes)
        check_known_classes(self.detector.classes, data.classes)
        self.detector.classes = data.classes
        if self.distillation is not None:
            refuse_other_classes(self.distillation.name, self.distillation.detector.classes, data.classes)
        if stage == "fit":
            self.describe()  # what no checkpoint can name is refused before the first step
        self.evaluator = CocoEvaluator(data.val)
        self.settle_length()
        if self.compile_step:
            allow_graphs(len(data.train_sizes))
            # Compiling the bound method keeps the keys of the state dict; mode and shapes stay static.
            self.loss_terms = torch.compile(self.loss_terms, fullgraph=True)  # type: ignore[method-assign]

    # ---- steps

    def forward(self, images: Tensor) -> Detections:
        """(B, 3, H, W) uint8 images to detections in px of the input."""
        detections: Detections = self.detector(images)
        return detections

    def layout(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the weights."""
        return self.detector.layout(images)

    def loss_terms(self, images: Tensor, target: Target) -> LossTerms:
        """Forward and loss of a batch: the part that torch.compile takes whole."""
        head_outputs = self.net(images)
        sums = self.loss_of(head_outputs, target, images.shape[-2:])
        if self.distillation is None:
            return sums
        return self.distillation(sums, self.detector, head_outputs, images)

    def batch_terms(self, batch: Batch) -> LossTerms:
        """Forward and loss of a training batch, those of the teacher included."""
        return self.loss_terms(self.layout(batch.images), batch.target)

    def sample_terms(self, net: nn.Module, batch: Batch) -> list[LossTerms]:
        """The loss of each sample of a batch by itself, from one forward pass of `net`."""
        images = self.layout(batch.images)
        head_outputs: HeadOutputs = net(images)
        found = []
        for i in range(len(images)):
            of_image = itemgetter(slice(i, i + 1))
            outputs = head_outputs.map(of_image)
            sums = self.loss_of(outputs, Target(*map(of_image, batch.target)), images.shape[-2:])
            if self.distillation is not None:
                sums = self.distillation(sums, self.detector, outputs, of_image(images))
            found.append(sums)
        return found

    def loss_of(self, head_outputs: HeadOutputs, target: Target, image_size: Sequence[int]) -> LossTerms:
        """The loss of what the network gave for an input of `image_size` (H, W)."""
        anchors, levels = self.net.anchors_of(image_size)
        terms: LossTerms = self.loss(head_outputs, anchors, levels, target)
        return terms

    def on_train_start(self) -> None:
        super().on_train_start()
        for image_size in data_of(self.trainer).train_sizes:
            self.net.anchors_of(image_size)  # here and not in a graph of torch.compile
            if self.distillation is not None:
                self.distillation.match_of(self.net, image_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        head_outputs = self.net(self.layout(batch.images))
        self.add_validation_sums(self.loss_of(head_outputs, batch.target, batch.images.shape[-2:]))
        self.evaluator.update(batch.sample_idx, self.detector.detections(head_outputs, batch.orig_size))

    def on_validation_epoch_start(self) -> None:
        self.evaluator.reset()
        self.net.restore_constants()
        super().on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        limit = self.trainer.limit_val_batches
        self.evaluator.gather(partial=isinstance(limit, int) or limit < 1.0)
        self.metrics = self.evaluator.compute()
        for name in metric_names("epoch"):
            self.log(f"val/{name}", float(getattr(self.metrics, name)))

    # ---- checkpoints

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


def allow_graphs(image_sizes: int) -> None:
    """Let torch.compile make a graph for each size of the input and each number of padded boxes.

    It refuses a ninth where nothing is said.
    """
    limit = PADDED_COUNTS * image_sizes
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)

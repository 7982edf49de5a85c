"""The training and validation steps of a classifier: mixed images, cross-entropy, top-1 and top-5."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import class_from_function
from lightning.pytorch.cli import OptimizerCallable
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from detect.config.unknown_keys import build
from detect.data.class_data import INPUT_SIZE, ClassificationData, class_of_samples
from detect.errors import InputError
from detect.model.backbones import Backbone
from detect.model.checkpoint import Checkpoint, without_weights
from detect.model.classifier import Classifier, classifier_from_checkpoint
from detect.system.ranks import sum_over_ranks
from detect.training.build import MODEL_DEFAULTS
from detect.training.losses import LossTerms
from detect.training.module import STATISTICS_IMAGES
from detect.training.parameters import ParameterConfig
from detect.training.run_module import RunModule, check_class_count, check_known_classes
from detect.training.run_state import data_of
from detect.training.schedules import Schedule
from detect.types import Batch

TERMS = ("loss_cls",)
TOP = {"top1": 1, "top5": 5}
"""Metrics, and among how many of the highest logits the label must be."""


def classifier_optimizer(params: Any) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum: lr 0.125 for a total batch of 256, torchvision's 0.5 for 1024."""
    return torch.optim.SGD(params, lr=0.125, momentum=0.9, nesterov=True, weight_decay=2e-5, fused=True)


class Accuracy:
    """Shares of images whose label is among the k highest logits, over all ranks; each image once.

    Args:
        num_classes: K; with fewer than 5 classes top5 is always 1.
        device: of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.metrics = {
            name: MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro").to(device)
            for name, k in TOP.items()
        }

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Note (B, K) logits and their labels (B,), 0..K-1."""
        for metric in self.metrics.values():
            metric.update(logits, labels)

    def compute(self) -> dict[str, float]:
        """By name, fractions of one; every rank takes part."""
        return {name: float(metric.compute()) for name, metric in self.metrics.items()}


class ClassificationModule(RunModule):
    """A classifier in training.

    Args:
        classifier: a fresh one.
        label_smoothing: share of each label that is spread over all classes.
        mixup_alpha: mix two images of a batch pixel by pixel, by a share from Beta(a, a); 0: never.
        cutmix_alpha: paste a rectangle of one image into another, likewise; with mixup one of the two is
            drawn for each batch.
        optimizer: a class of torch.optim or timm.optim with its init_args but the parameters. Its lr belongs
            to `data.total_batch_size`. Default: SGD, lr 0.125 for a total batch of 256.
        schedule: the learning rate over the run, a class of detect.training.schedules.
        parameters: freezing, learning rates by part, weight decay by kind.
        statistics_images: before each validation, BatchNorm's statistics are recomputed from so many training
            images, for the weights that are validated. 0: the running averages.

    Raises:
        InputError: a number is out of range.
    """

    brief_metrics = tuple(TOP)
    accuracy: Accuracy
    """Of the validation that runs."""
    metrics: dict[str, float]
    """top1 and top5 of the last validation; from the first on."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        label_smoothing: float = 0.1,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        optimizer: OptimizerCallable = classifier_optimizer,
        schedule: Schedule | None = None,
        parameters: ParameterConfig = ParameterConfig(),
        statistics_images: int = STATISTICS_IMAGES,
    ) -> None:
        super().__init__(
            optimizer=optimizer,
            schedule=schedule,
            parameters=parameters,
            statistics_images=statistics_images,
        )
        if not 0 <= label_smoothing < 1:
            raise InputError(f"model.label_smoothing is {label_smoothing}; give 0 or more, below 1")
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise InputError(f"model.{name} is {alpha}; give 0 for none, or more")
        self.classifier = classifier
        self.label_smoothing = label_smoothing
        self.loss_settings = {
            "label_smoothing": label_smoothing,
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
        }
        classes = classifier.num_classes
        with torch.device("cpu"):  # they hold no weights, and look at their numbers
            mixes: list[Any] = [v2.MixUp(alpha=mixup_alpha, num_classes=classes)] if mixup_alpha else []
            mixes += [v2.CutMix(alpha=cutmix_alpha, num_classes=classes)] if cutmix_alpha else []
        self.mix = v2.RandomChoice(mixes) if mixes else None
        self.start_sums()

    @property
    def net(self) -> Classifier:
        """The network."""
        return self.classifier

    @property
    def term_names(self) -> tuple[str, ...]:
        """The one term of the loss."""
        return TERMS

    @property
    def score(self) -> float:
        """Top-1 accuracy of the last validation."""
        return self.metrics["top1"]

    def layout(self, images: Tensor) -> Tensor:
        """The images; the classifier brings them into the layout of its weights."""
        return images

    def describe(self) -> dict[str, Any]:
        """The classifier's description, with the loss that trains it."""
        description = self.classifier.describe()
        return description | {"model": description["model"] | self.loss_settings}

    def setup(self, stage: str) -> None:
        data = data_of(self.trainer)
        assert isinstance(data, ClassificationData)
        check_class_count(self.classifier.num_classes, data.classes)
        check_known_classes(self.classifier.classes, data.classes)
        self.classifier.classes = data.classes
        self.settle_length()

    def forward(self, images: Tensor) -> Tensor:
        """(B, K) logits of (B, 3, H, W) uint8 images."""
        logits: Tensor = self.classifier(images)
        return logits

    def batch_terms(self, batch: Batch) -> LossTerms:
        """Forward and loss of a training batch, mixed anew."""
        images, labels = self._mixed(batch)
        return self.loss_of(self.classifier(images), labels)

    def sample_terms(self, net: nn.Module, batch: Batch) -> list[LossTerms]:
        """The loss of each sample of a batch by itself; a mixed one shows two images."""
        images, labels = self._mixed(batch)
        logits = net(images)
        return [self.loss_of(logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))]

    def _mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch.images.float(), class_of_samples(batch.target)
        if self.mix is not None:
            # Draws from the generator that `on_train_batch_start` seeds; pixels mix as normalised ones do.
            images, labels = self.mix(images, labels)
        return images, labels

    def loss_of(self, logits: Tensor, labels: Tensor) -> LossTerms:
        """The sum of the cross-entropy over a batch, float32.

        Args:
            logits: (B, K).
            labels: (B,) 0..K-1, or (B, K) shares of the classes of mixed images.
        """
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing, reduction="sum")
        return LossTerms({TERMS[0]: loss}, torch.ones(len(logits), device=loss.device))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        labels = class_of_samples(batch.target)
        logits = self.classifier(batch.images).float()
        self.add_validation_sums(self.loss_of(logits, labels))
        self.accuracy.update(logits, labels)

    def on_validation_epoch_start(self) -> None:
        self.accuracy = Accuracy(self.classifier.num_classes, self.device)
        super().on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.metrics = self.accuracy.compute()
        for name, value in self.metrics.items():
            self.log(f"val/{name}", value)


@torch.inference_mode()
def score_classifier(classifier: Classifier, data: ClassificationData) -> dict[str, Any]:
    """Metrics of a classifier in evaluation mode on `data.val`, on all ranks together, every image once.

    Returns:
        top1, top5, the number of images, and of each class its images and top1 (null where it has none).
    """
    device, classes = classifier.mean.device, data.classes
    accuracy = Accuracy(classes.num_classes, device)
    counts = torch.zeros(2, classes.num_classes, device=device)  # images, and those that are right
    loader = data.val_dataloader()
    for batch in track(loader, description="validation", transient=True, disable=not Console().is_terminal):
        labels = class_of_samples(batch.target).to(device)
        logits = classifier(batch.images.to(device))
        accuracy.update(logits, labels)
        right = (logits.argmax(dim=1) == labels).float()
        counts[0].scatter_add_(0, labels, torch.ones_like(right))
        counts[1].scatter_add_(0, labels, right)
    images, hits = sum_over_ranks(counts).tolist()
    per_class = {
        name: {"images": int(count), "top1": hit / count if count else None}
        for name, count, hit in zip(classes.names, images, hits, strict=True)
    }
    return {**accuracy.compute(), "images": int(sum(images)), "per_class": per_class}


def classification_module(
    *,
    backbone: Backbone,
    num_classes: int | None = None,
    image_size: tuple[int, int] = INPUT_SIZE,
    dropout: float = 0.2,
    channels_last: bool = True,
    **training: Any,
) -> ClassificationModule:
    """A fresh classifier in training: the keys of a `model:` section of `detect pretrain`.

    Args:
        backbone: a class of detect.model.backbones but Timm.
        num_classes: K; null: taken from the data.
        image_size: height and width of the input in px.
        dropout: share of the last layer's inputs that is left out in training.
        channels_last: hold images and weights in the memory layout that convolutions are faster in.
        training: arguments of ClassificationModule.
    """
    classifier = Classifier(
        backbone, num_classes, image_size=image_size, dropout=dropout, channels_last=channels_last
    )
    return ClassificationModule(classifier, **training)


def classification_module_from_checkpoint(checkpoint: Checkpoint) -> ClassificationModule:
    """The classifier of a checkpoint with the loss that trained it, to compute losses again."""
    own = {"model": without_weights(checkpoint.description["model"])}
    module: ClassificationModule = build(classifier_parser(), own, what="model settings").model
    module.classifier = classifier_from_checkpoint(checkpoint)
    return module.eval()


def classifier_parser() -> ArgumentParser:
    """The parser of a `model:` section of `detect pretrain`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(class_from_function(classification_module), "model")
    parser.set_defaults(MODEL_DEFAULTS)
    return parser

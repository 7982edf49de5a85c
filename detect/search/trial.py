"""Short trainings that are compared: the same batches for all, scored on training images that none sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from detect.data.checks.splits import without_images
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, collate
from detect.data.divide import DivideOptions, choose_val
from detect.data.sampler import DetectionLoader, TrainLoader, ValSampler
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator
from detect.model.checkpoint import TRAINING_KEYS, Checkpoint, load_weights
from detect.search.inherit import Keep, inherit
from detect.training.batch_norm import norms_in_training, recompute_statistics
from detect.training.build import build_module
from detect.training.losses import LossTerms
from detect.training.module import DetectionModule
from detect.training.parameters import parameter_groups, scale_learning_rates
from detect.training.run_module import LOSS_UNIT
from detect.types import Batch, Target

EPOCHS_PER_STEP = 1000
"""Sets the batches of a step of the search apart from those of the others."""
SCORED_BATCH = 16
IDLE = {"init_from": None, "teacher": None, "compile": False}
"""Training keys that a short training does without."""


@dataclass(frozen=True)
class TrialOptions:
    """How a proposal is trained and scored."""

    train_steps: int = 40
    """Optimizer steps."""
    lr_factor: float = 0.1
    """Of the configuration's learning rate, which is for weights that have learnt less."""
    held_out: float = 0.2
    """Share of the training images that only score."""
    most_held_out: int = 500
    """Images that score, at most: they are kept decoded."""
    keep: Keep = "l2"

    def check(self) -> None:
        """Stop at numbers that make no trial.

        Raises:
            InputError: names the option.
        """
        if self.train_steps < 1 or not self.lr_factor > 0:
            raise InputError(
                f"--train_steps is {self.train_steps}, --lr_factor {self.lr_factor}; give at least 1, above 0"
            )
        if not 0 < self.held_out < 1:
            raise InputError(f"--held_out is {self.held_out}; give a share of the training images, 0 to 1")
        if self.most_held_out < 1:
            raise InputError(f"--most_held_out is {self.most_held_out}; give 1 or more")


class Trials:
    """Trains and scores networks of one search.

    Args:
        training: a `model:` section; what it says of the network does not matter here.
        data: opened, for its training split; it is left without the images that score.
        options: how.
        device: what computes.
        stop: called between steps; raises where the search is to end.

    Raises:
        InputError: the training split cannot be divided, or is smaller than a batch without its part.
    """

    def __init__(
        self,
        training: dict[str, Any],
        data: DetectionData,
        options: TrialOptions,
        *,
        device: torch.device,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        options.check()
        self.training = {key: training[key] for key in TRAINING_KEYS & training.keys()} | IDLE
        self.training.pop("distillation", None)
        self.options, self.data, self.device, self.stop = options, data, device, stop
        whole = data.train
        share = min(options.held_out, options.most_held_out / len(whole))
        scores, _ = choose_val(whole, DivideOptions(val_share=share, seed=data.seed))
        self.scored = without_images(whole, ~scores)
        data.train = without_images(whole, scores)
        self._loader: TrainLoader = data.train_dataloader()
        self._scored_batches: list[Batch] = []
        self._step, self._batches = -1, list[Batch]()

    def module(self, stated: dict[str, Any]) -> DetectionModule:
        """A fresh network in training.

        Args:
            stated: a `model:` section that states every width.
        """
        network = {key: value for key, value in stated.items() if key not in TRAINING_KEYS}
        module = build_module({**network, **self.training})
        module.detector.classes = self.data.classes
        return module.to(self.device)

    def load(self, stated: dict[str, Any], checkpoint: Checkpoint) -> DetectionModule:
        """The network of a checkpoint in training."""
        module = self.module(stated)
        load_weights(module.detector, checkpoint)
        return module.to(self.device)

    def narrower(self, wide: DetectionModule, stated: dict[str, Any], *, step: int) -> DetectionModule:
        """A narrower network with the weights of `wide`.

        Args:
            wide: the network of the step.
            stated: settings of the narrower one.
            step: of the search; its batches give the gradients where these decide what is kept.
        """
        narrow = self.module(stated)
        if self.options.keep == "taylor" and all(p.grad is None for p in wide.net.parameters()):
            wide.train()
            statistics = {name: buffer.clone() for name, buffer in wide.net.named_buffers()}
            self._gradients(wide, self.batches(step))
            for name, buffer in wide.net.named_buffers():
                buffer.copy_(statistics[name])  # looking at a network does not change it
        inherit(wide.net, narrow.net, keep=self.options.keep)
        return narrow

    def train(self, module: DetectionModule, *, step: int) -> None:
        """Some optimizer steps on the batches of a step of the search, then BatchNorm's statistics."""
        options = self.options
        torch.manual_seed(self.data.seed)  # for what draws in training; batches have seeds of their own
        module.train()
        optimizer = module.optimizer_from(parameter_groups(module.net, module.parameter_config))
        assert isinstance(optimizer, torch.optim.Optimizer)
        scale_learning_rates(optimizer)
        for group in optimizer.param_groups:
            group["lr"] *= options.lr_factor
        batches = self.batches(step)
        window = self._loader.batch_sampler.plan.accumulate
        for start in range(0, len(batches), window):
            self.stop()
            optimizer.zero_grad(set_to_none=True)
            self._gradients(module, batches[start : start + window])
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._recompute_statistics(module, step)

    def score(self, module: DetectionModule) -> float:
        """MAP on the images that no trial is shown."""
        if not self._scored_batches:
            self._scored_batches = list(self._score_loader())
        module.eval()
        evaluator = CocoEvaluator(self.scored)
        with torch.inference_mode():
            for batch in self._scored_batches:
                self.stop()
                outputs = module.net(module.layout(batch.images.to(self.device)))
                detections = module.detector.detections(outputs, batch.orig_size.to(self.device))
                evaluator.update(batch.sample_idx, detections)
        evaluator.gather()
        return evaluator.compute().mAP

    def batches(self, step: int) -> list[Batch]:
        """What every trial of a step is trained on; kept until the next one."""
        if step != self._step:
            count = self.options.train_steps * self._loader.batch_sampler.plan.accumulate
            self._step, self._batches = step, list(islice(self._endless(step), count))
        return self._batches

    def _endless(self, step: int) -> Iterator[Batch]:
        epoch = EPOCHS_PER_STEP * step
        while True:
            self._loader.batch_sampler.set_epoch(epoch)
            yield from self._loader
            epoch += 1

    def _gradients(self, module: DetectionModule, batches: Sequence[Batch]) -> None:
        """Add the gradients of the mean loss per positive to those that are there."""
        positives = torch.zeros((), device=self.device)
        for batch in batches:
            sums = self._loss(module, batch)
            positives += sums.positives.detach()
            (sums.total / LOSS_UNIT).backward()
        factor = LOSS_UNIT / positives.clamp(min=1)
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _loss(self, module: DetectionModule, batch: Batch) -> LossTerms:
        images = module.layout(batch.images.to(self.device))
        return module.loss_terms(images, Target(*(value.to(self.device) for value in batch.target)))

    def _recompute_statistics(self, module: DetectionModule, step: int) -> None:
        """As before a validation of `detect fit`, from batches of the step, which are decoded."""
        norms, count = norms_in_training(module.net), module.statistics_images
        module.eval()
        if not norms or not count:
            return
        batches = self.batches(step)
        most = -(-count // len(batches[0].images))
        shown = (module.layout(batch.images.to(self.device)) for batch in batches[:most])
        recompute_statistics(norms, module.net, shown)

    def _score_loader(self) -> DetectionLoader:
        data = self.data
        dataset = DetectionDataset(self.scored, data.image_size, resize_rule=data.resize_rule)
        counts = self.scored.offsets[1:] - self.scored.offsets[:-1]
        sampler = ValSampler(counts, SCORED_BATCH)
        return DetectionLoader(dataset, batch_sampler=sampler, collate_fn=collate)

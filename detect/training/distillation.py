"""A trained detector as a teacher: its outputs for the batch of another, and what they add to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detect.boxes import box_iou
from detect.errors import InputError
from detect.model.box_coder import decode, encode
from detect.model.checkpoint import Checkpoint, build_from_checkpoint, read_checkpoint
from detect.model.detector import TorchDetector
from detect.model.ssdlite import LevelAnchors, SSDLite
from detect.training.losses import LossTerms
from detect.training.losses.distillation import (
    NOWHERE,
    bin_divergence,
    channel_wise_divergence,
    class_log_odds,
    class_maps,
)
from detect.training.manifest import hash_weights
from detect.types import ClassMap, HeadOutputs

TERM_NAMES = ("loss_cwd", "loss_ld")
"""What a teacher adds to the terms of the loss in training; logged as train/NAME."""
SAME_PX = 1e-3
"""Anchors whose sides differ by less, in px of the student's input, are the same."""
LEAST_IOU = 0.5
"""An anchor of the student learns from the teacher's that overlaps it most, and from none below this IoU."""
LEAST_SCORE = 0.3
"""Boxes of lower scores teach nothing: thousands of anchors on background would outweigh the objects."""
ROWS = 256
"""Anchors of the student whose IoU with all of the teacher's is computed at once: some 20 MB."""


@dataclass(frozen=True)
class DistillationConfig:
    """How much the teacher counts, per positive anchor beside the class and the box loss."""

    cls_weight: float = 1.0
    """Factor on the divergence of the class maps (CWD). With MMRazor's 5 it outweighs the data; 0: none."""
    cls_temperature: float = 1.0
    """Of the softmax over the positions of a map; MMRazor's is 1. Higher: quieter positions count more."""
    box_weight: float = 2.5
    """Factor on the boxes (LD), weighted by the teacher's score. LD's own, for bins, is 0.25; 0: none."""
    box_temperature: float = 10.0
    """Of the softmax over the bins of a delta, with `model.box_bins`; LD's own is 10."""

    def __post_init__(self) -> None:
        for name, least in (("cls_weight", 0), ("box_weight", 0)):
            if getattr(self, name) < least:
                raise InputError(f"model.distillation.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("cls_temperature", "box_temperature"):
            if getattr(self, name) <= 0:
                raise InputError(f"model.distillation.{name} is {getattr(self, name)}; give more than 0")


class AnchorMatch(NamedTuple):
    """For each anchor of the student the teacher's anchor that it learns from."""

    same: bool
    """Both have the same anchors: nothing is looked up, and box outputs mean the same."""
    rows: Tensor
    """(A,) int64, anchors of the teacher."""
    theirs: Tensor
    """(A, 4) xyxy of these, in px of the student's input."""
    own: LevelAnchors
    """The student's."""
    known: Tensor
    """(A,) bool: whether they overlap enough to learn from."""


class Distillation:
    """A teacher and its terms of the loss; no torch module, so that no state dict or average takes it in.

    The teacher sees the same batch as the student, stretched to the input that it was trained with, in
    evaluation mode and without gradients. Of two detectors with other taps, inputs or anchors, each anchor
    of the student learns from the teacher's anchor that overlaps it most, and from none below an IoU of 0.5.

    - Class maps: `channel_wise_divergence` of the log-odds, a channel for each class of each anchor of a
      cell. An image counts by its positive anchors: divided by their number, as every term is, the mean over
      images is what the paper minimises, on any number of devices.
    - Boxes, weighted by the teacher's best score where it is at least 0.3: `bin_divergence` where both have
      the same `box_bins` and anchors, else smooth L1 between the deltas of student and teacher.

    Args:
        detector: the teacher; it is set to evaluation mode and learns nothing.
        config: weights and temperatures.
        name: of the file it came from, for messages.

    Source: CWD (arXiv 2011.13256), LD (arXiv 2102.12252).
    """

    def __init__(
        self,
        detector: TorchDetector,
        config: DistillationConfig = DistillationConfig(),
        *,
        name: str = "teacher",
    ) -> None:
        self.detector = detector.eval().requires_grad_(False)
        self.config = config
        self.name = name
        self._matches: dict[tuple[int, int], AnchorMatch] = {}

    def require_match(self, student: SSDLite) -> None:
        """Look whether the teacher has something to teach to this student.

        Raises:
            InputError: it has another number of classes, or no anchor that overlaps one of the student's.
        """
        if (theirs := self.detector.net.num_classes) != student.num_classes:
            raise InputError(
                f"the teacher {self.name} has {theirs} classes and the detector {student.num_classes}: give "
                "a teacher of the same classes"
            )
        if not self.match_of(student, student.image_size).known.any():
            raise InputError(
                f"the teacher {self.name} has no anchor that overlaps one of this detector's by an IoU of "
                f"{LEAST_IOU}: give model.taps and model.anchors closer to its own"
            )

    def match_of(self, student: SSDLite, image_size: tuple[int, int]) -> AnchorMatch:
        """Of an input of the student of this (H, W), computed once; the teacher follows to its device."""
        known = self._matches.get(image_size)
        own = student.anchors_of(image_size)
        if known is None or known.rows.device != own.boxes.device:
            net = self.detector.to(own.boxes.device).net
            height, width = (ours / theirs for ours, theirs in zip(image_size, net.image_size, strict=True))
            known = match_anchors(own, net.anchors * net.anchors.new_tensor([width, height, width, height]))
            self._matches[image_size] = known
        return known

    def sentence(self, student: SSDLite) -> str:
        """Who teaches, and how much of the student has something to learn."""
        share = self.match_of(student, student.image_size).known.float().mean().item()
        height, width = self.detector.image_size
        return (
            f"teacher {self.name}, input {height} x {width}: {share:.1%} of the anchors have one of its "
            "own to learn from"
        )

    def __call__(
        self, sums: LossTerms, student: TorchDetector, head_outputs: HeadOutputs, images: Tensor
    ) -> LossTerms:
        """The terms of the student's loss and those of the teacher, sums over the batch in float32.

        Args:
            sums: the student's.
            student: what gave the head outputs; its settings alone are read.
            head_outputs: of the student, for `images`.
            images: (B, 3, H, W) as the student takes them.
        """
        match = self.match_of(student.net, (images.shape[-2], images.shape[-1]))
        taught = self.teach(images)
        with torch.autocast(device_type=images.device.type, enabled=False):
            head_outputs, taught = head_outputs.map(Tensor.float), taught.map(Tensor.float)
            if not match.same:
                taught = taught.map(lambda values: values.index_select(1, match.rows))
            odds = class_log_odds(head_outputs.cls_logits, student.postprocess.activation)
            their_odds = class_log_odds(taught.cls_logits, self.detector.postprocess.activation)
            per_cell = student.net.anchor_generator.per_cell
            by_image = self._class_divergence(odds, their_odds, match, per_cell)
            by_anchor = self._box_distance(head_outputs, taught, match) * _confidence(their_odds, match)
            terms = {
                "loss_cwd": self.config.cls_weight * (sums.image_positives * by_image).sum(),
                "loss_ld": self.config.box_weight * by_anchor.sum(),
            }
        return sums._replace(terms=sums.terms | terms)

    @torch.no_grad()
    def teach(self, images: Tensor) -> HeadOutputs:
        """The teacher's head outputs for a batch of the student's, at the teacher's own input size."""
        size = self.detector.image_size
        if images.shape[-2:] != size:
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
        outputs: HeadOutputs = self.detector.net(self.detector.layout(images))
        return outputs

    def _class_divergence(
        self, odds: Tensor, their_odds: Tensor, match: AnchorMatch, per_cell: Sequence[int]
    ) -> Tensor:
        """(B,) of log-odds (B, A, K); anchors that learn from none are in no map."""
        both = [odds, their_odds]
        if not match.same:
            both = [values.masked_fill(~match.known.unsqueeze(-1), NOWHERE) for values in both]
        maps = [class_maps(values, match.own.levels, per_cell) for values in both]
        return channel_wise_divergence(*maps, temperature=self.config.cls_temperature)

    def _box_distance(self, ours: HeadOutputs, theirs: HeadOutputs, match: AnchorMatch) -> Tensor:
        """(B, A) between the boxes of both."""
        bins, their_bins = ours.box_logits, theirs.box_logits
        if match.same and bins is not None and their_bins is not None and bins.shape == their_bins.shape:
            return bin_divergence(bins, their_bins, temperature=self.config.box_temperature)
        deltas = theirs.box_deltas
        if not match.same:
            deltas = encode(decode(deltas, match.theirs), match.own.boxes)
        return F.smooth_l1_loss(ours.box_deltas, deltas, reduction="none").sum(-1)


def _confidence(odds: Tensor, match: AnchorMatch) -> Tensor:
    """(B, A) best score of log-odds (B, A, K); 0 where it is low, or there is no anchor to learn from."""
    scores = odds.amax(-1).sigmoid()
    return torch.where((scores >= LEAST_SCORE) & match.known, scores, 0.0)


def match_anchors(own: LevelAnchors, theirs: Tensor) -> AnchorMatch:
    """The teacher's anchor that overlaps each of the student's most.

    Args:
        own: of the student, px of its input.
        theirs: (N, 4) xyxy of the teacher, in the same frame.
    """
    anchors = own.boxes
    if anchors.shape == theirs.shape and bool((anchors - theirs).abs().max() < SAME_PX):
        rows = torch.arange(len(anchors), device=anchors.device)
        return AnchorMatch(True, rows, theirs, own, torch.ones_like(rows, dtype=torch.bool))
    best = [box_iou(some, theirs).max(1) for some in anchors.split(ROWS)]
    rows = torch.cat([of_some.indices for of_some in best])
    overlaps = torch.cat([of_some.values for of_some in best])
    return AnchorMatch(False, rows, theirs[rows], own, overlaps >= LEAST_IOU)


def read_teacher(path: Path) -> Checkpoint:
    """The checkpoint that `model.teacher` names.

    Raises:
        InputError: no such file, or no detector of ours.
    """
    try:
        return read_checkpoint(path)
    except InputError as error:
        raise InputError(f"model.teacher: {error}") from error


def load_teacher(path: Path, config: DistillationConfig) -> Distillation:
    """A teacher from a checkpoint.

    Raises:
        InputError: see `read_teacher`.
    """
    return Distillation(build_from_checkpoint(read_teacher(path)), config, name=str(path))


def describe_teacher(path: Path, classes: ClassMap) -> dict[str, Any]:
    """What a run notes of its teacher: the file, a hash of its weights, and their origin with its licence.

    Args:
        path: of its checkpoint.
        classes: of the data, which must be the teacher's.

    Raises:
        InputError: see `read_teacher` and `refuse_other_classes`.
    """
    checkpoint = read_teacher(path)
    refuse_other_classes(str(path), checkpoint.classes, classes)
    return {
        "path": str(path),
        "weights_sha256": hash_weights(checkpoint.state_dict),
        "weights_origin": checkpoint.description.get("weights_origin"),
    }


def refuse_other_classes(name: str, theirs: ClassMap | None, ours: ClassMap) -> None:
    """Compare the classes of a teacher with those of the data; one built by hand may know none.

    Raises:
        InputError: names or order differ; names both.
    """
    if theirs is not None and theirs.names != ours.names:
        raise InputError(
            f"the teacher {name} knows the classes {list(theirs.names)}, the data has {list(ours.names)}: "
            "names and order must be the same"
        )

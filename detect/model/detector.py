"""A detector as a plain torch module: network, post-processing, and what one must know to use it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.anchors import AnchorConfig
from detect.model.backbones.base import Backbone, Rgb
from detect.model.blocks import ConvSettings, Init
from detect.model.checkpoint_format import describe_network
from detect.model.configurable import plain
from detect.model.necks.base import Neck
from detect.model.postprocess import PostProcess
from detect.model.ssdlite import TAPS, SSDLite
from detect.model.thresholds import PostProcessConfig
from detect.types import INPUT_SIZE, ClassMap, Detections, HeadOutputs, ResizeRule, ScoreActivation


class TorchDetector(nn.Module):
    """An SSDLite detector: images in, detections out. It knows no training and no runtime but torch.

    Args:
        backbone: a class of detect.model.backbones; the only part that differs between compared experiments.
        num_classes: K, without background; null: taken from the data by the command line.
        image_size: (H, W) of the input in px; anchors, data and exported files follow. Time grows with the
            area; small objects want it larger.
        taps: maps of the backbone that the detector uses, from fine to coarse: c3 (stride 8), c4 (16) and c5
            (32), which is always among them. c3 is for small objects; anchors are then four times as many.
        neck: a class of detect.model.necks, between the taps and the heads; null: none.
        extra_levels: channels [mid, out] of each map that is added after the last: 1x1 to mid, 3x3 of stride
            2, 1x1 to out. Null: [256, 512], [128, 256], [128, 256], [64, 128], or those of the neck, times
            the backbone's `width`.
        anchors: style of the head ("paper" or "torchvision"), and anchors by hand.
        postprocess: from scores to detections.
        norm: BatchNorm and padding of neck, extra levels and heads; the backbone's are its own `settings`.
        mean: of each input channel in 0..1; null: what the backbone was trained with.
        std: of each input channel in 0..1; null: likewise.
        box_bins: bins of each box delta: heads give a distribution over so many values from -8 to 8, and its
            expectation is the delta, in exported graphs as well; 16 for `DistributionFocalLoss`. Null: the
            delta itself.
        init: of every convolution without pretrained weights: normal with a deviation of 0.03, or Kaiming's
            but for the last of each head.
        resize_rule: how files are stretched onto the input in evaluation and prediction. "antialias" is
            Pillow's; "torchvision" is for checkpoints from there, which were trained without antialias.
        channels_last: memory layout of images and weights; faster on CPU and on tensor cores.
        score_activation: what turns logits into scores; the loss that trains the network decides it.
    """

    classes: ClassMap | None = None
    """The meaning of each label; known once the detector was trained or loaded."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int | None = None,
        image_size: tuple[int, int] = INPUT_SIZE,
        taps: tuple[str, ...] = TAPS,
        neck: Neck | None = None,
        extra_levels: list[tuple[int, int]] | None = None,
        anchors: AnchorConfig = AnchorConfig(),
        postprocess: PostProcessConfig = PostProcessConfig(),
        norm: ConvSettings = ConvSettings(),
        mean: Rgb | None = None,
        std: Rgb | None = None,
        box_bins: int | None = None,
        init: Init = "normal",
        resize_rule: ResizeRule = "antialias",
        channels_last: bool = True,
        score_activation: ScoreActivation = "softmax",
    ) -> None:
        super().__init__()
        if num_classes is None:
            raise InputError("model.num_classes is null: give the number of classes, or data to take it from")
        self.net = SSDLite(
            backbone,
            num_classes,
            image_size=image_size,
            taps=taps,
            neck=neck,
            extra_levels=extra_levels,
            anchors=anchors,
            settings=norm,
            mean=mean,
            std=std,
            box_bins=box_bins,
            init=init,
        )
        postprocess.check_classes(num_classes)
        size = self.net.image_size
        self.postprocess = PostProcess(postprocess, activation=score_activation, image_size=size)
        self._given = {
            **{"norm": norm, "mean": mean, "std": std, "box_bins": box_bins, "init": init},
            "extra_levels": extra_levels,
        }
        self.resize_rule: ResizeRule = resize_rule
        self.channels_last = channels_last
        if channels_last:
            self.net.to(memory_format=torch.channels_last)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the input in px."""
        return self.net.image_size

    def forward(self, images: Tensor) -> Detections:
        """(B, 3, H, W) uint8 images to detections in px of the input."""
        return self.postprocess(self.net(self.layout(images)), self.net.anchors)

    def detections(self, head_outputs: HeadOutputs, orig_size: Tensor) -> Detections:
        """Head outputs to detections in px of the files.

        Args:
            head_outputs: logits (B, A, K + 1) and box_deltas (B, A, 4).
            orig_size: (B, 2) height and width of each file in px.
        """
        return self.postprocess.in_files(self.postprocess(head_outputs, self.net.anchors), orig_size)

    def layout(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the weights."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def to_settings(self) -> dict[str, Any]:
        """Arguments that build this network without other weights, in plain values."""
        net = self.net
        pretrained = net.backbone.weights_origin is not None
        return {
            "backbone": net.backbone.network_settings(),
            "num_classes": net.num_classes,
            "image_size": list(net.image_size),
            "taps": list(net.taps),
            "neck": plain(net.neck),
            "anchors": plain(net.anchor_generator.config),
            "postprocess": plain(self.postprocess.config),
            **plain(self._given),
            **({"mean": net.mean.tolist(), "std": net.std.tolist()} if pretrained else {}),
            "resize_rule": self.resize_rule,
            "channels_last": self.channels_last,
        }

    def describe(self) -> dict[str, Any]:
        """What a checkpoint or an exported file must say so that it can be used alone: plain values only.

        Raises:
            InputError: the detector does not know its classes yet.
        """
        net = self.net
        shared = describe_network(
            "detector",
            net.backbone,
            self.classes,
            model=self.to_settings(),
            input={
                "image_size": list(net.image_size),
                "resize_rule": self.resize_rule,
                "mean": net.mean.tolist(),
                "std": net.std.tolist(),
            },
        )
        return shared | {
            "anchors": plain(net.anchor_generator.config),
            "postprocess": {
                **plain(self.postprocess.config),
                "score_activation": self.postprocess.activation,
            },
        }

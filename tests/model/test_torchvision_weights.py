"""Parity with torchvision's own ssdlite320_mobilenet_v3_large: the second opinion on the whole detector."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssd import SSD
from torchvision.transforms.functional import to_tensor

from detect.api import Detector
from detect.errors import InputError
from detect.model.anchors import AnchorConfig, even_scales
from detect.model.backbones import MobileNetV2, MobileNetV3
from detect.model.ssdlite import SSDLite
from detect.model.torchvision_weights import coco_classes, from_torchvision, to_torchvision
from detect.model.weights import imported_classes
from detect.training.build import build_module
from detect.training.module import DetectionModule
from detect.types import Target

K = 6


def build_torchvision(*, reduced_tail: bool, num_classes: int = K) -> SSD:
    if reduced_tail:
        return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)
    # torchvision keeps the full tail only where it loads a pretrained backbone
    state_dict = mobilenet_v3_large(weights=None).state_dict()
    with patch("torchvision.models._api.load_state_dict_from_url", return_value=state_dict):
        return ssdlite320_mobilenet_v3_large(
            weights=None,
            weights_backbone=MobileNet_V3_Large_Weights.IMAGENET1K_V1,
            num_classes=num_classes + 1,
        )


def photograph(height: int, width: int, seed: int = 7) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    noise = rng.integers(-20, 20, (height, width, 3))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def randomise(model: SSD) -> SSD:
    """As after training: every map has a spread, so that scores differ and detections have an order.

    BatchNorm shifts near 1 keep most units in their linear range; a random deep network without them
    multiplies the rounding of its input by a thousand.
    """
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.2, generator=generator)
            module.bias.data.normal_(1, 0.1, generator=generator)
            module.momentum = 1.0  # statistics of the next batch
    for head in (model.head.classification_head, model.head.regression_head):
        for block in head.module_list:
            block[1].weight.data.normal_(0, 0.03, generator=generator)
            block[1].bias.data.normal_(0, 0.5, generator=generator)
    with torch.inference_mode():
        images = torch.stack([to_tensor(photograph(320, 320, seed=seed)) for seed in range(4)])
        model.train()
        model.head(list(model.backbone((images - 0.5) / 0.5).values()))
    return model.eval()


def import_module(model: SSD) -> DetectionModule:
    state_dict, settings = from_torchvision(model.state_dict())
    module = build_module(settings)
    module.net.load_state_dict(state_dict)
    module.detector.classes = imported_classes(module.net.num_classes, None)
    return module.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["reduced_tail", "full_tail"])
def pair(request: pytest.FixtureRequest) -> tuple[SSD, DetectionModule]:
    model = randomise(build_torchvision(reduced_tail=request.param))
    return model, import_module(model)


@pytest.fixture
def images() -> torch.Tensor:
    pictures = [np.asarray(photograph(320, 320, seed=seed)) for seed in (11, 12)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def test_settings_are_read_from_the_shapes(pair: tuple[SSD, DetectionModule]) -> None:
    model, module = pair
    assert module.net.num_classes == K
    tail = model.backbone.features[1][3][0].out_channels
    net = module.net
    assert [net.backbone.taps[name].channels for name in net.taps] == [672, tail]
    assert module.net.backbone.reduced_tail == (tail == 480)
    assert module.detector.resize_rule == "torchvision"
    assert module.loss.min_negatives == 0


def test_logits_and_deltas_agree(pair: tuple[SSD, DetectionModule], images: torch.Tensor) -> None:
    model, module = pair
    with torch.inference_mode():
        ours = module.net(images)
        normalised = (images / 255 - 0.5) / 0.5
        theirs = model.head(list(model.backbone(normalised).values()))
    assert theirs["cls_logits"].std() > 0.1
    torch.testing.assert_close(ours.cls_logits, theirs["cls_logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.box_deltas, theirs["bbox_regression"], rtol=1e-5, atol=1e-5)


def test_detections_agree_on_the_input(pair: tuple[SSD, DetectionModule], images: torch.Tensor) -> None:
    model, module = pair
    with torch.inference_mode():
        ours = module(images)
        theirs = model(list(images / 255))
    for i, expected in enumerate(theirs):
        kept = ours.labels[i] > 0
        assert len(expected["labels"]) == 300
        assert torch.equal(ours.labels[i][kept], expected["labels"])
        torch.testing.assert_close(ours.scores[i][kept], expected["scores"], rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.boxes[i][kept], expected["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(240, 427), (500, 333)])
def test_a_photograph_of_any_size_gives_torchvisions_detections(
    pair: tuple[SSD, DetectionModule], size: tuple[int, int]
) -> None:
    model, module = pair
    photo = photograph(*size)
    prediction = Detector(module.detector, device="cpu").predict(photo, score_threshold=0.001)
    with torch.inference_mode():
        (expected,) = model([to_tensor(photo)])
    # Torchvision normalises before it resizes, we after: the last bit differs, and may swap two equal scores.
    np.testing.assert_allclose(prediction.scores, expected["scores"], rtol=0, atol=2e-5)
    box_distance = np.abs(prediction.boxes[:, None] - expected["boxes"].numpy()).max(axis=2)
    other_label = prediction.labels[:, None] != expected["labels"].numpy()
    partner = np.where(other_label, np.inf, box_distance).argmin(axis=1)
    assert sorted(partner) == list(range(300))
    assert box_distance[np.arange(300), partner].max() < 2e-3 * max(size) / 320
    assert np.abs(partner - np.arange(300)).max() <= 2


def test_loss_and_gradient_agree(images: torch.Tensor) -> None:
    model = randomise(build_torchvision(reduced_tail=True))
    module = import_module(model)
    boxes = torch.tensor([[[20.0, 30, 140, 200], [150, 40, 300, 180], [22, 30, 141, 205]], [[0.0] * 4] * 3])
    labels = torch.tensor([[1, 5, 2], [0, 0, 0]])  # the second image has no object
    target = Target(boxes, labels, torch.zeros(2, 3, dtype=torch.bool))

    sums = module.loss_terms(images, target)
    assert sums.positives > 10
    (sums.total / sums.positives).backward()

    model.training = True  # losses instead of detections, with BatchNorm still in evaluation mode
    targets = [{"boxes": boxes[i][labels[i] > 0], "labels": labels[i][labels[i] > 0]} for i in range(2)]
    losses = model(list(images / 255), targets)
    sum(losses.values()).backward()

    expected = {"classification": sums.terms["loss_cls"], "bbox_regression": sums.terms["loss_box"]}
    for name, value in expected.items():
        torch.testing.assert_close(value / sums.positives, losses[name], rtol=1e-5, atol=1e-5)
    ours = {parameter.data_ptr(): parameter for parameter in module.net.parameters()}
    names = to_torchvision(module.net)
    compared = 0
    for name, parameter in model.named_parameters():
        gradient = ours[names[name].data_ptr()].grad
        assert gradient is not None
        assert parameter.grad is not None
        scale = parameter.grad.abs().max().item()
        compared += scale > 0  # the box head of a map without positives learns nothing
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-5 * max(scale, 1), msg=name)
    assert compared > 200


def test_the_way_back_is_the_same_file(pair: tuple[SSD, DetectionModule]) -> None:
    model, module = pair
    back = to_torchvision(module.net)
    original = model.state_dict()
    assert back.keys() == original.keys()
    assert all(torch.equal(back[key], original[key]) for key in original)


@pytest.mark.parametrize("num_classes", [1, 90])
def test_any_number_of_classes(num_classes: int) -> None:
    with torch.device("meta"):
        _, settings = from_torchvision(
            build_torchvision(reduced_tail=True, num_classes=num_classes).state_dict()
        )
    assert settings["num_classes"] == num_classes


def test_the_published_checkpoint_names_cocos_classes() -> None:
    classes = coco_classes()
    assert classes.num_classes == 90
    assert (classes.name(1), classes.name(90)) == ("person", "toothbrush")
    assert classes.category_id(90) == 90
    assert sum(name.startswith("unused ") for name in classes.names) == 10


def test_state_dicts_of_other_networks_are_refused(pair: tuple[SSD, DetectionModule]) -> None:
    good = pair[0].state_dict()
    with pytest.raises(
        InputError, match=r"not a state dict of ssdlite320_.*features\.1\.3\.0\.weight is missing"
    ):
        from_torchvision(mobilenet_v3_large(weights=None).state_dict())
    key = "backbone.extra.2.1.1.running_mean"
    with pytest.raises(InputError, match=r"extra\.2\.1\.1\.running_mean is missing"):
        from_torchvision({k: v for k, v in good.items() if k != key})
    with pytest.raises(InputError, match=r"running_mean has the shape \(7,\), expected \(128,\)"):
        from_torchvision({**good, key: torch.zeros(7)})
    with pytest.raises(InputError, match=r"it has backbone\.fpn\.weight besides"):
        from_torchvision({**good, "backbone.fpn.weight": torch.zeros(1)})
    last = "backbone.features.1.3.0.weight"
    with pytest.raises(InputError, match=r"has 100 output channels, expected 480 \(reduced tail\) or 960"):
        from_torchvision({**good, last: torch.zeros(100, 80, 1, 1)})


def test_what_torchvision_cannot_build_is_not_exported() -> None:
    torchvision_anchors = AnchorConfig("torchvision")
    with torch.device("meta"):
        with pytest.raises(InputError, match="its backbone is mobilenet_v2"):
            to_torchvision(SSDLite(MobileNetV2(), 3, anchors=torchvision_anchors))
        with pytest.raises(InputError, match=r"its width is 0\.5"):
            to_torchvision(SSDLite(MobileNetV3(width=0.5), 3, anchors=torchvision_anchors))
        with pytest.raises(InputError, match=r"its anchors are not torchvision's.*its input is 256x320"):
            to_torchvision(SSDLite(MobileNetV3(), 3, image_size=(256, 320)))
        # The usual scales may be written as numbers, as `anchors: auto` does.
        usual = AnchorConfig("torchvision", scales=even_scales((16, 32, 64, 128, 256, 512)))
        assert to_torchvision(SSDLite(MobileNetV3(), 3, anchors=usual))

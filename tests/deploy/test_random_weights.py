from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from detect.data.augment.view import resize_pixels
from detect.data.synthetic.images import generated_images
from detect.deploy.array_postprocess import promising
from detect.deploy.export import verification_images
from detect.deploy.random_weights import detector_of_config
from detect.deploy.spec import ModelSpec
from detect.deploy.verify import LOGIT_TOLERANCE
from tests.detector_cases import SETTINGS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def config(tmp_path: Path, **init_args: object) -> Path:
    settings = {
        **SETTINGS,
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": init_args},
    }
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"model": settings}))
    return path


def test_detector_of_config__needs_no_pretrained_weights(tmp_path, monkeypatch):
    def no_network(*args, **rest):
        raise AssertionError("asked the network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("detect.model.backbones.pretrained._fetch", no_network)
    module = detector_of_config(config(tmp_path, size="small", weights="imagenet"))
    assert module.net.backbone.weights_origin is None
    assert module.classes.names == ("class 1", "class 2", "class 3")
    again = detector_of_config(config(tmp_path, size="small"))
    assert torch.equal(next(module.net.parameters()), next(again.net.parameters()))


def test_detector_of_config__leaves_the_generator_of_others_alone(tmp_path):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    detector_of_config(config(tmp_path, size="small"))
    assert torch.equal(torch.rand(2), wanted)


def test_detector_of_config__activations_neither_fade_nor_explode(tmp_path):
    net = detector_of_config(config(tmp_path, size="large")).net
    spreads: list[float] = []
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, output: spreads.append(output.std(0).mean().item()))
    images = np.stack(
        [resize_pixels(picture, net.image_size, "antialias") for picture in generated_images(6)]
    )
    with torch.no_grad():
        net(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert len(spreads) > 50
    assert min(spreads) > 0.1  # of images, at a place
    assert max(spreads) < 2


@pytest.mark.parametrize(
    "loss", ["MultiBoxLoss", "FocalLoss"], ids=["scores by softmax", "scores by sigmoid"]
)
def test_detector_of_config__few_anchors_may_hold_an_object_as_in_trained_detectors(tmp_path, loss):
    path = config(tmp_path, size="small")
    settings = yaml.safe_load(path.read_text())
    settings["model"]["loss"] = {"class_path": f"detect.training.losses.{loss}"}
    path.write_text(yaml.safe_dump(settings))
    detector = detector_of_config(path)
    spec = ModelSpec.of_detector(detector)
    with torch.no_grad():
        logits = detector.net(verification_images(spec, None)).cls_logits.numpy()
    assert promising(logits.reshape(-1, logits.shape[-1]), spec).mean() < 0.2  # with no prior nearly all


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet", "v2_035", "v3_small_reduced"])
def test_detector_of_config__rounding_stays_below_what_an_export_may_be_off(name):
    module = detector_of_config(CONFIGS / "table6" / f"{name}.yaml")
    images = verification_images(ModelSpec.of_detector(module), None)
    with torch.no_grad():
        rounded, exact = module.net(images), deepcopy(module.net).double()(images)
    for output, want in zip(rounded[:2], exact[:2], strict=True):
        assert (output - want).abs().max() < LOGIT_TOLERANCE / 2
        assert want.std() > 100 * LOGIT_TOLERANCE  # a wrong graph would show

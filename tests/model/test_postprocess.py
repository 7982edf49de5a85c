import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.ops import nms

from detect.errors import InputError
from detect.model.anchors import AnchorConfig
from detect.model.backbones import MobileNetV3
from detect.model.postprocess import PostProcess, class_scores
from detect.model.ssdlite import SSDLite
from detect.model.thresholds import PostProcessConfig
from detect.types import HeadOutputs
from tests.test_boxes import random_boxes

SIZE = (320, 320)


def random_outputs(batch: int, anchors: int, classes: int, seed: int = 0) -> HeadOutputs:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, anchors, classes + 1, generator=generator) * 2
    return HeadOutputs(logits, torch.randn(batch, anchors, 4, generator=generator))


def test_scores__of_both_activations_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0]])
    assert class_scores(logits, "softmax").tolist()[0] == pytest.approx([1 / 3, 1 / 3])
    assert class_scores(logits, "sigmoid").tolist() == [[0.5, 0.5]]


def test_postprocess__equals_nms_class_by_class():
    anchors, outputs = random_boxes(60), random_outputs(3, 60, 4)
    config = PostProcessConfig(score_threshold=0.05, max_detections=1000, topk_candidates=None)
    post = PostProcess(config, activation="softmax", image_size=SIZE)
    detections = post(outputs, anchors)
    every = PostProcess(
        PostProcessConfig(score_threshold=0.05, nms_threshold=1.0, max_detections=1000, topk_candidates=None),
        activation="softmax",
        image_size=SIZE,
    )(outputs, anchors)
    for i in range(3):
        for label in range(1, 5):
            of_class = every.labels[i] == label
            boxes, scores = every.boxes[i][of_class], every.scores[i][of_class]
            kept = nms(boxes, scores, config.nms_threshold)
            ours = detections.labels[i] == label
            assert torch.equal(detections.boxes[i][ours], boxes[kept])
            assert torch.equal(detections.scores[i][ours], scores[kept])


def test_postprocess__equals_torchvision():
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=6).eval()
    anchors = SSDLite(MobileNetV3(), 5, anchors=AnchorConfig("torchvision")).anchors
    outputs = random_outputs(2, len(anchors), 5)
    heads = {"cls_logits": outputs.cls_logits, "bbox_regression": outputs.box_deltas}
    theirs = model.postprocess_detections(heads, [anchors] * 2, [SIZE] * 2)
    config = PostProcessConfig(
        score_threshold=0.001,
        nms_threshold=0.55,
        max_detections=300,
        topk_candidates=None,
        topk_per_class=300,
    )
    ours = PostProcess(config, activation="softmax", image_size=SIZE)(outputs, anchors)
    for i in range(2):
        assert torch.equal(ours.labels[i], theirs[i]["labels"])
        assert torch.allclose(ours.scores[i], theirs[i]["scores"], atol=1e-6)
        assert torch.allclose(ours.boxes[i], theirs[i]["boxes"], atol=1e-3)


def test_postprocess__classes_do_not_suppress_each_other():
    anchors = torch.tensor([[10.0, 10, 50, 50], [10, 10, 50, 50]])
    logits = torch.tensor([[[0.0, 5, 0], [0.0, 0, 5]]])
    post = PostProcess(PostProcessConfig(score_threshold=0.5), activation="softmax", image_size=SIZE)
    detections = post(HeadOutputs(logits, torch.zeros(1, 2, 4)), anchors)
    assert detections.labels.tolist() == [[1, 2]]
    assert detections.boxes.tolist() == [[[10, 10, 50, 50]] * 2]


def test_postprocess__ties_keep_the_order_of_the_anchors():
    anchors = torch.tensor([[100.0, 0, 120, 20], [0.0, 0, 20, 20], [50.0, 0, 70, 20]])
    post = PostProcess(PostProcessConfig(), activation="softmax", image_size=SIZE)
    detections = post(HeadOutputs(torch.zeros(1, 3, 2), torch.zeros(1, 3, 4)), anchors)
    assert detections.boxes[0, :, 0].tolist() == [100, 0, 50]


def test_postprocess__pads_and_cuts():
    anchors = torch.tensor([[-20.0, 0, 20, 400], [100, 0, 120, 20], [200, 0, 220, 20]])
    logits = torch.tensor([[[0.0, 9], [9, 0], [9, 0]], [[0.0, 8], [0, 9], [0.0, 7]]])
    post = PostProcess(
        PostProcessConfig(score_threshold=0.5, max_detections=2), activation="softmax", image_size=SIZE
    )
    detections = post(HeadOutputs(logits, torch.zeros(2, 3, 4)), anchors)
    assert detections.labels.tolist() == [[1, 0], [1, 1]]
    assert detections.scores[0, 1].item() == 0
    assert detections.boxes[0].tolist() == [[0, 0, 20, 320], [0, 0, 0, 0]]  # cut to the input, then padding


def test_postprocess__nothing_above_the_threshold():
    post = PostProcess(PostProcessConfig(score_threshold=0.99), activation="softmax", image_size=SIZE)
    detections = post(random_outputs(2, 9, 1)._replace(cls_logits=torch.zeros(2, 9, 2)), random_boxes(9))
    assert detections.boxes.shape == (2, 0, 4)


def test_topk_candidates__keeps_the_best():
    anchors, outputs = random_boxes(200), random_outputs(1, 200, 3)
    few = PostProcess(PostProcessConfig(topk_candidates=10), activation="sigmoid", image_size=SIZE)
    detections = few(outputs, anchors)
    best = class_scores(outputs.cls_logits, "sigmoid").flatten().topk(10).values
    assert detections.scores.max() == best[0]
    assert detections.scores.shape[1] <= 10
    assert (detections.scores[0] >= best[-1]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", 1.0),
        ("score_threshold", -0.1),
        ("nms_threshold", 0.0),
        ("max_detections", 0),
        ("topk_candidates", 0),
        ("topk_per_class", -1),
    ],
)
def test_config__out_of_range__refused(name, value):
    with pytest.raises(InputError, match=f"postprocess.{name} is {value}"):
        PostProcessConfig(**{name: value})

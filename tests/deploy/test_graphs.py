import torch
from torch import nn

from detect.deploy.graphs import Decode, DenseNms, build_graph, class_nms, fold_batch_norm
from detect.deploy.spec import OUTPUTS
from detect.model.postprocess import PostProcess
from detect.model.thresholds import PostProcessConfig
from detect.types import HeadOutputs
from tests.detector_cases import lively_detector
from tests.test_boxes import random_boxes

SIZE = (320, 320)


def candidates(batch=3, anchors=200, classes=4):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(batch, anchors, classes + 1, generator=generator) * 3
    deltas = torch.randn(batch, anchors, 4, generator=generator)
    return HeadOutputs(logits, deltas), random_boxes(anchors)


def test_class_nms__by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.8, 0.3], [0.2, 0.95, 0.05]]])  # (B, K, A)
    kept = class_nms(boxes, scores, 0.5, 0.1, 10)
    assert sorted(kept.tolist()) == [[0, 0, 0], [0, 0, 2], [0, 1, 1]]
    assert class_nms(boxes, scores, 0.5, 0.1, 1).tolist() == [[0, 0, 0], [0, 1, 1]]
    assert class_nms(boxes, scores, 0.5, 0.99, 10).shape == (0, 3)


def test_dense_nms__is_postprocess_in_dense_rows():
    head_outputs, anchors = candidates()
    for config in (
        PostProcessConfig(score_threshold=0.1),
        PostProcessConfig(score_threshold=0.3, max_detections=7),
        PostProcessConfig(topk_candidates=50),
        PostProcessConfig(topk_per_class=9, topk_candidates=None),
    ):
        post = PostProcess(config, activation="softmax", image_size=SIZE)
        wanted = post(head_outputs, anchors)
        boxes, scores, labels, counts = DenseNms(post)(*Decode(post, anchors)(*head_outputs[:2]))
        rows = config.max_detections
        assert boxes.shape == (3, rows, 4)
        assert scores.shape == labels.shape == (3, rows)
        assert counts.tolist() == (wanted.labels > 0).sum(1).tolist()
        found = wanted.scores.shape[1]
        torch.testing.assert_close(scores[:, :found], wanted.scores)
        assert torch.equal(labels[:, :found], wanted.labels)
        torch.testing.assert_close(boxes[:, :found], wanted.boxes)
        assert not scores[:, found:].any()
        assert not labels[:, found:].any()
        assert not boxes[:, found:].any()


def test_dense_nms__nothing_found_is_zero_rows():
    head_outputs, anchors = candidates()
    post = PostProcess(PostProcessConfig(score_threshold=0.999999), activation="softmax", image_size=SIZE)
    outputs = DenseNms(post)(*Decode(post, anchors)(head_outputs.cls_logits * 0, head_outputs.box_deltas))
    assert not any(output.any() for output in outputs)


def test_build_graph__each_form_has_its_outputs_and_the_weights_are_copies():
    module = lively_detector()
    images = torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8)
    for form, names in OUTPUTS.items():
        graph = build_graph(module, form)
        assert not graph.training
        with torch.no_grad():
            assert len(graph(images)) == len(names)
    with torch.no_grad():
        next(graph.parameters()).zero_()
    assert next(module.net.parameters()).any()


def test_build_graph__weights_in_plain_order():
    module = lively_detector()
    module.net.to(memory_format=torch.channels_last)
    graph = build_graph(module, "raw")
    assert all(parameter.is_contiguous() for parameter in graph.parameters())


def test_fold_batch_norm__the_same_network_without_its_layers():
    net = lively_detector().net.eval()
    images = torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        expected = net(images)
        fold_batch_norm(net)
        found = net(images)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-4)

import torch

from detect.deploy.runtimes.eager import EagerRuntime
from detect.deploy.verify import lowest_candidates, nms_faults, verify
from detect.model.postprocess import PostProcess, class_scores, decode_boxes
from detect.model.thresholds import PostProcessConfig
from detect.types import Detections, HeadOutputs
from tests.detector_cases import lively_detector
from tests.test_boxes import random_boxes

SIZE = (320, 320)
CONFIG = PostProcessConfig(score_threshold=0.1, nms_threshold=0.5, max_detections=20, topk_candidates=100)


def candidates_and_detections(config=CONFIG):
    generator = torch.Generator().manual_seed(1)
    anchors = random_boxes(300)
    logits, deltas = torch.randn(1, 300, 5, generator=generator) * 2, torch.zeros(1, 300, 4)
    post = PostProcess(config, activation="softmax", image_size=SIZE)
    detections = post(HeadOutputs(logits, deltas), anchors)
    found = Detections(*(part[0] for part in detections))
    return found, class_scores(logits[0], "softmax"), decode_boxes(deltas[0], anchors, SIZE)


def test_nms_faults__none_in_what_postprocess_gives():
    for config in (CONFIG, PostProcessConfig(), PostProcessConfig(topk_per_class=7, topk_candidates=None)):
        found, scores, boxes = candidates_and_detections(config)
        assert len(found.scores) > 5
        assert list(nms_faults(found, scores, boxes, config)) == []


def test_nms_faults__rounding_is_none():
    found, scores, boxes = candidates_and_detections()
    moved = found._replace(boxes=found.boxes + 0.01, scores=found.scores - 5e-5)
    assert list(nms_faults(moved, scores, boxes, CONFIG)) == []


def test_nms_faults__a_swap_of_near_ties_is_none():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11]])
    scores = torch.tensor([[0.90001], [0.9]])
    second = Detections(boxes[1:], scores[1:, 0], torch.tensor([1]))
    assert list(nms_faults(second, scores, boxes, CONFIG)) == []
    apart = torch.tensor([[0.95], [0.9]])
    assert [fault.endswith("is missing") for fault in nms_faults(second, apart, boxes, CONFIG)] == [True]


def test_nms_faults__finds_a_missing_a_doubled_and_a_foreign_detection():
    found, scores, boxes = candidates_and_detections(PostProcessConfig(score_threshold=0.1))
    config = PostProcessConfig(score_threshold=0.1)
    missing = Detections(*(part[1:] for part in found))
    assert any("is missing" in fault for fault in nms_faults(missing, scores, boxes, config))
    doubled = Detections(*(torch.cat([part[:1], part]) for part in found))
    assert any("overlap by more" in fault for fault in nms_faults(doubled, scores, boxes, config))
    moved = found._replace(boxes=found.boxes + 1)
    assert any("none of PyTorch's candidates" in fault for fault in nms_faults(moved, scores, boxes, config))
    relabelled = found._replace(labels=found.labels % 4 + 1)
    assert any("none of PyTorch's" in fault for fault in nms_faults(relabelled, scores, boxes, config))


def test_lowest_candidates__by_hand():
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.05, 0.6]])
    config = PostProcessConfig(score_threshold=0.1, topk_candidates=None)
    assert lowest_candidates(scores, config).tolist() == torch.tensor([0.1, 0.1]).tolist()
    config = PostProcessConfig(score_threshold=0.1, topk_candidates=3)  # 0.9, 0.8, 0.7
    assert lowest_candidates(scores, config).tolist() == torch.tensor([0.7, 0.7]).tolist()
    config = PostProcessConfig(score_threshold=0.1, topk_per_class=1, topk_candidates=None)
    assert lowest_candidates(scores, config).tolist() == torch.tensor([0.9, 0.7]).tolist()


def test_verify__the_module_equals_itself_and_differs_from_another():
    module = lively_detector()
    images = torch.randint(256, (3, 3, 96, 128), dtype=torch.uint8)
    runtime = EagerRuntime(lively_detector(), device="cpu")
    same = verify(runtime, module, images)
    assert same.faults == []
    assert same.detections > 0
    assert set(same.largest_difference) == {"cls_logits", "box_deltas"}
    with torch.no_grad():
        module.net.box_heads[2].predictor.bias += 0.01
    other = verify(runtime, module, images)
    assert "box_deltas differ by 0.01" in other.faults[0]


def test_verify__a_nan_is_a_fault():
    module = lively_detector()
    with torch.no_grad():
        module.net.cls_heads[0].predictor.bias.fill_(float("nan"))
    images = torch.randint(256, (3, 3, 96, 128), dtype=torch.uint8)
    faults = verify(EagerRuntime(module, device="cpu"), lively_detector(), images).faults
    assert any("cls_logits differ by nan" in fault for fault in faults)

from dataclasses import replace

import numpy as np
import pytest
import torch

from detect.deploy.array_postprocess import find
from detect.deploy.graphs import Decode, DenseNms
from detect.deploy.spec import Form, ModelSpec
from detect.model.postprocess import PostProcess
from detect.model.thresholds import PostProcessConfig
from detect.types import HeadOutputs, ScoreActivation
from tests.detector_cases import lively_detector

SIZES = [(150, 200), (33, 500), (96, 128)]
CONFIGS = [
    PostProcessConfig(),
    PostProcessConfig(score_threshold=0.0, max_detections=400),
    PostProcessConfig(score_threshold=0.3, nms_threshold=0.3),
    PostProcessConfig(topk_candidates=50, max_detections=7),
    PostProcessConfig(topk_per_class=9, topk_candidates=None),
    PostProcessConfig(score_threshold=0.999999),
]


def head_outputs() -> HeadOutputs:
    anchors = lively_detector().net.anchors
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(len(SIZES), len(anchors), 4, generator=generator)
    deltas = 2 * torch.randn(len(SIZES), len(anchors), 4, generator=generator)
    return HeadOutputs(logits, deltas)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("form", ["raw", "decoded", "nms"])
def test_find__equals_torch(form: Form, config: PostProcessConfig, activation: ScoreActivation) -> None:
    spec = ModelSpec.of_detector(lively_detector())
    spec = replace(spec, thresholds=config, activation=activation, form=form)
    postprocess = PostProcess(config, activation=activation, image_size=spec.image_size)
    outputs: tuple[torch.Tensor, ...] = head_outputs()[:2]
    wanted = postprocess.in_files(
        postprocess(HeadOutputs(*outputs), torch.from_numpy(spec.anchors)), torch.tensor(SIZES)
    )
    if form != "raw":
        outputs = Decode(postprocess, torch.from_numpy(spec.anchors))(*outputs)
        spec = replace(spec, anchors=None)
    if form == "nms":
        outputs = DenseNms(postprocess)(*outputs)
    found = find(spec, tuple(output.numpy() for output in outputs), SIZES)
    assert len(found) == len(SIZES)
    for image, (boxes, scores, labels) in enumerate(found):
        there = wanted.labels[image] > 0
        assert boxes.dtype == scores.dtype == np.float32
        np.testing.assert_array_equal(labels, wanted.labels[image, there].numpy())
        np.testing.assert_allclose(scores, wanted.scores[image, there].numpy(), atol=1e-6)
        np.testing.assert_allclose(boxes, wanted.boxes[image, there].numpy(), atol=1e-3)


def test_find__a_graph_with_nms_and_a_higher_threshold() -> None:
    spec = ModelSpec.of_detector(lively_detector())
    spec = replace(spec, form="nms", anchors=None).at_threshold(0.5)
    scores = np.array([[0.9, 0.6, 0.5, 0.0]], np.float32)
    boxes, labels = np.ones((1, 4, 4), np.float32), np.array([[2, 1, 3, 0]])
    (found,) = find(spec, (boxes, scores, labels, np.array([3])), [(96, 128)])
    assert found.labels.tolist() == [2, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])

import onnx
import pytest

from detect.deploy.runtimes.onnx_layers import (
    in_layers,
    in_network,
    layers_of,
    node_scopes,
    nodes_left_in_fp32,
)
from tests.detector_cases import exported, lively_detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return onnx.load(exported())


def test_layers_of__are_those_of_the_network(model):
    found = layers_of(model)
    known = {name for name, _ in lively_detector().net.named_modules() if name}
    assert {"backbone", "cls_heads", "cls_heads.0", "cls_heads.0.1"} <= found & known
    assert len(found & known) > 40
    assert "stages" not in found  # decoding and NMS are no part of the network


def test_nodes_left_in_fp32__decoding_and_nms_always(model):
    left = nodes_left_in_fp32(model, [])
    kinds = {node.op_type for node in model.graph.node if node.name in left}
    assert "NonMaxSuppression" in kinds
    assert "Softmax" in kinds
    assert "Conv" not in kinds
    assert all(in_network(node) for node in model.graph.node if node.op_type == "Conv")


def test_nodes_left_in_fp32__and_the_layers_named(model):
    left = nodes_left_in_fp32(model, ["cls_heads", "box_heads.0.1"])
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.name in left]
    assert len(convolutions) == 6 * 2 + 1  # six heads of a depthwise layer and a predictor
    assert all(in_layers(node, ["cls_heads", "box_heads.0"]) for node in convolutions)
    assert not any(in_layers(node, ["cls_head"]) for node in convolutions)  # whole names alone


def test_node_scopes__none_without_notes():
    assert node_scopes(onnx.helper.make_node("Add", ["a", "b"], ["c"])) == []

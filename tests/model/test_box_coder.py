import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from detect.model.box_coder import decode, encode
from tests.test_boxes import random_boxes


def test_decode__inverts_encode():
    boxes, anchors = random_boxes(3, 50), random_boxes(3, 50, seed=1)
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3)


def test_encode__of_the_anchor_itself_is_zero():
    anchors = random_boxes(5)
    assert torch.equal(encode(anchors, anchors), torch.zeros(5, 4))


def test_encode__by_hand():
    # Anchor 20x10 at centre (10, 5); box 20x20 at centre (12, 10): shifts 2/20 and 5/10 over variance 0.1,
    # size ratios 1 and 2 over variance 0.2.
    deltas = encode(torch.tensor([[2.0, 0, 22, 20]]), torch.tensor([[0.0, 0, 20, 10]]))
    assert deltas[0].tolist() == pytest.approx([1.0, 5.0, 0.0, math.log(2) / 0.2], abs=1e-6)


def test_both__equal_torchvision():
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    boxes, anchors = random_boxes(40), random_boxes(40, seed=1)
    assert torch.allclose(encode(boxes, anchors), coder.encode_single(boxes, anchors), atol=1e-4)
    deltas = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 4
    assert torch.allclose(decode(deltas, anchors), coder.decode_single(deltas, anchors), atol=1e-2)


def test_decode__bounds_the_size():
    box = decode(torch.tensor([[0.0, 0, 1e6, 1e6]]), torch.tensor([[0.0, 0, 16, 16]]))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(1000)  # 16 px * 1000 / 16


def test_decode__is_float32_from_half_precision():
    assert (
        decode(torch.zeros(1, 4, dtype=torch.float16), torch.tensor([[0.0, 0, 9, 9]])).dtype == torch.float32
    )

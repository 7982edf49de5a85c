import pytest
import torch
from torchvision.ops import box_iou as torchvision_iou

from detect.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    intersection,
    rescale_boxes,
    xyxy_to_xywh,
)


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 4, generator=generator) * 300
    return torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:] + 1], dim=-1)


def test_xywh__by_hand():
    assert xyxy_to_xywh(torch.tensor([[1.0, 2.0, 31.0, 12.0]])).tolist() == [[1.0, 2.0, 30.0, 10.0]]


def test_area__of_an_inverted_box_is_zero():
    assert box_area(torch.tensor([[0.0, 0, 4, 3], [4, 3, 0, 0], [5, 5, 4, 9]])).tolist() == [12, 0, 0]


def test_iou__is_symmetric_one_on_itself_and_torchvisions():
    boxes, others = random_boxes(7), random_boxes(5, seed=1)
    assert torch.allclose(box_iou(boxes, others), box_iou(others, boxes).T)
    assert torch.allclose(box_iou(boxes, boxes).diagonal(), torch.ones(7))
    assert torch.allclose(box_iou(boxes, others), torchvision_iou(boxes, others), atol=1e-7)


def test_iou__by_hand():
    # 10x10 and 10x10 shifted by 5: 50 shared, 150 together.
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    assert intersection(a, b).tolist() == [[50, 0, 0]]
    assert box_iou(a, b)[0].tolist() == pytest.approx([1 / 3, 0, 0])


def test_iou__of_padding_with_padding_is_zero_not_nan():
    assert box_iou(torch.zeros(2, 4), torch.zeros(3, 4)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_iou__batches():
    boxes, others = random_boxes(3, 4), random_boxes(6, seed=2)
    assert box_iou(boxes, others).shape == (3, 4, 6)
    assert torch.equal(box_iou(boxes, others)[1], box_iou(boxes[1], others))


def test_iou__of_huge_boxes_in_half_precision_does_not_overflow():
    boxes = torch.tensor([[0.0, 0, 4000, 4000]], dtype=torch.float16)
    assert box_iou(boxes, boxes).item() == pytest.approx(1)


def test_clip__to_the_image():
    boxes = torch.tensor([[-5.0, 2, 30, 50]])
    assert clip_boxes(boxes, (40, 20)).tolist() == [[0, 2, 20, 40]]
    assert clip_boxes(boxes, (20, 20)).tolist() == [[0, 2, 20, 20]]
    assert boxes[0, 0] == -5  # the caller's stay


def test_rescale__stretches_each_image_by_its_own_size():
    boxes = torch.tensor([[[32.0, 32, 64, 160]], [[32.0, 32, 64, 160]]])
    # 320 -> width 640 (x2) and height 480 (x1.5); 320 -> width 160 (x0.5) and height 320 (x1)
    scaled = rescale_boxes(boxes, (320, 320), torch.tensor([[480, 640], [320, 160]]))
    assert scaled.tolist() == [[[64, 48, 128, 240]], [[16, 32, 32, 160]]]

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from detect.errors import InputError
from detect.model.anchors import AnchorConfig
from detect.model.backbones import MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3
from detect.model.ssdlite import SSDLite


def parameters_without_bn(net: nn.Module) -> int:
    norms = sum(p.numel() for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    return sum(p.numel() for p in net.parameters()) - norms


@pytest.mark.parametrize(
    ("size", "reduced_tail", "params"),
    [
        ("large", False, 4966591),
        ("large", True, 3215311),
        ("small", False, 2493487),
        ("small", True, 1765279),
    ],
)
def test_parameters__are_the_papers(size, reduced_tail, params):
    # Table 6 of "Searching for MobileNetV3": 4.97, 3.22, 2.49 and 1.77 million, BatchNorm left out.
    assert parameters_without_bn(SSDLite(MobileNetV3(size, reduced_tail=reduced_tail), 90)) == params


def test_parameters__of_torchvisions_head():
    net = SSDLite(MobileNetV3(reduced_tail=True), 90, anchors=AnchorConfig("torchvision"))
    assert sum(p.numel() for p in net.parameters()) == 3440060


@pytest.mark.parametrize("style", ["paper", "torchvision"])
@pytest.mark.parametrize("image_size", [(320, 320), (256, 192), (97, 333)])
def test_outputs__fit_the_anchors_at_any_size(style, image_size):
    net = SSDLite(MobileNetV3("small"), 5, image_size=image_size, anchors=AnchorConfig(style)).eval()
    outputs = net(torch.zeros(2, 3, *image_size, dtype=torch.uint8))
    assert outputs.cls_logits.shape == (2, len(net.anchors), 6)
    assert outputs.box_deltas.shape == (2, len(net.anchors), 4)
    maps = net.feature_maps(torch.zeros(1, 3, *image_size))
    assert [tuple(m.shape[2:]) for m in maps] == net.grid_sizes


@pytest.mark.parametrize("style", ["paper", "torchvision"])
@pytest.mark.parametrize("image_size", [(320, 320), (256, 192), (288, 352)])
def test_anchors_of__another_size__are_those_of_a_network_of_this_size(style, image_size):
    net = SSDLite(MobileNetV3("small"), 5, anchors=AnchorConfig(style)).eval()
    alone = SSDLite(MobileNetV3("small"), 5, image_size=image_size, anchors=AnchorConfig(style))
    boxes, levels = net.anchors_of(image_size)
    torch.testing.assert_close(boxes, alone.anchors, rtol=0, atol=0)
    assert levels == alone.level_sizes
    assert net(torch.zeros(1, 3, *image_size)).box_deltas.shape == (1, len(boxes), 4)
    assert net.anchors_of(torch.Size(image_size)).boxes is boxes  # made once
    assert (boxes is net.anchors) == (image_size == net.image_size)


def test_anchors_of__are_no_weights_and_follow_the_device():
    net = SSDLite(MobileNetV1(width=0.25), 3, image_size=(64, 64))
    names = {name for name, _ in net.named_buffers()} | net.state_dict().keys()
    net.anchors_of((96, 96))
    assert {name for name, _ in net.named_buffers()} | net.state_dict().keys() == names
    assert net.to("meta").anchors_of((96, 96)).boxes.device.type == "meta"


@pytest.mark.parametrize("family", [MobileNetV1, MobileNetV2, MnasNetA1, MobileNetV3])
@pytest.mark.parametrize(
    ("taps", "strides"),
    [
        (("c5",), [32, 64, 128, 256, 512]),
        (("c4", "c5"), [16, 32, 64, 128, 256, 512]),
        (("c3", "c5"), [8, 32, 64, 128, 256, 512]),
        (("c3", "c4", "c5"), [8, 16, 32, 64, 128, 256, 512]),
    ],
)
def test_levels__follow_from_the_taps(family, taps, strides):
    with torch.device("meta"):
        net = SSDLite(family(width=0.5), 3, image_size=(300, 96), taps=taps).eval()
        maps = net.feature_maps(torch.zeros(1, 3, 300, 96))
        outputs = net(torch.zeros(2, 3, 300, 96))
    assert net.strides == strides
    assert net.grid_sizes == [(-(-300 // stride), -(-96 // stride)) for stride in strides]
    assert [tuple(m.shape[2:]) for m in maps] == net.grid_sizes
    assert len(net.cls_heads) == len(net.box_heads) == len(strides)
    assert outputs.box_deltas.shape == (2, len(net.anchors), 4)


def test_taps__more_of_them__same_backbone_and_deep_levels():
    # What c3 adds stands before the rest: c4's map and every level after c5 are computed alike.
    torch.manual_seed(0)
    backbone = MobileNetV3("small", width=0.5)
    two = SSDLite(backbone, 3, image_size=(96, 96)).eval()
    three = SSDLite(backbone, 3, image_size=(96, 96), taps=("c3", "c4", "c5")).eval()
    three.extra_levels = two.extra_levels
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        maps = three.feature_maps(images)
        assert maps[0].shape[2:] == (12, 12)
        pairs = zip(maps[1:], two.feature_maps(images), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "taps", [(), ("c2", "c4", "c5"), ("c5", "c4"), ("c4", "c4", "c5"), ("c3", "c4")], ids=str
)
def test_taps__wrong_ones__refused(taps):
    with pytest.raises(
        InputError,
        match=r"model.taps is \[.*\]; give some of out3, c3, out4, c4, out5, c5, .* with out5 or c5: layers",
    ):
        SSDLite(MobileNetV3("small"), 3, taps=taps)


@pytest.mark.parametrize("taps", [("c4", "c5"), ("c3", "c4", "c5")])
def test_forward__computes_only_what_is_used(taps):
    net = SSDLite(MobileNetV3("small", width=0.25), 3, image_size=(64, 96), taps=taps).eval()
    graph = torch.export.export(net, (torch.zeros(2, 3, 64, 96, dtype=torch.uint8),)).graph
    unused = [str(node.target) for node in graph.nodes if node.op == "call_function" and not node.users]
    assert [name for name in unused if "_assert_" not in name] == []


def test_anchor_order__is_that_of_the_heads():
    # A bump at one cell of the first map must move the outputs of that cell's anchors and of no other cell
    # farther than the 3x3 kernel reaches.
    head = SSDLite(MobileNetV3("small"), 1).eval().box_heads[0]
    maps = torch.zeros(1, 288, 20, 20)
    quiet = head(maps)
    maps[0, :, 5, 7] = 1.0
    moved = (head(maps) - quiet).abs().sum(-1)[0].view(20, 20, 3).sum(-1) > 0
    rows, columns = moved.nonzero().unbind(1)
    assert (rows.min().item(), rows.max().item()) == (4, 6)
    assert (columns.min().item(), columns.max().item()) == (6, 8)


def test_forward__is_the_same_function_in_both_modes():
    net = SSDLite(MobileNetV3("small"), 2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images = torch.randint(0, 256, (2, 3, 320, 320), dtype=torch.uint8)
    with torch.no_grad():
        training = net(images)
        evaluation = net.eval()(images)
    assert torch.equal(training.cls_logits, evaluation.cls_logits)


def test_forward__takes_uint8_and_float_alike():
    net = SSDLite(MobileNetV3("small"), 2).eval()
    images = torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8)
    assert torch.equal(net(images).box_deltas, net(images.float()).box_deltas)


def test_class_prior__fills_every_anchor():
    net = SSDLite(MobileNetV3("small"), 2)
    net.set_class_prior(torch.tensor([0.0, -3.0, -4.0]))
    assert net.cls_heads[0].predictor.bias.tolist() == [0.0, -3.0, -4.0] * 3


def test_state_dict__holds_nothing_that_follows_from_settings():
    net = SSDLite(MobileNetV3("small"), 2)
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # of BatchNorm
    learned = {name for name, _ in net.named_parameters()}
    kept = {key for key in net.state_dict() if key.rpartition(".")[2] not in statistics}
    assert kept == learned


def test_restore_constants__undoes_what_averaging_does_to_anchors():
    net = SSDLite(MobileNetV3("small"), 2, mean=(0.1, 0.2, 0.3))
    averaged = AveragedModel(net, avg_fn=get_ema_avg_fn(0.999), use_buffers=True)
    for _ in range(10):
        averaged.update_parameters(net)
    names = ("anchors", "mean", "std")
    assert not all(torch.equal(getattr(averaged.module, name), getattr(net, name)) for name in names)
    averaged.module.restore_constants()
    assert all(torch.equal(getattr(averaged.module, name), getattr(net, name)) for name in names)


def test_num_classes__must_be_positive():
    with pytest.raises(InputError, match="num_classes is 0"):
        SSDLite(MobileNetV3("small"), 0)


def test_image_size__below_a_cell_of_c5__refused():
    with pytest.raises(InputError, match=r"image_size is \[320, 0\].* at least 32"):
        SSDLite(MobileNetV3("small"), 3, image_size=(320, 0))


@pytest.mark.parametrize(("name", "values"), [("mean", (123.7, 116.3, 103.5)), ("std", (0.2, 0.0, 0.2))])
def test_mean_and_std__not_in_0_to_1__refused(name, values):
    with pytest.raises(InputError, match=rf"{name} is \[.*fractions of white"):
        SSDLite(MobileNetV3("small"), 3, **{name: values})


@pytest.mark.parametrize("init", ["normal", "kaiming"])
def test_init__outputs_of_a_fresh_network_are_near_its_biases(init):
    torch.manual_seed(0)
    net = SSDLite(MobileNetV3("small", width=0.5), 3, image_size=(96, 96), init=init).train()
    logits, deltas, _ = net(torch.randint(256, (4, 3, 96, 96), dtype=torch.uint8))
    assert logits.std() < 1
    assert deltas.std() < 1

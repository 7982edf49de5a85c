import torch

from detect.deploy.sensitivity import (
    convolutions,
    folded_scale,
    layer_errors,
    round_per_channel,
    round_per_tensor,
    rounded,
)
from tests.detector_cases import lively_detector


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def spoil(head):
    """Weights of a thousand for an input that is always 0 leave no level for the others."""
    norm = head[0][1]
    norm.weight[0] = norm.bias[0] = 0
    head.predictor.weight.mul_(30)
    head.predictor.weight[:, 0] = 1000


def test_round_per_channel__by_hand():
    weight = torch.tensor([[[[127.0, 63.4]]], [[[0.0, 1.27]]]])
    expected = torch.tensor([[[[127.0, 63.0]]], [[[0.0, 1.27]]]])
    torch.testing.assert_close(round_per_channel(weight), expected)


def test_round_per_tensor__keeps_the_extremes_and_zero():
    values = torch.linspace(-1, 3, 1000)
    found = round_per_tensor(values)
    assert found.unique().numel() <= 256
    torch.testing.assert_close(found, values, atol=4 / 255 / 2 + 1e-6, rtol=0)
    assert round_per_tensor(torch.tensor([0.0, 5.0]))[0] == 0


def test_layer_errors__every_convolution_and_the_spoiled_one_first():
    net = lively_detector().net
    spoil(net.box_heads[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = layer_errors(net, images())
    assert len(found) == len(convolutions(net)) > 30
    assert found[0].layer == "box_heads.0.1"
    errors = [layer.error for layer in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] >= 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_rounded__puts_the_layer_back():
    net = lively_detector().net
    (name, conv), *_ = convolutions(net).items()
    before = conv.weight.clone()
    with rounded(net, conv, name):
        assert not torch.equal(conv.weight, before)
    assert torch.equal(conv.weight, before)
    assert not conv._forward_pre_hooks


def test_folded_scale__is_what_batch_norm_multiplies_with():
    net = lively_detector().net
    name = next(name for name, conv in convolutions(net).items() if conv.bias is None)
    block = net.get_submodule(name)
    probe = torch.zeros(1, block[1].num_features, 1, 1)
    slope = block[1](probe + 1) - block[1](probe)
    torch.testing.assert_close(folded_scale(net, name, len(slope[0]))[:, 0, 0, 0], slope[0, :, 0, 0].detach())

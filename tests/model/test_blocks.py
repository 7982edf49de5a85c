from __future__ import annotations

import pytest
import torch

from detect.errors import InputError
from detect.model.backbones import MobileNetV3
from detect.model.blocks import ConvSettings, ExtraLevel, SqueezeSettings


def gradient_of_depthwise(level: ExtraLevel, x: torch.Tensor) -> torch.Tensor:
    level.zero_grad()
    wave = torch.arange(2 * 32, dtype=torch.float32).view(2, 32, 1, 1).cos()
    (level(x).float() * wave).sum().backward()
    return level[1][0].weight.grad.clone()


@pytest.mark.parametrize("size", [(1, 1), (2, 1)])
def test_extra_level__bfloat16_over_one_column__gradient_is_that_of_float32(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    level = ExtraLevel(24, 64, 32, settings=ConvSettings()).to(memory_format=torch.channels_last).eval()
    x = torch.randn(2, 24, *size).contiguous(memory_format=torch.channels_last)
    wanted = gradient_of_depthwise(level, x)
    for _ in range(8):
        rubbish = [torch.full((n,), torch.nan, dtype=torch.bfloat16) for n in (64, 576, 4096, 65536)]
        del rubbish  # what the memory of the next tensors holds
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradient_of_depthwise(level, x.bfloat16())
        assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize("setting", [{"bn_eps": 0.0}, {"bn_momentum": 5.0}])
def test_norm_settings__out_of_range__refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"ConvSettings\(.*bn_eps must be above 0"):
        ConvSettings(**setting)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"SqueezeSettings\(.*bn_eps must be above 0"):
        SqueezeSettings(**setting)  # type: ignore[arg-type]


def test_squeeze_settings__out_of_range__refused() -> None:
    with pytest.raises(InputError, match=r"squeeze_divisor=0\): squeeze_divisor must be at least 1"):
        SqueezeSettings(squeeze_divisor=0)


@pytest.mark.parametrize("width", [0.0, -1.0])
def test_width__not_above_0__refused(width: float) -> None:
    with pytest.raises(InputError, match="the width of a backbone is above 0"):
        MobileNetV3("small", width=width)

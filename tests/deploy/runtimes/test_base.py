from pathlib import Path

import pytest
import torch

from detect.deploy.runtimes.base import Runtime, refuse_precision, require
from detect.deploy.spec import ModelSpec
from detect.errors import InputError
from tests.detector_cases import lively_detector


class Doubling(Runtime):
    """Takes two images at a time and gives the mean of each twice."""

    fixed_batch = 2

    def __init__(self):
        self.spec = ModelSpec.of_detector(lively_detector())
        self.sizes: list[int] = []

    def run_batch(self, images):
        self.sizes.append(len(images))
        means = images.float().mean((1, 2, 3))
        return means, 2 * means

    def close(self):
        self.closed = True


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_run__a_fixed_batch_is_filled_up_and_cut_again(batch):
    images = torch.randint(256, (batch, 3, 96, 128), dtype=torch.uint8)
    runtime = Doubling()
    means, doubled = runtime.run(images)
    torch.testing.assert_close(means, images.float().mean((1, 2, 3)))
    torch.testing.assert_close(doubled, 2 * means)
    assert set(runtime.sizes) == {2}


def test_run__refuses_another_shape_or_type():
    images = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"images are \(2, 3, 128, 96\) torch\.uint8; the network takes"):
        Doubling().run(images.transpose(2, 3))
    with pytest.raises(ValueError, match=r"torch\.float32; the network takes \(B, 3, 96, 128\) torch\.uint8"):
        Doubling().run(images.float())


def test_runtime__is_closed_at_the_end_of_a_block():
    with Doubling() as runtime:
        pass
    assert runtime.closed


def test_require__names_the_package_the_file_and_the_pip_line():
    assert require("json", extra="export").loads("1") == 1
    with pytest.raises(InputError, match=r"a\.xml needs the package no_such_package.*'\.\[openvino\]'"):
        require("no_such_package", extra="openvino", path=Path("a.xml"))
    with pytest.raises(InputError, match="this needs the package no_such_package"):
        require("no_such_package.part", extra="export")


def test_refuse_precision__names_both():
    refuse_precision("litert", None, "fp32")
    refuse_precision("litert", "fp32", "fp32")
    with pytest.raises(
        InputError, match="litert runs this file in fp32; int8 was asked for: export it as int8"
    ):
        refuse_precision("litert", "int8", "fp32")

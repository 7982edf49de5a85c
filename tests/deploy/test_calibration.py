import numpy as np
import pytest
import torch

from detect.data.augment.view import resize_pixels
from detect.data.datamodule import DetectionData
from detect.data.images.decode import load_pixels
from detect.deploy.calibration import calibration_of
from detect.deploy.spec import ModelSpec
from detect.errors import InputError
from tests.conftest import make_coco
from tests.detector_cases import lively_detector


@pytest.fixture
def split(tmp_path):
    data = DetectionData(make_coco(tmp_path / "coco", train=7), workers=0)
    data.open(("train",))
    return data.train


def test_calibration_of__spreads_over_the_split_and_resizes_as_the_network_wants(split):
    spec = ModelSpec.of_detector(lively_detector())
    few = calibration_of(split, spec, 3)
    assert few.images.shape == (3, 3, 96, 128)
    assert few.images.dtype == torch.uint8
    wanted = [resize_pixels(load_pixels(split.path(row)), (96, 128), "antialias") for row in (0, 3, 6)]
    np.testing.assert_array_equal(few.images.permute(0, 2, 3, 1).numpy(), np.stack(wanted))
    assert few.description["images"] == 3
    assert len(calibration_of(split, spec, 100).images) == 7


def test_calibration_of__the_hash_names_the_pictures(split):
    spec = ModelSpec.of_detector(lively_detector())
    whole = calibration_of(split, spec, 7).description
    assert whole == calibration_of(split, spec, 7).description
    assert whole["sha256"] != calibration_of(split, spec, 6).description["sha256"]
    first = split.path(0)
    first.write_bytes(first.read_bytes() + b"\0")
    assert whole["sha256"] != calibration_of(split, spec, 7).description["sha256"]


def test_calibration_of__no_picture_is_no_calibration(split):
    with pytest.raises(InputError, match="--calibration_images is 0; give at least 1"):
        calibration_of(split, ModelSpec.of_detector(lively_detector()), 0)

import json

import pytest
import torch

from detect.commands.main import main
from detect.deploy.export import verification_images
from detect.deploy.exported_file import json_path, sum_bytes
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import RuntimeOptions
from detect.deploy.spec import ModelSpec
from tests.conftest import make_coco
from tests.detector_cases import checkpoint, exported, lively_detector
from tests.runtime_cases import (
    assert_a_search_measures,
    assert_commands_read,
    assert_refuses_what_is_not_its_own,
    assert_runs_as_torch,
    needs,
)

pytestmark = [pytest.mark.slow, needs("executorch", "executorch")]


# First, for it takes the longest, and the tests are divided between two processes.
def test_executorch__int8_by_command(tmp_path, capsys):
    root, output = make_coco(tmp_path / "coco", train=6), tmp_path / "int8.pte"
    arguments = ["--format", "executorch", "--form", "raw", "--output", str(output), "--max_drop", "1"]
    calibration = ["--int8", "--calibration", str(root)]
    assert main(["export", "--ckpt_path", str(checkpoint()), *arguments, *calibration]) == 0
    assert "in int8" in capsys.readouterr().out
    content = json.loads(json_path(output).read_text())
    assert content["export"]["precision"] == "int8"
    assert content["export"]["calibration"]["images"] == 6
    assert len(content["export"]["calibration"]["sha256"]) == 64
    assert sum_bytes(output) < 0.6 * sum_bytes(exported("executorch", "raw"))
    images = verification_images(ModelSpec.of_detector(lively_detector()), None)
    with open_exported(output, options=RuntimeOptions(threads=1)) as int8:
        assert int8.precision == "int8"
        logits = int8.run(images)[0]
    with open_exported(exported("executorch", "raw")) as fp32:
        wanted = fp32.run(images)[0]
    assert (logits - wanted).std() > 1e-4 * wanted.std()  # it is in 8 bits
    # Random weights in 27 layers amplify what 8 bits lose: by 0.9 of the logits' spread (ONNX Runtime: 0.7).
    assert torch.corrcoef(torch.stack([logits.flatten(), wanted.flatten()]))[0, 1] > 0.5


@pytest.mark.parametrize("form", ["decoded", "raw"])
def test_executorch__runs_as_torch_at_any_batch(form):
    content = json.loads(json_path(exported("executorch", form)).read_text())
    assert content["verification"]["faults"] == []
    assert content["verification"]["detections"] > 10
    # 9 is one more than the file has memory for.
    assert_runs_as_torch(exported("executorch", form), form, batches=(1, 3, 9), atol=0.01)


def test_executorch__validate_predict_and_benchmark_take_the_file(tmp_path):
    root = make_coco(tmp_path / "coco")
    assert_commands_read(exported("executorch", "decoded"), root, tmp_path, "executorch")


def test_executorch__a_search_measures_networks(tmp_path):
    assert_a_search_measures("executorch", tmp_path)


def test_executorch__refuses_what_is_not_its_own(tmp_path):
    assert_refuses_what_is_not_its_own(exported("executorch", "decoded"), tmp_path)


def test_executorch__outputs_outlive_the_next_run():
    images = verification_images(ModelSpec.of_detector(lively_detector()), None)
    with open_exported(exported("executorch", "raw")) as runtime:
        (first, _), kept = runtime.run(images[:1]), runtime.run(images[:1])[0]
        runtime.run(images[1:2])
        assert torch.equal(first, kept)

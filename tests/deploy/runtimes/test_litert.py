import json

import pytest

from detect.deploy.exported_file import json_path
from tests.conftest import make_coco
from tests.detector_cases import exported
from tests.runtime_cases import (
    assert_a_search_measures,
    assert_commands_read,
    assert_refuses_what_is_not_its_own,
    assert_runs_as_torch,
    needs,
)

pytestmark = [
    pytest.mark.slow,
    needs("litert_torch", "litert"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("form", ["decoded", "raw"])
def test_litert__runs_as_torch_at_any_batch(form):
    content = json.loads(json_path(exported("litert", form)).read_text())
    assert content["verification"]["faults"] == []
    assert content["verification"]["detections"] > 10
    assert_runs_as_torch(exported("litert", form), form, batches=(1, 3), atol=0.01)


def test_litert__validate_predict_and_benchmark_take_the_file(tmp_path):
    assert_commands_read(exported("litert", "decoded"), make_coco(tmp_path / "coco"), tmp_path, "litert")


def test_litert__a_search_measures_networks(tmp_path):
    assert_a_search_measures("litert", tmp_path)


def test_litert__refuses_what_is_not_its_own(tmp_path):
    assert_refuses_what_is_not_its_own(exported("litert", "decoded"), tmp_path)


def test_litert__whole_network_is_one_delegate():
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported("litert", "raw")))
    interpreter.allocate_tensors()
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1

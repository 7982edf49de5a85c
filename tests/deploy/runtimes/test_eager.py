import torch

from detect.deploy.runtimes.base import RuntimeOptions
from detect.deploy.runtimes.eager import EagerRuntime
from detect.types import HeadOutputs
from tests.detector_cases import lively_detector


def test_run__threads_are_those_of_the_network_alone(monkeypatch):
    module = lively_detector()
    runtime = EagerRuntime(module, RuntimeOptions(threads=2), device="cpu")
    seen = []
    given = HeadOutputs(torch.zeros(1, 1, 2), torch.zeros(1, 1, 4))
    monkeypatch.setattr(runtime, "network", lambda images: seen.append(torch.get_num_threads()) or given)
    before = torch.get_num_threads()
    assert before != 2
    runtime.run(torch.zeros(1, 3, *runtime.spec.image_size, dtype=torch.uint8))
    assert seen == [2]
    assert torch.get_num_threads() == before

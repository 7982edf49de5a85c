"""torch itself, eager or compiled: what every other runtime is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from detect.deploy.runtimes.base import Runtime, RuntimeOptions, refuse_precision
from detect.deploy.spec import ModelSpec
from detect.model.detector import TorchDetector
from detect.types import HeadOutputs


class EagerRuntime(Runtime):
    """A detector run by torch, operator by operator; the outputs stay on its device.

    Args:
        detector: the detector; put into evaluation mode.
        options: threads count for the network alone.
        device: null: a GPU where there is one.
    """

    name: ClassVar[str] = "eager"

    def __init__(
        self,
        detector: TorchDetector,
        options: RuntimeOptions = RuntimeOptions(),
        *,
        device: torch.device | str | None = None,
    ) -> None:
        refuse_precision(self.name, options.precision, "fp32")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.detector = detector.eval().to(self.device)
        self.spec = ModelSpec.of_detector(self.detector)
        self.version = torch.__version__
        self.precision = "fp32"
        self.threads = options.threads
        self._layout = torch.channels_last if detector.channels_last else torch.contiguous_format

    @torch.inference_mode()
    def run_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        with _threads(self.threads):
            outputs = self.network(images.to(self.device).contiguous(memory_format=self._layout))
            return outputs.cls_logits, outputs.box_deltas

    def network(self, images: Tensor) -> HeadOutputs:
        """(B, 3, H, W) images on the device to head outputs."""
        head_outputs: HeadOutputs = self.detector.net(images)
        return head_outputs

    def close(self) -> None:
        del self.detector


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads for the network alone: what comes before and after it is the same for every runtime."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class CompiledRuntime(EagerRuntime):
    """As eager, through torch.compile; the first run of each batch size takes minutes."""

    name: ClassVar[str] = "compiled"

    def __init__(self, detector: TorchDetector, options: RuntimeOptions = RuntimeOptions()) -> None:
        super().__init__(detector, options, device="cpu")
        self._compiled = torch.compile(detector.net, fullgraph=True, dynamic=False)

    def network(self, images: Tensor) -> HeadOutputs:
        head_outputs: HeadOutputs = self._compiled(images)
        return head_outputs

import inspect
import math
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeCopyMode,
    FakeTensorMode,
)

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.model.backbones import MobileNetV3
from detect.model.checkpoint import TRAINING_KEYS, build_from_checkpoint, read_checkpoint
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.training.build import build_module, detection_module
from detect.training.losses import MultiBoxLoss
from detect.training.module import DetectionModule, allow_graphs
from detect.training.run_module import LOSS_UNIT
from detect.types import Batch, HeadOutputs, Target
from tests.conftest import make_coco

SETTINGS: dict[str, Any] = {
    "backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}},
    "num_classes": 3,
    "image_size": [64, 64],
    "channels_last": False,
}
LOSSES = ("detect.training.losses.MultiBoxLoss", "detect.training.losses.FocalLoss")


def random_target(batch: int, boxes: int = 8) -> Target:
    corners = torch.rand(batch, boxes, 2, 2) * 64
    labels = torch.randint(0, 4, (batch, boxes))  # 0 is padding
    ignore = torch.rand(batch, boxes) < 0.1
    return Target(torch.cat([corners.amin(2), corners.amax(2) + 1], dim=-1), labels, ignore)


def random_images(batch: int) -> Tensor:
    return torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8)


@pytest.fixture(params=LOSSES)
def module(request: pytest.FixtureRequest) -> DetectionModule:
    torch.manual_seed(0)
    return build_module({**SETTINGS, "loss": {"class_path": request.param}})


def step_without_values(module: DetectionModule) -> DetectionModule:
    """A step on fake tensors, without values: `.item()`, `nonzero`, `if tensor:`, a mask as index fail."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        images, target, fake = deepcopy((random_images(2), tuple(random_target(2)), module))
    with mode:
        sums = fake.loss_terms(images, Target(*target))
        sums.total.backward()
    return fake


def test_the_step_neither_reads_values_nor_makes_shapes_of_them(module: DetectionModule) -> None:
    assert all(parameter.grad is not None for parameter in step_without_values(module).parameters())


def test_a_step_that_reads_a_value_would_be_found(
    module: DetectionModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = SSDLite.forward

    def read(self: SSDLite, images: Tensor) -> HeadOutputs:
        outputs = forward(self, images)
        outputs.cls_logits.sum().item()
        return outputs

    monkeypatch.setattr(SSDLite, "forward", read)
    with pytest.raises(DataDependentOutputException):
        step_without_values(module)


@pytest.mark.slow
def test_the_step_compiles_without_a_graph_break(module: DetectionModule) -> None:
    images, target = random_images(2), random_target(2)
    expected = module.loss_terms(images, target)
    compiled = torch.compile(module.loss_terms, backend="aot_eager", fullgraph=True)
    found = compiled(images, target)
    assert found.terms.keys() == expected.terms.keys()
    torch.testing.assert_close(found.stacked(), expected.stacked(), rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_the_loss_of_another_size__is_that_of_a_module_of_this_size() -> None:
    torch.manual_seed(0)
    module = build_module(SETTINGS)
    alone = build_module({**SETTINGS, "image_size": [96, 128]})
    alone.load_state_dict(module.state_dict())
    images, target = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8), random_target(2)
    expected = alone.loss_terms(images, target).stacked()
    torch.testing.assert_close(module.loss_terms(images, target).stacked(), expected, rtol=0, atol=0)


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=1)
def test_the_step_compiles_once_per_size() -> None:
    sizes = [(64, 64), (64, 96)]
    allow_graphs(len(sizes))
    module, target = build_module(SETTINGS), random_target(2)
    for size in sizes:
        module.net.anchors_of(size)
    graphs = CompileCounter()
    compiled = torch.compile(module.loss_terms, backend=graphs, fullgraph=True)
    for size in (*sizes, *sizes):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        expected = module.loss_terms(images, target).stacked()
        torch.testing.assert_close(compiled(images, target).stacked(), expected, rtol=1e-4, atol=1e-4)
    assert graphs.frame_count == len(sizes)
    torch.compiler.reset()


def test_settings_of_training_are_known_where_the_detector_alone_is_built() -> None:
    assert {*inspect.signature(detection_module).parameters} - {"detector"} == TRAINING_KEYS


def test_the_number_of_classes_is_needed() -> None:
    with pytest.raises(InputError, match=r"model.num_classes is null"):
        build_module({**SETTINGS, "num_classes": None})


def freeze_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold BatchNorm's averages, which see each batch for itself."""
    train = DetectionModule.train

    def train_but_norms(self: DetectionModule, mode: bool = True) -> DetectionModule:
        train(self, mode)
        for child in self.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.eval()
        return self

    monkeypatch.setattr(DetectionModule, "train", train_but_norms)


def warmed_up_module() -> DetectionModule:
    """Fresh weights and averages that fit them, so that gradients reach the first layer."""
    torch.manual_seed(0)
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "fused": True}}
    module = build_module({**SETTINGS, "optimizer": optimizer})
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module.net(random_images(8))
    return module


def train_a_step(data: Path, *, accumulate: int) -> DetectionModule:
    module = warmed_up_module().train()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    datamodule = DetectionData(root=data, total_batch_size=8, workers=0, image_size=(64, 64))
    trainer.fit(module, datamodule)
    assert trainer.global_step == 1
    return module


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_accumulation_gives_the_step_of_the_large_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its parts hold different numbers of positives."""
    freeze_statistics(monkeypatch)
    data = make_coco(tmp_path / "coco", train=8, val=1)
    one, four = (train_a_step(data, accumulate=accumulate) for accumulate in (1, 4))
    start = warmed_up_module().state_dict()
    for (key, large), small in zip(one.state_dict().items(), four.state_dict().values(), strict=True):
        torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-5, msg=key)
    first, last = "detector.net.backbone.stem.0.weight", "detector.net.box_heads.0.1.weight"
    for key in (first, last):
        assert (one.state_dict()[key] - start[key]).abs().max() > 1e-3, key
    torch.testing.assert_close(one.train_losses(), four.train_losses(), rtol=1e-5, atol=1e-5)


def stepped_by_hand(module: DetectionModule, batch: Batch, *, world_size: int = 1) -> list[Tensor]:
    """Gradients of a step as Lightning would call its parts."""
    trainer = SimpleNamespace(
        accumulate_grad_batches=1,
        world_size=world_size,
        global_step=0,
        log_every_n_steps=50,
        precision_plugin=SimpleNamespace(),
    )
    module._trainer = trainer  # type: ignore[assignment]
    from detect.training.finite_guard import FiniteGuard

    module.guard = FiniteGuard(torch.device("cpu"), can_skip=True)
    module.training_step(batch, 0).backward()
    module.on_before_optimizer_step(torch.optim.SGD(module.parameters(), fused=True))
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_gradients_are_those_of_the_loss_per_positive(module: DetectionModule) -> None:
    images, target = random_images(4), random_target(4)
    batch = Batch(images, target, torch.arange(4), torch.full((4, 2), 64))
    module.train()
    sums = module.loss_terms(images, target)
    expected = torch.autograd.grad(sums.total / sums.positives, list(module.parameters()))
    assert sums.positives.item() != LOSS_UNIT
    for one, other in zip(stepped_by_hand(module, batch), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4)  # of two summations of float32


def test_a_batch_without_boxes_has_a_loss_of_background_alone(module: DetectionModule) -> None:
    target = random_target(2)
    nothing = Target(torch.zeros_like(target.boxes), torch.zeros_like(target.labels), target.ignore)
    sums = module.loss_terms(random_images(2), nothing)
    assert sums.terms["loss_box"].item() == 0
    assert sums.positives.item() == 0
    assert 0 < sums.terms["loss_cls"].item() < math.inf


def test_a_description_is_of_plain_values_and_needs_classes(module: DetectionModule) -> None:
    with pytest.raises(InputError, match="knows no classes"):
        module.describe()


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_plain_trainer_trains_and_writes_a_checkpoint(tmp_path: Path) -> None:
    root = str(make_coco(tmp_path / "coco", train=4, val=2))
    data = DetectionData(root, image_size=(64, 64), total_batch_size=2, workers=0)
    detector = TorchDetector(MobileNetV3("small", width=0.35), num_classes=3, image_size=(64, 64))
    trainer = L.Trainer(max_epochs=1, default_root_dir=tmp_path, logger=False, accelerator="cpu")
    trainer.fit(DetectionModule(detector), datamodule=data)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert build_from_checkpoint(read_checkpoint(checkpoint)).classes == data.classes


def test_a_loss_that_no_checkpoint_can_name__refused_in_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(MultiBoxLoss):
        """Inside a function; then as if a script defined it."""

    data = DetectionData(
        make_coco(tmp_path / "coco", train=4, val=2), image_size=(64, 64), total_batch_size=2, workers=0
    )
    detector = TorchDetector(MobileNetV3("small", width=0.35), num_classes=3, image_size=(64, 64))
    module = DetectionModule(detector, loss=Mine())
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(InputError, match=r"<locals>\.Mine of tests\.training\.test_module: define it at the"):
        trainer.fit(module, datamodule=data)
    monkeypatch.setattr(Mine, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Mine", Mine, raising=False)
    with pytest.raises(InputError, match=r"Mine of __main__: define it at the top level of a module"):
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"the detector has image_size \(64, 64\) and the data \(320, 320\): Det.*image_size=\(64, 64\)"),
        (
            {"image_size": (64, 64), "resize_rule": "torchvision"},
            "resize_rule 'antialias' and the data 'tor",
        ),
    ],
)
def test_another_input_than_the_data_gives__refused_in_set_up(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = DetectionData(make_coco(tmp_path / "coco", train=4, val=2), total_batch_size=2, **settings)
    detector = TorchDetector(MobileNetV3("small", width=0.35), num_classes=3, image_size=(64, 64))
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(InputError, match=message):
        trainer.fit(DetectionModule(detector), datamodule=data)

"""Box deltas as expectations of distributions: in the network, its exports, its checkpoints."""

import math
from pathlib import Path

import onnx
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from detect.deploy.export import ExportOptions, export
from detect.deploy.load import open_exported
from detect.deploy.runtimes.onnx_layers import in_layers, nodes_left_in_fp32
from detect.deploy.verify import reference_of
from detect.errors import InputError
from detect.model.backbones import MobileNetV1
from detect.model.box_bins import BoxBins
from detect.model.checkpoint import build_detector, build_from_checkpoint, read_checkpoint
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.model.torchvision_weights import to_torchvision
from detect.model.weights import init_from, match_table
from tests.detector_cases import CLASSES, SETTINGS, lively_detector, save_checkpoint


def small_net(box_bins: int | None = None) -> SSDLite:
    torch.manual_seed(0)
    return SSDLite(MobileNetV1(width=0.25), 3, image_size=(64, 96), box_bins=box_bins)


def test_expectation__by_hand() -> None:
    bins = BoxBins(5)
    assert bins.values.tolist() == [-8, -4, 0, 4, 8]
    logits = torch.tensor([[0.0, 0, 0, 0, 0], [-99, -99, math.log(1), math.log(3), -99], [99, 0, 0, 0, 0]])
    torch.testing.assert_close(bins(logits), torch.tensor([0.0, 3.0, -8.0]), rtol=0, atol=1e-5)


def test_expectation__is_float32_under_autocast() -> None:
    net, images = small_net(16).eval(), torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = net(images)
    assert (outputs.box_logits.dtype, outputs.box_deltas.dtype) == (torch.bfloat16, torch.float32)
    assert net.box_bins is not None
    torch.testing.assert_close(net.box_bins(outputs.box_logits.float()), outputs.box_deltas)


def test_network__gives_deltas_of_the_same_shape_and_their_distributions() -> None:
    net = small_net(16).train()
    outputs = net(torch.randint(256, (4, 3, 64, 96), dtype=torch.uint8))
    anchors = len(net.anchors)
    assert outputs.box_deltas.shape == (4, anchors, 4)
    assert outputs.box_logits.shape == (4, anchors, 4, 16)
    assert outputs.box_deltas.std() < 1  # a fresh head predicts its anchors, nearly
    outputs.box_deltas.sum().backward()
    gradient = net.box_heads[0].predictor.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_network__without_bins__is_what_it_was() -> None:
    net = small_net()
    assert net.box_bins is None
    assert net(torch.zeros(2, 3, 64, 96)).box_logits is None
    plain, bins = net.state_dict(), small_net(16).state_dict()
    assert plain.keys() == bins.keys()
    other = {key for key in plain if plain[key].shape != bins[key].shape}
    assert other == {f"box_heads.{i}.1.{name}" for i in range(6) for name in ("weight", "bias")}


def test_bins__averaging_does_not_move_them() -> None:
    net = small_net(5)
    averaged = AveragedModel(net, avg_fn=get_ema_avg_fn(0.999), use_buffers=True)
    averaged.module.box_bins.values += 1
    averaged.module.restore_constants()
    assert averaged.module.box_bins.values.tolist() == [-8, -4, 0, 4, 8]


def test_bins__fewer_than_two__refused() -> None:
    with pytest.raises(InputError, match=r"model.box_bins is 1; give null or 2 or more"):
        small_net(1)


# ---- files


def binned_detector(box_bins: int | None = 8) -> TorchDetector:
    """Smaller logits of boxes: random layers round a hundred times as much as trained ones."""
    detector = lively_detector(box_bins=box_bins)
    with torch.no_grad():
        for head in detector.net.box_heads:
            head.predictor.weight *= 0.2
    return detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(binned_detector(), tmp_path_factory.mktemp("bins") / "bins.ckpt")


def test_checkpoint__holds_the_bins(checkpoint: Path) -> None:
    loaded, detector = build_from_checkpoint(read_checkpoint(checkpoint)), binned_detector()
    assert loaded.describe() == detector.describe()
    assert loaded.to_settings()["box_bins"] == 8
    images = torch.randint(256, (1, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        for one, other in zip(loaded.net(images), detector.net(images), strict=True):
            assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["raw", "nms"])
def test_export__decodes_by_itself(checkpoint: Path, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert export(checkpoint, path, ExportOptions(form=form)) == 0  # compared with torch there
    model = onnx.load(path)
    products = [node for node in model.graph.node if in_layers(node, ["box_bins"])]
    assert {"Softmax", "Mul"} <= {node.op_type for node in products}
    assert {node.name for node in products} <= nodes_left_in_fp32(model, [])
    if form == "raw":
        images = torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8)
        outputs = reference_of(binned_detector(), images).outputs
        found = open_exported(path).run(images)
        for one, name in zip(found, ("cls_logits", "box_deltas"), strict=True):
            torch.testing.assert_close(one, outputs[name], rtol=1e-4, atol=1e-4)


def test_convert_weights__to_torchvision__refused() -> None:
    with pytest.raises(InputError, match="its boxes are expectations of bins: `box_bins: null`"):
        to_torchvision(small_net(16))


@pytest.mark.parametrize(("ours", "theirs"), [(None, 8), (8, None)])
def test_init_from__a_detector_with_other_boxes__heads_are_fresh(
    ours: int | None, theirs: int | None, tmp_path: Path
) -> None:
    path = save_checkpoint(binned_detector(theirs), tmp_path / "other.ckpt")
    net = build_detector({**SETTINGS, "box_bins": ours}).net
    match = init_from(net, CLASSES, path)
    predictors = {f"box_heads.{i}.1.{name}" for i in range(6) for name in ("weight", "bias")}
    assert set(match.fresh) == predictors
    shown = {str(cell) for cell in match_table(match, source="other.ckpt").columns[0].cells}
    assert predictors <= shown

"""Starts that a word names, from a server on 127.0.0.1."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from detect.data.annotation_cache import cache_folder
from detect.errors import InputError
from detect.model import published
from detect.model.backbones import MobileNetV2, MobileNetV3
from detect.model.checkpoint import build_detector, checkpoint_content, read_checkpoint, write_checkpoint
from detect.model.published import COCO, find_start
from detect.model.ssdlite import SSDLite
from detect.model.weights import init_from, match_table
from detect.types import ClassMap
from scripts.pack_starter import LICENCE, pack
from tests.file_server import FileServer, serving
from tests.model.tensorflow import cases

LARGE = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "large", "reduced_tail": True, "weights": None},
    },
    "anchors": {"style": "paper", "scales": "auto"},
    "num_classes": None,
}
SMALL = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "width": 0.35},
    },
    "num_classes": 2,
}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAME = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"


def test_the_table__has_what_torchvision_states() -> None:
    row, zoo = COCO
    assert zoo.backbone == published.flat_backbone(MobileNetV2().to_settings())
    assert row.name == NAME
    assert row.sha256.startswith("a79551df")  # the digits in the name are the first of the sum
    assert len(row.sha256) == 64
    net = SSDLite(MobileNetV3("large", reduced_tail=True), 2)
    assert row.backbone == published.flat_backbone(net.backbone.to_settings())


def test_coco__fetched_once_and_said_by_layer_and_class(
    coco_server: FileServer, torchvision_file: bytes
) -> None:
    path = find_start("coco", LARGE)
    assert find_start("coco", LARGE) == path
    assert len(coco_server.requests) == 1
    names = ClassMap(("Person", "tvmonitor", "chess piece"), (1, 2, 3))
    net = build_detector({**LARGE, "anchors": {"style": "torchvision"}, "num_classes": 3}).net
    match = init_from(net, names, path)
    assert match.known_classes == ["Person (from person)", "tvmonitor (from tv)"]
    assert match.new_classes == ["chess piece"]
    assert match.fresh == []
    origin = net.backbone.weights_origin
    assert origin is not None
    assert origin["licence"] == "BSD-3-Clause (torchvision), trained on COCO"
    assert (origin["weights"], origin["url"]) == (NAME, f"{coco_server.url}/{NAME}")
    neck = {"class_path": "detect.model.necks.TopDown"}
    plus = {**LARGE, "anchors": {"style": "torchvision"}, "taps": ["out3", "out4", "out5"], "neck": neck}
    net = build_detector({**plus, "num_classes": 3}).net
    match = init_from(net, names, path)
    assert match.known_classes == []  # its heads see other channels
    shown = [str(cell) for cell in match_table(match, source="coco").columns[0].cells]
    assert any(line.startswith("neck (") for line in shown)
    assert not any(line.startswith("backbone") for line in shown)


def test_coco__class_of_the_same_name__takes_its_column(
    coco_server: FileServer, torchvision_file: bytes, tmp_path: Path
) -> None:
    (tmp_path / "source.pth").write_bytes(torchvision_file)
    theirs = torch.load(tmp_path / "source.pth", weights_only=True)
    net = build_detector({**LARGE, "anchors": {"style": "torchvision"}, "num_classes": 2}).net
    init_from(net, ClassMap(("hen", "person"), (1, 2)), find_start("coco", LARGE))
    for i in range(6):
        ours = net.state_dict()[f"cls_heads.{i}.1.bias"].view(6, 3)
        source = theirs[f"head.classification_head.module_list.{i}.1.bias"].view(6, 91)
        assert torch.equal(ours[:, [0, 2]], source[:, [0, 1]])  # background and person
    assert torch.equal(net.state_dict()["backbone.stem.0.weight"], theirs["backbone.features.0.0.0.weight"])


def test_coco__no_network__says_address_and_place(coco_server: FileServer, torchvision_file: bytes) -> None:
    coco_server.statuses = [503]
    place = cache_folder() / "weights" / NAME
    with pytest.raises(InputError) as refused:
        find_start("coco", LARGE)
    assert f"Download {coco_server.url}/{NAME} where there is a network" in str(refused.value)
    assert f"put the file at {place}" in str(refused.value)
    place.write_bytes(torchvision_file)  # as the message says
    assert read_checkpoint(find_start("coco", LARGE)).classes.names[0] == "person"
    assert len(coco_server.requests) == 1


def test_coco__other_content__refused(coco_server: FileServer) -> None:
    coco_server.files["/" + NAME] = b"another"
    place = cache_folder() / "weights" / NAME
    with pytest.raises(InputError, match=r"has the sha256 .*, published is .*: it was deleted; try again"):
        find_start("coco", LARGE)
    assert not place.exists()
    place.write_bytes(b"put there by hand")
    with pytest.raises(InputError, match="move it away"):
        find_start("coco", LARGE)
    assert place.exists()


def test_coco__found_among_torchvisions_downloads(
    coco_server: FileServer, torchvision_file: bytes, tmp_path: Path
) -> None:
    own = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    own.parent.mkdir(parents=True)
    own.write_bytes(torchvision_file)
    assert find_start("coco", LARGE).is_file()
    assert coco_server.requests == []


V2 = {"backbone": {"class_path": "detect.model.backbones.MobileNetV2"}, "num_classes": None}


@pytest.fixture
def zoo_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The row of TensorFlow's model zoo on 127.0.0.1; its content is added by `publish`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serving() as told:
        yield told


def publish(told: FileServer, members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = file.getvalue()
    (zoo,) = (row for row in COCO if "download.tensorflow.org" in row.url)
    told.files["/" + zoo.name] = content
    url = f"{told.url}/{zoo.name}"
    row = zoo._replace(url=url, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(published, "COCO", (COCO[0], row))


def test_coco__archive_of_tensorflows_zoo(zoo_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = cases.network("v2")["layers"]
    for name in (name for name in layers if name.endswith("ClassPredictor")):  # of 3 classes: 90
        layers[name][3] = layers[name][3] // 4 * 91
    arrays = cases.variables(layers)
    top = "ssdlite_mobilenet_v2_coco_2018_05_09"
    graph = cases.frozen_graph(arrays, resize_to=300)
    members = {f"{top}/checkpoint": b"model", f"{top}/frozen_inference_graph.pb": graph}
    publish(zoo_server, members, monkeypatch)
    path = find_start("coco", V2)
    assert find_start("coco", V2) == path
    assert len(zoo_server.requests) == 1
    checkpoint = read_checkpoint(path)
    names = checkpoint.classes.names
    assert (names[0], names[11], names[89]) == ("person", "unused 12", "toothbrush")
    assert checkpoint.description["input"]["image_size"] == [300, 300]
    origin = checkpoint.description["weights_origin"]
    assert origin["licence"] == "Apache-2.0 (TensorFlow's model zoo), trained on COCO"
    assert origin["weights"] == f"{top}.tar.gz"
    net = build_detector({**V2, "num_classes": 2}).net
    match = init_from(net, ClassMap(("hen", "stop sign"), (1, 2)), path)
    assert (match.known_classes, match.fresh) == (["stop sign"], [])
    assert match.other_settings == ["model.backbone.settings.padding symmetric, in the start same"]
    theirs = arrays["BoxPredictor_2/ClassPredictor/biases"].reshape(6, 91)
    ours = net.state_dict()["cls_heads.2.1.bias"].view(6, 3)
    assert torch.equal(ours[:, [0, 2]], torch.from_numpy(theirs[:, [0, 13]]))  # 13: a stop sign


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"zoo/model.ckpt": b"a"}, "holds nothing of the form .*frozen_inference_graph"),
        ({"zoo/../../frozen_inference_graph.pb": b"a"}, "a path that can leave the folder"),
        ({"zoo/frozen_inference_graph.pb": b"no graph"}, "cannot be read as a frozen graph"),
    ],
)
def test_coco__archive_of_something_else__refused(
    zoo_server: FileServer, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], message: str
) -> None:
    publish(zoo_server, members, monkeypatch)
    with pytest.raises(InputError, match=message):
        find_start("coco", V2)


def test_no_start_for_a_backbone__says_which_there_are(coco_server: FileServer) -> None:
    with pytest.raises(
        InputError, match=r"init_from coco: there is none for MobileNetV3, size small.* large"
    ):
        find_start("coco", SMALL)
    assert coco_server.requests == []


def test_coco__cache_cannot_be_written__refused(coco_server: FileServer) -> None:
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    cache_folder().write_text("a file")
    with pytest.raises(InputError, match=r"cannot write \S+weights: .*; set DETECT_CACHE to a folder"):
        find_start("coco", LARGE)


def test_a_path_stays_a_path() -> None:
    assert find_start("./coco", SMALL) == Path("coco")


def test_starter__by_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "STARTERS", tmp_path)
    with pytest.raises(InputError, match=r"init_from starter: there is none for .*; there are: none yet"):
        find_start("starter", SMALL)
    detector = build_detector(SMALL)
    detector.classes = ClassMap(("disc", "bar"), (1, 2))
    write_checkpoint(tmp_path / "full" / "a.ckpt", checkpoint_content(detector))
    pack(tmp_path / "full" / "a.ckpt", tmp_path / "a.ckpt")
    assert find_start("starter", SMALL) == tmp_path / "a.ckpt"
    with pytest.raises(InputError, match=r"there is none for MobileNetV3, size large.* size small"):
        find_start("starter", LARGE)
    net = build_detector(SMALL).net
    init_from(net, ClassMap(("disc", "cup"), (1, 2)), tmp_path / "a.ckpt")
    stored = read_checkpoint(tmp_path / "a.ckpt").state_dict["net.backbone.stem.0.weight"]
    assert stored.dtype == torch.float16
    assert torch.equal(net.state_dict()["backbone.stem.0.weight"], stored.float())
    assert net.backbone.weights_origin == {"weights": "a.ckpt", "licence": LICENCE}
    assert (tmp_path / "a.ckpt").stat().st_size < 0.6 * (tmp_path / "full" / "a.ckpt").stat().st_size


def test_the_starter_of_the_package__all_of_it_is_taken_but_other_classes() -> None:
    settings = yaml.safe_load((CONFIGS / "starter" / "v3_small.yaml").read_text())["model"]
    path = find_start("starter", settings)
    assert path.stat().st_size < 4_000_000
    content = read_checkpoint(path)
    assert content.description["weights_origin"]["licence"] == LICENCE
    assert {weights.dtype for weights in content.state_dict.values()} <= {torch.float16, torch.int64}
    assert all(weights.isfinite().all() for weights in content.state_dict.values())
    net = build_detector({**settings, "num_classes": 2}).net
    match = init_from(net, ClassMap(("disc", "cup"), (1, 2)), path)
    assert match.other_settings == []
    assert match.known_classes == ["disc"]
    assert {name.split(".")[0] for name in match.fresh} <= {"cls_heads"}


def test_other_settings_than_learnt_are_said(tmp_path: Path) -> None:
    same = {**SMALL["backbone"]["init_args"], "settings": {"padding": "same"}}
    detector = build_detector({**SMALL, "backbone": {**SMALL["backbone"], "init_args": same}})
    detector.classes = ClassMap(("disc", "bar"), (1, 2))
    write_checkpoint(tmp_path / "a.ckpt", checkpoint_content(detector))
    net = build_detector({**SMALL, "mean": [0.485, 0.456, 0.406]}).net
    match = init_from(net, ClassMap(("disc", "bar"), (1, 2)), tmp_path / "a.ckpt")
    assert match.other_settings == [
        "model.mean [0.485, 0.456, 0.406], in the start [0.5, 0.5, 0.5]",
        "model.backbone.settings.padding symmetric, in the start same",
    ]

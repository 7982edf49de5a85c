"""Where a training may start, without a network."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest

from detect.errors import InputError
from detect.inspection import starts
from detect.inspection.starts import Start, choose_start, detector_start
from detect.model.checkpoint import build_detector, checkpoint_content, read_checkpoint, write_checkpoint
from detect.model.published import COCO, find_start
from detect.types import ClassMap
from tests.file_server import FileServer


def save(path: Path, **settings: object) -> Path:
    backbone = {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "width": 0.35},
    }
    detector = build_detector({"backbone": backbone, "num_classes": 1, **settings})
    detector.classes = ClassMap(("cat",), (1,))
    write_checkpoint(path, checkpoint_content(detector))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **rest: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)


def test_a_detector_brings_what_its_weights_belong_to(tmp_path: Path) -> None:
    plain = detector_start(save(tmp_path / "a.ckpt"), why="mine")
    assert plain.kind == "detector"
    assert plain.model == {
        "backbone": {
            "class_path": "detect.model.backbones.MobileNetV3",
            "init_args": {"size": "small", "width": 0.35},
        },
        "anchors": {"style": "paper"},
        "init_from": str(tmp_path / "a.ckpt"),
    }
    scales = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    other = save(
        tmp_path / "b.ckpt",
        taps=["c3", "c4", "c5"],
        anchors={"style": "torchvision", "scales": scales},
        norm={"bn_momentum": 0.1},
        image_size=[192, 192],
    )
    chosen = choose_start(str(other), "large").model
    assert chosen["taps"] == ["c3", "c4", "c5"]
    assert chosen["anchors"] == {"style": "torchvision", "scales": scales}
    assert chosen["norm"]["bn_momentum"] == 0.1
    assert "image_size" not in chosen  # weights fit any


def test_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.ckpt: no such checkpoint"):
        choose_start(str(tmp_path / "nowhere.ckpt"), "small")


@pytest.mark.usefixtures("no_network")
def test_a_start_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(InputError, match=r"ssdlite320\S+ cannot be downloaded: .*no network"):
        choose_start("coco", "large")
    with pytest.raises(InputError, match="imagenet could not download"):
        choose_start("imagenet", "small")


def test_auto_takes_the_best_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "coco", lambda: Start("detector", "published", {}))
    monkeypatch.setattr(starts, "imagenet", lambda size: Start("imagenet", size, {}))
    assert choose_start("auto", "large").why == "published"
    assert choose_start("auto", "small") == ("imagenet", "small", {})
    assert choose_start("none", "large").kind == "none"


def test_the_published_detector_is_fetched_once(coco_server: FileServer) -> None:
    first, again = choose_start("published", "large"), choose_start("auto", "large")
    assert first == choose_start("coco", "small")
    assert [request["path"] for request in coco_server.requests] == ["/" + COCO[0].name]
    assert first == again
    assert first.model["backbone"]["init_args"] == {"size": "large", "reduced_tail": True}
    assert first.model.keys() == {"backbone", "anchors", "init_from"}
    assert first.model["anchors"] == {"style": "torchvision"}
    assert first.model["init_from"] == "coco"  # and no path: another machine finds its own
    path = find_start("coco", {"backbone": first.model["backbone"]})
    assert "person" in read_checkpoint(path).classes.names


@pytest.mark.usefixtures("no_network", "elsewhere")
@pytest.mark.parametrize(("size", "missing"), [("small", "imagenet"), ("large", "coco, imagenet")])
def test_without_a_network_it_is_the_starter_of_the_package(size: starts.Size, missing: str) -> None:
    start = choose_start("auto", size)
    assert start.kind == "detector"
    assert start.model == choose_start("starter", size).model
    assert start.model["init_from"] == "starter"  # and no path: another machine has its own
    assert start.model["taps"] == ["c3", "c4", "c5"]
    assert start.why.endswith(f"out of reach: {missing}")
    assert "generated images" in start.why
    many = choose_start("auto", size, few_images=False)  # they train the network of the budget
    assert (many.kind, many.model) == ("none", {})
    assert many.why.endswith(f"out of reach: {missing}")


@pytest.mark.usefixtures("elsewhere")
def test_every_start_says_what_it_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coco_server: FileServer
) -> None:
    monkeypatch.setattr(starts, "find_weights", lambda *_, **__: None)
    own = save(tmp_path / "mine.ckpt")
    shown = {word: choose_start(word, "large").why for word in ("coco", "imagenet", "none", str(own))}
    assert "classes that COCO has too" in shown["coco"]
    assert "mAP 0.70, from nothing 0.53" in shown["imagenet"]
    assert "twice the steps" in shown["none"]
    assert "the closer its images are" in shown[str(own)]

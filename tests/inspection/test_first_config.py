"""Each choice of `detect init` on data that was made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from detect.data.annotations import Annotations
from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.inspection import first_config as module
from detect.inspection.anchor_advice import fitting_scales
from detect.inspection.anchor_layout import AnchorLayout, anchor_recall, class_recall, trained_boxes
from detect.inspection.first_config import (
    BUDGETS,
    Splits,
    choose_anchors,
    choose_augmentations,
    choose_backbone,
    choose_batch,
    choose_input,
    choose_length,
    choose_optimizer,
    choose_recipe,
    choose_splits,
    describe_data,
    first_config,
)
from detect.inspection.first_config_text import config_text, summary
from detect.inspection.recipes import SSDLITE, SSDLITE_PLUS, Recipe
from detect.inspection.starts import Start
from detect.model.anchors import AnchorConfig
from tests.conftest import make_coco
from tests.data_sets import make_voc, make_yolo, open_boxes

NONE = Start("none", "none", {})
BOX = [("cat", [4, 4, 40, 40])]


def scattered(root: Path, side: float, image: tuple[int, int] = (640, 640)) -> Annotations:
    """Boxes of one size (px of the file) all over an image of (width, height), of two classes in turn."""
    corners = np.random.default_rng(0).random((60, 2)) * (np.array(image) - side)
    return open_boxes(root, [[*corner, side, side] for corner in corners.tolist()], image)


def test_splits_by_their_usual_names(tmp_path: Path) -> None:
    both = make_voc(tmp_path / "both", {"train": {"a": BOX}, "val": {"b": BOX}, "trainval": {"a": BOX}})
    assert choose_splits(both) == ("train", "val")
    assert choose_splits(both, val="trainval") == ("train", "trainval")
    with pytest.raises(InputError, match="no split tset; it has train, trainval, val"):
        choose_splits(both, val="tset")
    odd = make_voc(tmp_path / "odd", {"one": {"a": BOX}, "two": {"b": BOX}})
    with pytest.raises(
        InputError, match=r"has the splits one, two: say which is which with --data\.train_split"
    ):
        choose_splits(odd)
    assert choose_splits(odd, "one", "two") == ("one", "two")


def test_one_split_alone_leads_to_data_split(tmp_path: Path) -> None:
    one = make_yolo(tmp_path / "birds", {"train": {"a": "0 0.5 0.5 0.2 0.2"}})
    with pytest.raises(InputError, match=r"has one split, train.*\n  detect data split .*birds --out bird"):
        choose_splits(one)
    none = make_voc(tmp_path / "labelled", {"train": {"a": BOX}})
    (none / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(InputError, match=r"has one split, default, .*\n  .*\n  detect init labelled-split"):
        choose_splits(none)


@pytest.mark.parametrize(
    ("budget", "arguments"),
    [
        ("phone", {"size": "small", "reduced_tail": True}),
        ("laptop", {"size": "large", "reduced_tail": True}),
        ("gpu", {"size": "large", "reduced_tail": False}),
    ],
)
def test_the_budget_names_the_backbone(budget: module.Budget, arguments: dict) -> None:
    reasons: dict[str, str] = {}
    model = choose_backbone(budget, NONE, 1000, SSDLITE, reasons)
    assert model["backbone"]["init_args"] == arguments | {"settings": {"bn_momentum": 0.1}}
    assert model["norm"] == {"bn_momentum": 0.1}
    assert budget in reasons["model.backbone"]
    imagenet = Start("imagenet", "", {"backbone": {"init_args": {"weights": "imagenet"}}})
    model = choose_backbone(budget, imagenet, 130, SSDLITE, reasons)
    assert model["backbone"]["init_args"] == arguments | {"weights": "imagenet"}
    assert "norm" not in model


@pytest.mark.parametrize("budget", module.BUDGETS)
def test_few_images_and_no_start_get_the_smallest(budget: module.Budget) -> None:
    reasons: dict[str, str] = {}
    model = choose_backbone(budget, NONE, 999, SSDLITE, reasons)
    assert model["backbone"]["init_args"]["size"] == "small"
    assert "few images and random weights" in reasons["model.backbone"]


def test_a_detector_to_start_from_names_the_backbone(tmp_path: Path) -> None:
    learnt = {"backbone": {"class_path": "x"}, "anchors": {"style": "paper"}, "init_from": "a.ckpt"}
    reasons: dict[str, str] = {}
    model = choose_backbone("gpu", Start("detector", "", learnt), 130, SSDLITE, reasons)
    assert model["backbone"] == {"class_path": "x"}
    assert model["init_from"] == "a.ckpt"
    # Its anchors stay, though they fit badly here.
    assert choose_anchors(scattered(tmp_path, 20), model, reasons) == {"style": "paper"}


@pytest.mark.parametrize(
    ("side", "start", "recipe"),
    [
        (150, NONE, SSDLITE_PLUS),  # 75 px at 320
        (170, NONE, SSDLITE),
        (40, Start("detector", "", {"taps": ["c3", "c4", "c5"]}), SSDLITE_PLUS),
        (40, Start("detector", "", {}), SSDLITE),
        (40, Start("imagenet", "", {}), SSDLITE),  # not measured from any start but random weights
    ],
)
def test_small_objects_and_random_weights_get_ssdlite_plus(
    tmp_path: Path, side: float, start: Start, recipe: Recipe
) -> None:
    assert choose_recipe(scattered(tmp_path, side), start) is recipe


@pytest.mark.parametrize("budget", module.BUDGETS)
def test_ssdlite_plus_is_laid_out_as_its_configurations(tmp_path: Path, budget: module.Budget) -> None:
    annotations, reasons = scattered(tmp_path, 60), {}
    model = choose_backbone(budget, NONE, 200, SSDLITE_PLUS, reasons)
    assert model["backbone"]["init_args"]["size"] == BUDGETS[budget].size
    name = "v3_small" if budget == "phone" else "chess"
    measured = yaml.safe_load(Path(f"configs/plus/{name}.yaml").read_text(encoding="utf-8"))
    chosen = model | choose_optimizer(SSDLITE_PLUS, 4, 3000)
    assert [chosen.get(key) for key in ("taps", "neck", "loss")] == [
        measured["model"].get(key) for key in ("taps", "neck", "loss")
    ]
    assert chosen["optimizer"]["init_args"]["lr"] == 0.03
    assert choose_input(annotations, BUDGETS[budget], SSDLITE_PLUS, reasons) == [320, 320]
    anchors = choose_anchors(annotations, model | {"image_size": [320, 320]}, reasons)
    assert anchors == {"style": "torchvision"}  # the usual ones fit: at stride 8 they are half as large
    assert choose_augmentations(["cat"], SSDLITE_PLUS, reasons)["RandomIoUCrop"] == {"min_scale": 0.8}


def test_the_configuration_for_small_objects(tmp_path: Path) -> None:
    boxes = {f"t{i}": [("cat", [8 + i, 8, 13 + i, 13])] for i in range(4)}
    root = make_voc(tmp_path / "small", {"train": boxes, "val": {"v": BOX}})
    chosen = first_config(root, Splits("train", "val"), budget="phone", start="none")
    assert chosen.time.step_s > 0
    written = yaml.safe_load(config_text(chosen, Path("small.yaml")))
    assert written["data"]["augmentations"][1]["init_args"] == {"min_scale": 0.8}
    assert written["data"]["weak_epochs"] == round(written["trainer"]["max_epochs"] / 4)
    assert written["trainer"]["callbacks"] == [{"class_path": "detect.training.averaging.AveragedWeights"}]
    assert "map of stride 8 for small objects" in "\n".join(summary(chosen, Path("small.yaml")))


@pytest.mark.parametrize(
    ("side", "budget", "expected"),
    [
        (100, "laptop", 320),  # 50 px at 320
        (52, "laptop", 416),  # 26, 34
        (42, "laptop", 512),  # 21, 27, 34
        (20, "laptop", 512),  # the most that a laptop does
        (20, "gpu", 640),
        (20, "phone", 320),
    ],
)
def test_the_input_grows_for_small_boxes(
    tmp_path: Path, side: float, budget: module.Budget, expected: int
) -> None:
    reasons: dict[str, str] = {}
    chosen = choose_input(scattered(tmp_path, side), BUDGETS[budget], SSDLITE, reasons)
    assert chosen == [expected, expected]
    assert ("small objects will be missed" in reasons["model.image_size"]) == (side == 20)


def test_the_input_is_no_larger_than_the_images(tmp_path: Path) -> None:
    boxes = scattered(tmp_path, 20, image=(640, 430))
    assert choose_input(boxes, BUDGETS["gpu"], SSDLITE, {}) == [416, 416]


def test_scales_are_fitted_where_the_usual_ones_fit_badly(tmp_path: Path) -> None:
    reasons: dict[str, str] = {}
    model = choose_backbone("phone", NONE, 130, SSDLITE, reasons) | {"image_size": [320, 320]}
    assert choose_anchors(scattered(tmp_path / "a", 140), model, reasons) == {"style": "torchvision"}
    assert "the usual ones; " in reasons["model.anchors"]
    chosen = choose_anchors(scattered(tmp_path / "b", 60), model, reasons)
    assert chosen["style"] == "torchvision"
    assert chosen["scales"][0] <= 0.15
    assert "fitted to the boxes" in reasons["model.anchors"]


def test_a_rare_class_counts_as_much_as_a_common_one(tmp_path: Path) -> None:
    boxes = [[10.0 * i, 10.0 * i, 140.0, 140.0] for i in range(40)] + [[316.0, 316.0, 40.0, 40.0]] * 2
    annotations = open_boxes(tmp_path, boxes, (640, 640))
    annotations = replace(annotations, labels=np.array([1] * 40 + [2] * 2))
    layout = replace(AnchorLayout.default(), config=AnchorConfig(style="torchvision"))
    assert anchor_recall(trained_boxes(annotations), layout) > 0.9
    assert class_recall(trained_boxes(annotations), layout) == 0.5
    assert fitting_scales(annotations, layout).share > 0.9


@pytest.mark.parametrize(("images", "batch"), [(2, 2), (5, 5), (130, 8), (999, 8), (1000, 16), (20_000, 32)])
def test_the_batch_follows_the_number_of_images(images: int, batch: int) -> None:
    assert choose_batch(images, SSDLITE) == batch
    assert choose_batch(images, SSDLITE_PLUS) == min(images, 4)


def test_one_image_is_too_few() -> None:
    with pytest.raises(InputError, match="1 image to train on: at least 2"):
        choose_batch(1, SSDLITE)


@pytest.mark.parametrize("images", [2, 20, 130, 300, 1000, 5000, 100_000])
@pytest.mark.parametrize("kind", ["none", "imagenet", "detector"])
def test_epochs_give_the_steps_that_a_start_needs(images: int, kind: module.Kind) -> None:
    batch = choose_batch(images, SSDLITE)
    length = choose_length(images, 50, batch=batch, kind=kind)
    assert length.steps == length.epochs * (images // batch)
    if 64 <= images <= 1000:
        assert module.STEPS[kind] <= length.steps < 1.3 * module.STEPS[kind]
    assert 20 <= length.epochs <= 520
    assert length.epochs % length.validations == 0
    assert 20 <= length.validations <= 45
    assert choose_optimizer(SSDLITE, batch, length.steps)["schedule"]["warmup_steps"] <= length.steps / 2 or (
        images < 20
    )


def test_a_small_batch_takes_a_lower_rate() -> None:
    settings = [choose_optimizer(SSDLITE, batch, 3000) for batch in (8, 4)]
    assert [chosen["optimizer"]["init_args"]["lr"] for chosen in settings] == [0.02, 0.01]


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (["kangaroo"], True),
        (["brightness", "cleft"], True),
        (["left_hand", "right_hand"], False),
        (["turnLeft", "straight"], False),
        (["0", "1", "2"], False),
        (["a"], False),
    ],
)
def test_mirror_images_only_where_they_stay_true(names: list[str], mirrored: bool) -> None:
    reasons: dict[str, str] = {}
    chosen = choose_augmentations(names, SSDLITE, reasons)
    assert chosen["RandomIoUCrop"] == {}
    assert ("RandomHorizontalFlip" in chosen) == mirrored
    assert "RandomVerticalFlip" not in chosen
    assert ("no mirror images" in reasons["data.augmentations"]) != mirrored


def test_what_is_wrong_with_the_data_is_counted(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "birds", train=6, val=2)
    (root / "train" / "000.jpg").write_bytes(b"no image")
    data = DetectionData(root)
    data.open()
    said = "5 images to train on (train), 2 to validate on (val); 3 classes: square, disc, bar"
    assert describe_data(data, Splits("train", "val")) == f"{said}; 1 error, see detect data check"


@pytest.mark.slow
def test_the_file_holds_what_was_chosen(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "birds, of 2: #1", train=6, val=2)
    chosen = first_config(root, Splits("train", "val"), budget="phone", start="none")
    assert chosen.time.step_s > 0
    text = config_text(chosen, Path("birds.yaml"))
    assert yaml.safe_load(text) == {
        "seed_everything": 0,
        "model": chosen.model,
        "data": chosen.data,
        "trainer": chosen.trainer,
    }
    assert chosen.data["root"] == str(root)
    assert len(max(text.splitlines(), key=len)) < 200
    slow = replace(chosen, time=chosen.time._replace(step_s=60.0))
    assert "--for phone" not in "\n".join(summary(slow, Path("birds.yaml")))
    large = {"backbone": {"init_args": {"size": "large"}}}
    slow = replace(slow, model=chosen.model | large)
    assert "with --for phone less than half of it" in summary(slow, Path("birds.yaml"))[7]
    lines = summary(chosen, Path("birds.yaml"))
    assert len(lines) <= 12
    assert lines[0].startswith(
        "data           6 images to train on (train), 2 to validate on (val); 3 classes"
    )
    assert lines[-1].split()[:2] == ["detect", "fit"]

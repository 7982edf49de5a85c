from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from detect.commands.main import main
from detect.data.augment import Mosaic, RandomVerticalFlip
from detect.data.datamodule import DetectionData
from detect.data.dataset import SampleKey
from detect.errors import InputError
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.preview import PreviewOptions, matched_anchors, open_preview
from detect.training.assigners import MaxIoUAssigner
from detect.types import Target
from tests.conftest import make_coco

QUICK = PreviewOptions(images=2, epochs=2, samples=6)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", train=5)


def write_config(path: Path, **sections: Any) -> Path:
    model = {
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": {"size": "small"}},
        "image_size": [96, 128],
        "anchors": {"style": "torchvision"},
        "loss": {"class_path": "detect.training.losses.MultiBoxLoss", "init_args": {"iou_threshold": 0.4}},
    }
    flip = {
        "class_path": "detect.data.augment.RandomVerticalFlip",
        "init_args": {"probability": 1.0},
    }
    data = {"train_split": "train", "augmentations": [flip], "total_batch_size": 64}
    content = {"seed_everything": 7, "model": model, "data": data} | sections
    path.write_text(yaml.safe_dump(content))
    return path


def test_open_preview__with_a_config__shows_what_its_training_shows(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml")
    preview = open_preview(root, QUICK._replace(config=config))
    training = DetectionData(
        root, augmentations=[RandomVerticalFlip(1.0)], image_size=(96, 128), seed=7, total_batch_size=4
    )
    training.open()
    for key in (SampleKey(0, 0, 8), SampleKey(1, 4, 8)):
        ours, theirs = preview.dataset[key], training.train_dataloader().dataset[key]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    assert preview.rows == [0, 4]
    assert preview.assigner.init_args == {"iou_threshold": 0.4, "ignore_threshold": 0.5}
    assert preview.layout.config.style == "torchvision"
    np.testing.assert_array_equal(  # upside down, the whole of it
        preview.dataset[SampleKey(0, 0, 8)].image, preview.whole[SampleKey(0, 0, 8)].image[::-1]
    )


def test_open_preview__weak_epochs__are_those_of_the_run_and_not_in_the_audit(
    root: Path, tmp_path: Path
) -> None:
    strong = {"class_path": "detect.data.augment.RandomZoomOut", "init_args": {"probability": 1.0}}
    data = {"augmentations": [strong], "weak_epochs": 2}
    config = write_config(tmp_path / "a.yaml", data=data, trainer={"max_epochs": 3})
    preview = open_preview(root, QUICK._replace(config=config, samples=15))
    assert preview.dataset.weak_from == 1
    assert len(preview.dataset.steps(1) or []) == 0
    plain = write_config(tmp_path / "b.yaml", data={"augmentations": [strong]})
    expected = open_preview(root, QUICK._replace(config=plain, samples=15)).audit
    np.testing.assert_array_equal(preview.audit.after_px, expected.after_px)


def test_matched_anchors__of_another_input__are_those_of_its_size(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", data={"augmentations": [], "multi_scale": [64, 160]})
    preview = open_preview(root, QUICK._replace(config=config))
    assert preview.multi_scale is not None
    assert preview.multi_scale.seed == 7
    assert preview.multi_scale.sizes[0] == (64, 96)  # 64 * 128 / 96 = 85 px, rounded to 32
    for size in ((64, 96), (160, 224)):
        sample = preview.dataset[SampleKey(0, 1, 8, image_size=size)]
        layout = replace(preview.layout, image_size=size)
        expected = matched_anchors(sample, layout, preview.assigner)
        found = matched_anchors(sample, preview.layout, preview.assigner)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        assert len(found.boxes)
        assert found.boxes.max() > max(size) / 4


def test_open_preview__mosaics__are_those_of_the_training(root: Path, tmp_path: Path) -> None:
    mosaic = {"class_path": "detect.data.augment.Mosaic", "init_args": {"probability": 1.0}}
    config = write_config(tmp_path / "a.yaml", data={"augmentations": [mosaic]})
    preview = open_preview(root, QUICK._replace(config=config))
    training = DetectionData(
        root, augmentations=[Mosaic(1.0)], image_size=(96, 128), seed=7, total_batch_size=4
    )
    training.open()
    key = SampleKey(1, 4, 64)
    assert len(preview.dataset.plan(key)) == 4
    for one, other in zip(preview.dataset[key], training.train_dataset()[key], strict=True):
        np.testing.assert_array_equal(one, other)


def test_open_preview__without_a_config__takes_the_defaults_of_fit(root: Path) -> None:
    preview = open_preview(root, QUICK)
    assert [type(step).__name__ for step in preview.dataset.augmentations or []] == [
        "PhotometricDistort",
        "RandomZoomOut",
        "RandomIoUCrop",
        "RandomHorizontalFlip",
    ]
    assert (preview.dataset.seed, preview.dataset.image_size, preview.split) == (0, (320, 320), "train")


def test_open_preview__seed_and_split_that_are_given__win(root: Path, tmp_path: Path) -> None:
    options = QUICK._replace(config=write_config(tmp_path / "a.yaml"), seed=2, split="val")
    preview = open_preview(root, options)
    assert (preview.dataset.seed, preview.split) == (2, "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "--images 0: at least 1"),
        ({"epochs": 0}, "--epochs 0: at least 1"),
        ({"samples": -1}, "--samples -1: at least 1"),
        ({"split": "tarin"}, r"has no split tarin; it has train, val. Name one with --split"),
        ({"config": Path("absent.yaml")}, r"absent\.yaml"),
    ],
)
def test_open_preview__wrong_options__are_named(root: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_preview(root, QUICK._replace(**change))


def test_open_preview__config_nested_too_deeply__is_named(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "deep.yaml"
    config.write_text("model: " + "[" * 500 + "]" * 500)
    with pytest.raises(InputError, match=r"deep\.yaml"):
        open_preview(root, QUICK._replace(config=config))


def test_open_preview__augmentation_that_is_none__is_named(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", data={"augmentations": [{"class_path": "torch.optim.SGD"}]})
    with pytest.raises(InputError, match=r"a\.yaml, data.augmentations: "):
        open_preview(root, QUICK._replace(config=config))


def test_matched_anchors__are_those_of_the_loss(root: Path) -> None:
    preview = open_preview(root, QUICK)
    sample = preview.whole[SampleKey(0, 0, 8)]
    found = matched_anchors(sample, preview.layout, preview.assigner)
    anchors = torch.from_numpy(np.concatenate([level.reshape(-1, 4) for level in preview.layout.levels()]))
    target = Target(*(torch.from_numpy(part)[None] for part in (sample.boxes, sample.labels, sample.ignore)))
    assignment = MaxIoUAssigner()(None, anchors, (len(anchors),), target)
    np.testing.assert_array_equal(found.boxes, anchors[assignment.foreground[0]].numpy())
    np.testing.assert_array_equal(
        sample.boxes[found.owners], assignment.boxes[0][assignment.foreground[0]].numpy()
    )
    assert set(found.owners.tolist()) == set(range(len(sample.boxes)))  # each has one at least


def test_matched_anchors__box_that_none_meets__holds_its_best(root: Path) -> None:
    sample = open_preview(root, QUICK).whole[SampleKey(0, 0, 8)]
    tiny = replace_boxes(sample, [[10.0, 10.0, 14.0, 14.0]])
    found = matched_anchors(tiny, AnchorLayout.default(), MaxIoUAssigner())
    assert (len(found.boxes), found.below_match_iou) == (1, 1)
    none = replace_boxes(sample, [])
    assert len(matched_anchors(none, AnchorLayout.default(), MaxIoUAssigner()).boxes) == 0


def replace_boxes(sample: Any, boxes: list[list[float]]) -> Any:
    count = len(boxes)
    return sample._replace(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.ones(count, dtype=np.int64),
        ignore=np.zeros(count, dtype=np.bool_),
    )


def test_preview_command__writes_a_page_and_figures(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "page.json"
    arguments = ["data", "preview", str(root), "--output", str(page), "--json", str(figures)]
    arguments += ["--images", "2", "--epochs", "1", "--samples", "5", "--anchors"]
    assert main(arguments) == 0
    assert json.loads(figures.read_text())["samples"] == 5
    assert "of the boxes are kept; page written to" in capsys.readouterr().out
    assert page.read_text().count("<img") == 4


def test_preview_command__output_in_the_data_set__refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "preview", str(root), "--output", str(root / "page.html")]) == 2
    assert "which is only read" in capsys.readouterr().err

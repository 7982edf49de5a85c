from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from detect.data.annotations import Annotations
from detect.inspection.anchor_advice import WORTHWHILE, Advice, advise, advise_auto
from detect.inspection.anchor_layout import AnchorLayout, anchor_recall, trained_boxes
from detect.model.anchors import AnchorConfig
from tests.data_sets import open_boxes

DEFAULT = AnchorLayout.default()


def layout_of(advice: Advice, layout: AnchorLayout) -> AnchorLayout:
    """What a command line with the flags of `advice` would build."""
    parser = ArgumentParser()
    parser.add_argument("--model.image_size", type=tuple[int, int], default=layout.image_size)
    parser.add_argument("--model.anchors", type=AnchorConfig, default=layout.config)
    config = parser.instantiate(parser.parse_args(shlex.split(advice.flags)))
    return replace(layout, image_size=config.model.image_size, config=config.model.anchors)


def scattered(root: Path, width: float, height: float, *, count: int = 150) -> Annotations:
    corners = np.random.default_rng(0).random((count, 2)) * (640 - width, 480 - height)
    return open_boxes(root, [[*corner, width, height] for corner in corners.tolist()])


@pytest.mark.parametrize(
    "layout",
    [
        DEFAULT,
        replace(
            DEFAULT,
            image_size=(192, 256),
            config=AnchorConfig(style="torchvision", steps=[16, 32, 64, 86, 128, 256]),
        ),
        replace(DEFAULT, config=AnchorConfig(aspect_ratios=[[2.0, 0.5]] * 6)),
        replace(DEFAULT, strides=(8, *DEFAULT.strides)),
    ],
)
@pytest.mark.parametrize("size", [(30, 22), (260, 30)])
def test_advise__flags_keep_their_promise(
    tmp_path: Path, layout: AnchorLayout, size: tuple[int, int]
) -> None:
    found = scattered(tmp_path, *size)
    boxes = trained_boxes(found)
    advice = advise(found, layout)
    assert advice
    for one in advice:
        changed = layout_of(one, layout)
        assert one.share == pytest.approx(anchor_recall(boxes, changed), abs=1e-4)
        assert one.share >= anchor_recall(boxes, layout) + WORTHWHILE - 1e-9
        assert one.anchors == changed.count
        assert one.keeps_anchors == (changed.config == layout.config)
        assert f"{one.share:.1%} of the boxes, {one.anchors:,} anchors" in str(one)
        (height, width), (had, has) = changed.image_size, layout.image_size
        assert one.time_ratio == pytest.approx(height * width / (had * has), abs=0.01)
        time = "no more time" if changed.image_size == layout.image_size else "times the time"
        assert str(one).endswith(f"{time} per image")


def test_advise__long_thin_boxes__more_ratios(tmp_path: Path) -> None:
    best = advise(scattered(tmp_path, 500, 75), DEFAULT)
    ratios = [one for one in best if "model.anchors.aspect_ratios" in one.settings]
    assert len(ratios) == 1
    assert all(5.0 in level and 2.0 in level for level in ratios[0].settings["model.anchors.aspect_ratios"])


def test_advise__the_dearer_kinds_meet_more(tmp_path: Path) -> None:
    advice = [one for one in advise(scattered(tmp_path, 24, 30), DEFAULT) if not one.keeps_anchors]
    shares = [one.share for one in advice]
    assert shares == sorted(shares)
    assert "model.image_size" in advice[-1].settings


def test_advise__anchors_that_fit__none(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[x, y, 128, 96] for x in range(0, 500, 50) for y in range(0, 380, 40)])
    assert advise(found, DEFAULT) == []


def test_advise__no_boxes__none(tmp_path: Path) -> None:
    found = open_boxes(tmp_path, [[10, 10, 20, 20]])
    assert advise(replace(found, ignore=np.array([True])), DEFAULT) == []


def test_advice__flags_for_a_shell() -> None:
    settings = {"model.image_size": [512, 512], "model.anchors.style": "paper", "model.anchors.scales": None}
    advice = Advice(settings, 0.5, 1000)
    assert (
        advice.flags
        == "--model.image_size '[512,512]' --model.anchors.style paper --model.anchors.scales null"
    )
    assert not advice.keeps_anchors
    assert Advice({"model.image_size": [512, 512]}, 0.5, 1000).keeps_anchors


def test_advise__points__another_input_alone(tmp_path: Path) -> None:
    points = replace(DEFAULT, config=AnchorConfig("points"))
    advice = advise(scattered(tmp_path, 24, 30), points)
    assert all(one.keeps_anchors for one in advice)
    assert advise_auto(scattered(tmp_path / "b", 24, 30), points) is None

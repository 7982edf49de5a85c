from __future__ import annotations

import re
from pathlib import Path

import pytest

from detect.data.augment import Mosaic
from detect.data.dataset import DetectionDataset
from detect.data.multi_scale import MultiScale
from detect.inspection.preview import PreviewOptions, open_preview
from detect.report.preview_page import write_preview
from tests.conftest import make_coco


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("preview")
    root = make_coco(folder / "<coco>", train=5)
    preview = open_preview(root, PreviewOptions(images=2, epochs=3, samples=40))
    write_preview(folder / "page.html", preview, epochs=3, anchors=True)
    return (folder / "page.html").read_text(encoding="utf-8")


def test_page__needs_nothing_from_elsewhere(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > page.count("<img") > 0  # images and links
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "<script" not in page
    assert "url(http" not in page


def test_page__every_image_whole_and_in_each_epoch(page: str) -> None:
    assert page.count("<img") == 2 * (1 + 3)
    assert page.count("whole: ") == 2 * 2  # caption and description
    assert len(re.findall(r"epoch 3: \d+ boxes, \d+ anchors", page)) == 2 * 2


def test_page__says_what_becomes_of_the_boxes(page: str) -> None:
    assert "40 samples were followed" in page
    for name in ("small", "medium", "square", "disc", "RandomIoUCrop", "min_scale 0.3"):
        assert name in page
    assert page.count("<svg") == 2


def test_page__names_are_escaped(page: str) -> None:
    assert "<coco>" not in page
    assert "&lt;coco&gt;" in page


def test_page__says_the_size_of_each_input(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=5)
    preview = open_preview(root, PreviewOptions(images=2, epochs=2, samples=10))
    preview = preview._replace(multi_scale=MultiScale(((64, 96), (96, 128)), seed=0))
    write_preview(tmp_path / "page.html", preview, epochs=2, anchors=True)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(re.findall(r"epoch [12], (?:96 x 64|128 x 96) px: \d+ boxes, \d+ anchors", page)) == 2 * 2 * 2
    assert "the input of each step from 96 x 64, 128 x 96 px. Boxes" in page


def test_page__weak_epochs_are_shown_too(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=5)
    preview = open_preview(root, PreviewOptions(images=2, epochs=2, samples=10))
    given = preview.dataset
    for weak_from, captions in ((4, ["epoch 5, weak"]), (1, ["epoch 2, weak"])):
        shown = DetectionDataset(
            given.annotations, given.image_size, augmentations=[Mosaic(1.0)], weak_from=weak_from
        )
        write_preview(tmp_path / "page.html", preview._replace(dataset=shown), epochs=2, anchors=False)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        found = sorted(set(re.findall(r"epoch \d+, weak", page)))
        assert found == captions
        assert f"From epoch {weak_from + 1} on: none." in page


def test_page__mosaics_say_how_many_images_they_show(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=5)
    preview = open_preview(root, PreviewOptions(images=2, epochs=2, samples=10))
    shown = DetectionDataset(
        preview.dataset.annotations, preview.dataset.image_size, augmentations=[Mosaic(1.0)]
    )
    preview = preview._replace(dataset=shown)
    write_preview(tmp_path / "page.html", preview, epochs=2, anchors=True)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(re.findall(r"epoch [12], 4 images: \d+ boxes, \d+ anchors", page)) == 2 * 2 * 2
    assert "probability 1.0, centre (0.25, 0.75)" in page

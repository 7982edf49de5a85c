from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.model.checkpoint import build_detector, checkpoint_content, write_checkpoint
from detect.report.plots import PLACEHOLDERS
from detect.report.run_files import read_run
from detect.report.run_page import read_model, report, score_if_needed, score_run, write_report
from tests.conftest import make_coco
from tests.run_cases import MODEL, make_run

MOST_BYTES = 5_000_000
VOID = {"meta", "img", "br", "path", "polyline", "use", "image", "rect"}


class Checker(HTMLParser):
    """Collects what a page refers to, its ids, and whether its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._collect(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._collect(attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def _collect(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.sources.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


def check(page: Path) -> Checker:
    """Read a page as a browser would."""
    checker = Checker()
    checker.feed(page.read_text())
    assert checker.open == []
    return checker


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = make_coco(tmp_path / "coco", val=6)
    make_run(tmp_path / "run <one>", root)
    return tmp_path / "run <one>"


def test_write_report__finished_run__one_offline_page(run: Path) -> None:
    page = write_report(run)
    assert page == run / "report.html"
    assert page.stat().st_size < MOST_BYTES
    checker = check(page)
    assert {source.partition("/")[0].partition("#")[0] for source in checker.sources} == {"data:image", ""}
    assert "@import" not in page.read_text()
    assert not re.search(r"url\((?!#)", page.read_text())
    assert len(set(checker.ids)) == len(checker.ids)
    links = {source[1:] for source in checker.sources if source.startswith("#")}
    assert links <= set(checker.ids)
    assert "Run run <one>" in checker.text  # escaped, so that it is text again
    for words in (
        "What goes wrong",
        "duplicate",
        "images / s",
        "square",
        "F1 is best",
        "lr: 0.05",
        "0123abcd",
        "params",
    ):
        assert words in checker.text
    assert "percent" not in checker.text  # metrics are fractions of one, in text and in plots
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"mAP{metrics['mAP']:.3f}" in "".join(checker.text.split())
    assert f"AP50 is {metrics['AP50']:.3f}." in checker.text
    assert "Not all is there" not in checker.text
    assert "prefers-color-scheme: dark" in page.read_text()
    assert 'name="viewport" content="width=device-width' in page.read_text()
    for placeholder in (PLACEHOLDERS.ink, PLACEHOLDERS.muted, *PLACEHOLDERS.lines):
        assert placeholder not in page.read_text()  # each has become a colour of the scheme
    images = [source for source in checker.sources if source.startswith("data:image/jpeg")]
    assert len(images) >= 12  # six images, twice each


def test_write_report__nothing_but_curves__says_what_is_missing(run: Path) -> None:
    for path in run.iterdir():
        if path.name not in ("metrics.csv", "checkpoints"):
            path.unlink()
    text = check(write_report(run)).text
    assert "Not all is there" in text
    assert "config.yaml is missing" in text
    assert "The run was not scored" in text
    assert "Parts of the loss" in text


def test_write_report__every_file_broken__still_a_page(run: Path) -> None:
    for path in run.glob("*.*"):
        path.write_text("{")
    text = check(write_report(run)).text
    for name in ("config.yaml", "metrics.json", "manifest.json", "ground_truth.json"):
        assert f"{name} cannot be read" in text or f"cannot read {run / name}" in text
    assert "No epoch was finished" in text


def test_write_report__data_set_moved_away__metrics_without_images(run: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "coco", tmp_path / "elsewhere")
    text = check(write_report(run)).text
    assert "The data set is not where it was trained from" in text
    assert "No image could be shown: cannot read image" in text
    assert "What goes wrong" in text


def test_read_model__class_of_another_program_in_the_config__not_imported(run: Path) -> None:
    config = (run / "config.yaml").read_text().replace("detect.model.backbones.MobileNetV3", "os.system")
    (run / "config.yaml").write_text(config)
    notices: list[str] = []
    assert read_model(read_run(run), notices) is None
    assert "Parameters and anchors are not known" in notices[0]


def test_write_report__no_folder_or_no_run__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such run folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(InputError, match=r"is no run folder: it has none of config\.yaml"):
        write_report(tmp_path)


def test_report__checkpoint_cannot_be_read__page_all_the_same(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "detections.json").unlink()
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    assert report(run) == 0
    printed = capsys.readouterr().out
    assert "best.ckpt could not be scored" in printed
    assert str(run / "report.html") in printed


def test_score_if_needed__stopped_run_with_a_checkpoint__scored(run: Path) -> None:
    for name in ("metrics.json", "detections.json", "ground_truth.json"):
        (run / name).unlink()
    data = DetectionData(root=run.parent / "coco")
    data.open()
    module = build_detector(MODEL)
    module.classes = data.classes
    write_checkpoint(run / "checkpoints" / "best.ckpt", checkpoint_content(module))
    score_if_needed(run)
    scored = read_run(run)
    assert scored.metrics is not None
    assert scored.metrics["images"] == 6
    assert scored.scored is not None


@pytest.mark.slow
def test_write_report__uses_the_thresholds_of_the_checkpoint(run: Path) -> None:
    assert "score more than the threshold" not in check(write_report(run)).text
    module = build_detector(MODEL | {"postprocess": {"class_thresholds": [0.9, 0.55, 0.6]}})
    scored = read_run(run).scored
    assert scored is not None
    module.classes = scored.annotations.classes
    write_checkpoint(run / "checkpoints" / "best.ckpt", checkpoint_content(module))
    text = check(write_report(run)).text
    each = ", ".join(f"{n} {t}" for n, t in zip(module.classes.names, ("0.90", "0.55", "0.60"), strict=True))
    assert text.count(f"score more than the threshold of their class ({each})") == 2


def test_score_run__keeps_what_it_computed(tmp_path: Path, coco_root: Path) -> None:
    data = DetectionData(root=coco_root, image_size=(160, 160), workers=0)
    data.open()
    module = build_detector(MODEL)
    module.classes = data.classes
    metrics = score_run(tmp_path, module, data)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics.to_json()
    assert len(json.loads((tmp_path / "ground_truth.json").read_text())["images"]) == 4
    assert isinstance(json.loads((tmp_path / "detections.json").read_text()), list)

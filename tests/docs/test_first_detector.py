"""The walk of docs/first-detector.md: its commands run, and print what the page shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from detect.commands.main import main
from tests.docs.test_commands import SMALL_RUN
from tests.documents import ROOT

PAGE = ROOT / "docs" / "first-detector.md"
STEP = re.compile(
    r"```bash\n(?:bash scripts/install [^\n]*\n)?(detect [^`]*)\n```\n+```text\n(.*?)```", re.DOTALL
)
"""A command, after the line that installs what it needs, and what it prints."""
SMALLER = {"init": "--start none", "fit": SMALL_RUN}
"""Appended, so that the walk takes a minute."""
FINDINGS = {"data"}
"""Commands that end with 1, for the images here repeat themselves."""


def label(folder: Path, *, images: int) -> None:
    """One class in VOC files, as labelImg leaves them, and photographs that nobody has labelled."""
    assert main(["data", "shapes", str(folder / "coco"), "--train", str(images), "--val", "6"]) == 0
    assert main(["data", "convert", str(folder / "coco"), "--to", "voc", "--out", str(folder / "voc")]) == 0
    for kind, name in (("JPEGImages", "images"), ("Annotations", "annotations")):
        (folder / "photos" / name).mkdir(parents=True)
        for file in (folder / "voc" / kind).iterdir():
            shutil.copy(file, folder / "photos" / name / f"raccoon-{file.name}")
    for file in (folder / "photos" / "annotations").iterdir():
        text = re.sub("<filename>", "<filename>raccoon-", file.read_text())
        file.write_text(re.sub(r"(<object>\s*<name>)\w+", r"\1raccoon", text))
    one = next((folder / "photos" / "images").iterdir())
    shutil.copy(one, one.with_stem("raccoon-1000"))  # an image that is there twice
    shutil.copy(
        folder / "photos" / "annotations" / f"{one.stem}.xml", folder / "photos/annotations/raccoon-1000.xml"
    )
    shutil.copytree(folder / "coco" / "unseen", folder / "new_photos")


def first_words(text: str) -> set[str]:
    """The first word of each line, digits as 0; a line of three dots stands for others."""
    words = [line.split()[0] for line in text.splitlines() if line.strip()]
    return {re.sub(r"\d+", "0", word) for word in words if word != "..."}


@pytest.mark.slow
def test_the_walk_prints_what_the_page_shows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    label(tmp_path, images=30)
    monkeypatch.chdir(tmp_path)
    steps = STEP.findall(PAGE.read_text())
    assert [command.split()[1] for command, _ in steps] == [
        "data",
        "init",
        "data",
        "fit",
        "predict",
        "export",
    ]
    for command, shown in steps:
        words = command.split()[1:]
        capsys.readouterr()
        caplog.clear()
        code = main([*words, *SMALLER.get(words[0], "").split()])
        printed = "".join(capsys.readouterr()) + "\n".join(caplog.messages)
        assert code <= (words[0] in FINDINGS), command
        missing = first_words(shown) - first_words(printed)
        assert missing == set(), f"{command}\n{printed}"
    assert (tmp_path / "runs" / "raccoon-001" / "report.html").is_file()
    assert (tmp_path / "found" / "detections.json").is_file()
    assert (tmp_path / "raccoon.onnx").is_file()

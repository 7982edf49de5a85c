"""`detect predict` on exported files, where only the packages of requirements/predict.txt can be imported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.commands.main import main
from tests.detector_cases import checkpoint, exported, photo
from tests.runtime_cases import needs
from tests.video_cases import times_and_frames, write_video

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_THE_REST = """
import json, re, sys
from importlib.metadata import packages_distributions

allowed, commands = map(json.loads, sys.argv[1:])
plain = lambda name: re.sub("[-_.]+", "-", name).lower()
others = {module for module, owners in packages_distributions().items()
          if not {plain(owner) for owner in owners} & {*allowed, "detect", "pip", "setuptools"}}
assert {"torch", "torchvision", "lightning", "matplotlib"} <= others

class Some:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in others else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Some, sys.meta_path)
from detect.commands.main import main

codes = []
for words in commands:
    print("$", *words, file=sys.stderr)
    codes.append(main(words))
print(json.dumps(codes))
"""


def run_without_torch(*commands: list[str], also: tuple[str, ...] = ()) -> tuple[list[int], str, list[str]]:
    """Exit codes, what stood on standard output, and of each command what it wrote on standard error.

    Args:
        commands: words of each.
        also: packages that may be imported besides.
    """
    lines = (ROOT / "requirements" / "predict.txt").read_text().splitlines()
    allowed = [*also, *(line.partition("==")[0] for line in lines if not line.startswith("#"))]
    words = [sys.executable, "-c", WITHOUT_THE_REST, json.dumps(allowed), json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    output, _, codes = done.stdout.rstrip().rpartition("\n")
    return json.loads(codes), output, re.split(r"^\$ .*\n", done.stderr, flags=re.MULTILINE)[1:]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(seed=1).save(folder / "a.jpg", quality=95, exif=exif)
    photo(90, 140, seed=2).save(folder / "deeper" / "b.png")
    return folder


def predict(model: Path, source: Path | str, out: Path, *more: str) -> list[str]:
    return ["predict", "--model", str(model), "--source", str(source), "--out", str(out), *more]


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.slow
@needs("openvino", "openvino")
def test_every_form_gives_what_it_gives_with_torch(photos: Path, tmp_path: Path) -> None:
    files = {form: exported(form=form) for form in ("raw", "nms")} | {
        "decoded": exported("openvino", "decoded")
    }
    commands = [predict(file, photos, tmp_path / name) for name, file in files.items()]
    commands.append(predict(files["raw"], photos / "**" / "*.png", tmp_path / "yolo", "--format", "yolo"))
    codes, output, errors = run_without_torch(*commands)
    assert (codes, errors) == ([0] * 4, [""] * 4)
    assert "detections in 2 images, written to" in output
    for name, file in files.items():
        assert main(predict(file, photos, tmp_path / f"{name}-torch")) == 0
        assert written(tmp_path / name) == written(tmp_path / f"{name}-torch")
        assert written(tmp_path / name).keys() == {"a.jpg", "b.png", "detections.json"}
    assert {"data.yaml", "labels/b.txt"} < written(tmp_path / "yolo").keys()

    assert main(predict(checkpoint(), photos, tmp_path / "checkpoint")) == 0
    wanted = json.loads((tmp_path / "checkpoint" / "detections.json").read_text())
    assert len(wanted) > 5
    for name in files:
        rows = json.loads((tmp_path / name / "detections.json").read_text())
        assert [row["category_name"] for row in rows] == [row["category_name"] for row in wanted]
        np.testing.assert_allclose([r["bbox"] for r in rows], [r["bbox"] for r in wanted], atol=0.1)


def test_a_video_needs_pyav_alone(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = write_video(tmp_path / "a.mp4", 4)
    codes, output, errors = run_without_torch(predict(exported(), video, tmp_path / "out"), also=("av",))
    assert (codes, errors) == ([0], [""])
    assert "detections in 4 frames, written to" in output
    assert main(predict(exported(), video, tmp_path / "torch")) == 0
    assert (tmp_path / "out" / "detections.json").read_bytes() == (
        tmp_path / "torch" / "detections.json"
    ).read_bytes()
    assert len(times_and_frames(tmp_path / "out" / "a.mp4")[0]) == 4
    codes, _, errors = run_without_torch(predict(exported(), video, tmp_path / "none"))
    assert codes == [2]
    assert re.search(r"^detect: a video, camera or stream needs the package av, .*'\.\[video\]'", errors[0])


def test_help_and_faults_are_sentences(photos: Path, tmp_path: Path) -> None:
    foreign, broken = tmp_path / "foreign.onnx", photos / "broken.jpg"
    foreign.write_bytes(b"no graph")
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    codes, output, errors = run_without_torch(
        ["predict", "--help"],
        predict(tmp_path / "missing.onnx", photos, out),
        predict(foreign, photos, out),
        predict(checkpoint(), photos, out),
        predict(exported(), tmp_path / "nothing", out),
        predict(exported(), photos, out, "--classes", "dics"),
        predict(exported(), photos, out, "--score_threshold", "0.001"),
        ["models"],
        predict(exported(), photos, out),
    )
    assert codes == [0, 2, 2, 2, 2, 2, 2, 2, 1]
    assert output.startswith("usage: detect predict")
    assert f"{broken}: cannot identify image file" in output
    sentences = [
        r"missing\.onnx: no such file",
        r"foreign\.onnx: ONNX Runtime cannot load it",
        r"small\.ckpt needs the package torch, which is not installed: `pip install",
        r"nothing: no image there",
        r"did you mean 'disc'\?",
        r"the file was exported with 0\.01 in its graph",
        r"`detect models` needs the package torch, which is not installed",
    ]
    for sentence, error in zip(sentences, errors[1:-1], strict=True):
        assert error.startswith("detect: ")
        assert re.search(sentence, error)
        assert len(error.splitlines()) == 1

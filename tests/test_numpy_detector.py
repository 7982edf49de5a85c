import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.api import Detector
from detect.data.augment.view import resize_pixels
from detect.deploy.exported_file import json_path
from tests.detector_cases import IMAGE_SIZE, exported, lively_detector, photo

EXAMPLE = Path(__file__).parents[1] / "examples" / "numpy_detector.py"
spec = importlib.util.spec_from_file_location("numpy_detector", EXAMPLE)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


def test_example__is_short_and_needs_three_packages():
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 100
    imports = {
        line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))
    }
    assert imports == {"json", "math", "sys", "numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize("rule", ["antialias", "torchvision"])
@pytest.mark.parametrize("size", [(200, 150), (50, 300), (128, 96), (1, 1)])
def test_resize__is_ours(rule, size):
    picture = photo().resize(size)
    ours = resize_pixels(np.array(picture), (96, 128), rule)
    theirs = example.resize(picture, (96, 128), rule)[0].transpose(1, 2, 0)
    assert theirs.dtype == ours.dtype
    # Pillow and torch round halves of the antialiased resize differently in single places.
    atol = 1 if rule == "antialias" else 1e-2
    np.testing.assert_allclose(theirs.astype(float), ours.astype(float), atol=atol)


@pytest.mark.parametrize(
    "postprocess",
    [
        {},
        {"score_threshold": 0.3, "nms_threshold": 0.3},
        {"topk_candidates": 20, "max_detections": 5},
        {"topk_per_class": 30, "topk_candidates": None, "max_detections": 300},
    ],
)
def test_decode_and_nms__are_ours(postprocess):
    module = lively_detector(postprocess=postprocess)
    image = photo()
    images = Detector(module, device="cpu").prepare([np.array(image)]).images
    head_outputs = [output.detach().numpy() for output in module.net(images)[:2]]

    class Session:
        def run(self, names, inputs):
            return head_outputs

    meta = module.describe()
    meta["export"] = {"anchors": module.net.anchors.numpy()}
    boxes, scores, labels = example.detect(Session(), meta, image)
    threshold = meta["postprocess"]["score_threshold"]
    ours = Detector(module, device="cpu").predict(image, score_threshold=threshold)
    assert len(ours.scores) >= 5
    np.testing.assert_array_equal(labels, ours.labels)
    np.testing.assert_allclose(scores, ours.scores, atol=1e-5)
    np.testing.assert_allclose(boxes, ours.boxes, atol=1e-2)


@pytest.mark.slow
def test_example__on_a_file_equals_ours(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    # Turned it has the size of the input: what a resize rounds otherwise, random weights would make much of.
    photo(IMAGE_SIZE[0], IMAGE_SIZE[1]).save(path, exif=exif)
    model = exported(form="raw")
    session, meta = example.load(str(model))
    boxes, scores, labels = example.detect(session, meta, Image.open(path))
    ours = Detector.load(model).predict(path, score_threshold=meta["postprocess"]["score_threshold"])
    np.testing.assert_array_equal(labels, ours.labels)
    np.testing.assert_allclose(scores, ours.scores, atol=1e-5)
    np.testing.assert_allclose(boxes, ours.boxes, atol=1e-2)
    command = [sys.executable, str(EXAMPLE), str(model), str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(output.splitlines()) == len(labels)
    assert json_path(model).is_file()

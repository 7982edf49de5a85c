import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from detect.api import Detector
from detect.deploy.exported_file import describe_export
from detect.deploy.graphs import build_graph
from detect.deploy.runtimes.eager import EagerRuntime
from detect.deploy.spec import Form, ModelSpec
from detect.errors import InputError
from detect.model.detector import TorchDetector
from detect.types import HeadOutputs
from tests.detector_cases import CLASSES, IMAGE_SIZE, checkpoint, exported, lively_detector, photo


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(checkpoint(), device="cpu")


def test_predict__gives_boxes_inside_the_picture_best_first(detector):
    found = detector.predict(photo(200, 150), score_threshold=0.2)
    assert len(found.scores) > 0
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 0.2
    assert (found.boxes >= 0).all()
    assert found.boxes[:, 2].max() <= 200 + 1e-3
    assert found.boxes[:, 3].max() <= 150 + 1e-3
    assert found.boxes[:, 2].max() > IMAGE_SIZE[1]  # px of the picture, not of the input
    assert found.names == [CLASSES.names[label - 1] for label in found.labels]


def test_predict__equals_the_module_on_the_resized_picture(detector):
    picture = photo()
    inputs = detector.prepare([np.array(picture)])
    expected = lively_detector()(inputs.images)
    found = detector.predict(picture, score_threshold=0.01)  # the module's own
    assert found.labels.tolist() == expected.labels[0].tolist()
    scale = np.array([200 / IMAGE_SIZE[1], 150 / IMAGE_SIZE[0]] * 2)
    np.testing.assert_allclose(found.boxes, expected.boxes[0].detach().numpy() * scale, rtol=1e-4, atol=1e-3)


def test_predict_batch__equals_one_by_one(detector):
    pictures = [photo(seed=1), photo(90, 140, seed=2), photo(333, 50, seed=3)]
    together = detector.predict_batch(pictures)
    for picture, of_batch in zip(pictures, together, strict=True):
        alone = detector.predict(picture)
        assert alone.names == of_batch.names
        np.testing.assert_allclose(alone.boxes, of_batch.boxes, atol=1e-2)
        np.testing.assert_allclose(alone.scores, of_batch.scores, atol=1e-5)


def test_predict__a_file_is_taken_as_its_picture(detector, tmp_path):
    picture = photo()
    picture.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_allclose(detector.predict(path).boxes, detector.predict(picture).boxes)


def test_predict__path_bytes_array_and_bgr_array_give_one_result(detector, tmp_path):
    photo().save(tmp_path / "a.jpg", quality=95)
    pixels = np.array(Image.open(tmp_path / "a.jpg"))
    wanted = detector.predict(tmp_path / "a.jpg", score_threshold=0.1)
    assert len(wanted.scores) > 3
    encoded = (tmp_path / "a.jpg").read_bytes()
    of_list = detector.predict([str(tmp_path / "a.jpg"), encoded, pixels], score_threshold=0.1)
    for found in (
        detector.predict(encoded, score_threshold=0.1),
        detector.predict(pixels, score_threshold=0.1),
        detector.predict(pixels[..., ::-1], bgr=True, score_threshold=0.1),
    ):
        for part, of_path in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(part, of_path)
    for found in of_list:  # in one pass of the network, which rounds otherwise
        assert found.names == wanted.names
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-2)


def test_predict__a_list_goes_through_in_parts(detector, monkeypatch):
    monkeypatch.setattr("detect.deploy.inference.LIST_BATCH", 2)
    sizes = []
    real = Detector.predict_pixels
    monkeypatch.setattr(Detector, "predict_pixels", lambda self, p: sizes.append(len(p)) or real(self, p))
    images = [photo(seed=seed) for seed in range(5)]
    assert len(detector.predict(images)) == 5
    assert sizes == [2, 2, 1]
    assert detector.predict([]) == []


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16", "1", "LA"])
def test_predict__an_image_of_any_mode_is_taken_as_rgb(detector, mode):
    grey = photo().convert("L")
    if mode == "I;16":
        image, same = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), grey
    else:
        image = same = (grey if mode == "LA" else photo()).convert(mode)
    assert image.mode == mode
    found = detector.predict(image, score_threshold=0.01)
    assert len(found.scores) > 0
    np.testing.assert_array_equal(
        found.boxes, detector.predict(same.convert("RGB"), score_threshold=0.01).boxes
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (5, 5)])
def test_predict__boxes_of_tiny_images_are_px_of_the_image(detector, size):
    found = detector.predict(photo().resize(size), score_threshold=0.0)
    assert len(found.scores) > 0
    assert (found.boxes >= 0).all()
    # The network sees the image stretched, and finds boxes up to the border of it.
    np.testing.assert_allclose(found.boxes.max(axis=0)[2:], size, rtol=1e-3)


def test_predict__turns_pictures_upright(detector, tmp_path):
    upright = photo(120, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        detector.predict(tmp_path / "turned.png").boxes, detector.predict(upright).boxes
    )


def test_predict__nothing_above_the_threshold(detector):
    found = detector.predict(photo(), score_threshold=0.9999)
    assert found.boxes.shape == (0, 4)
    assert found.names == []


@pytest.fixture(scope="module", params=["torch", "raw", "decoded"])
def strict_detector(request: pytest.FixtureRequest) -> Detector:
    """A model with a threshold of its own at 0.3, and NMS outside of the graph."""
    strict = lively_detector(postprocess={"score_threshold": 0.3})
    if request.param == "torch":
        return Detector(strict, device="cpu")
    return Detector(GraphRuntime(strict, request.param))


class GraphRuntime(EagerRuntime):
    """An exported graph without the exporter: torch runs it."""

    def __init__(self, detector: TorchDetector, form: Form) -> None:
        super().__init__(detector, device="cpu")
        self.graph = build_graph(detector, form)
        description = describe_export(
            detector, form=form, format="onnx", precision="fp32", checkpoint=checkpoint()
        )
        self.spec = ModelSpec.from_description(description)

    @torch.inference_mode()
    def run_batch(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.graph(images)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 0.6])
def test_predict__the_threshold_given_replaces_the_models(strict_detector, threshold):
    module = lively_detector(postprocess={"score_threshold": threshold})
    image = photo()
    inputs = strict_detector.prepare([np.array(image)])
    exported = isinstance(strict_detector.runtime, GraphRuntime)
    with torch.inference_mode():
        outputs = (build_graph(module, "raw") if exported else module.net)(inputs.images)[:2]
    wanted = module.detections(HeadOutputs(*outputs), inputs.orig_size)
    found = strict_detector.predict(image, score_threshold=threshold)
    assert len(found.scores) > 0
    np.testing.assert_allclose(found.scores, wanted.scores[0], atol=1e-6)
    np.testing.assert_allclose(found.boxes, wanted.boxes[0], atol=1e-3)
    assert strict_detector.score_threshold == 0.3  # of other calls


def test_predict__a_detection_scores_more_than_the_threshold(detector):
    scores = detector.predict(photo(), score_threshold=0.2).scores
    assert len(scores) > 1
    again = detector.predict(photo(), score_threshold=float(scores[-1])).scores
    np.testing.assert_array_equal(again, scores[scores > scores[-1]])


def test_predict__a_graph_with_nms_keeps_the_threshold_that_was_built_in():
    of_graph = Detector(GraphRuntime(lively_detector(postprocess={"score_threshold": 0.4}), "nms"))
    default = of_graph.predict(photo())
    assert 0.4 < default.scores.min()
    np.testing.assert_array_equal(of_graph.predict(photo(), score_threshold=0.4).scores, default.scores)
    some = of_graph.predict(photo(), score_threshold=0.5).scores
    np.testing.assert_array_equal(some, default.scores[default.scores > 0.5])
    assert len(some) < len(default.scores)
    message = r"score_threshold is 0\.3, but the file was exported with 0\.4 .* --score_threshold 0\.3"
    with pytest.raises(InputError, match=message):
        of_graph.predict(photo(), score_threshold=0.3)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 30])
def test_predict__a_threshold_out_of_range_is_refused(detector, threshold):
    with pytest.raises(InputError, match=f"score_threshold is {threshold}; give a value from 0 to below 1"):
        detector.predict(photo(), score_threshold=threshold)


def test_predict__names_a_missing_file(detector, tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jpg"):
        detector.predict(tmp_path / "nothing.jpg")


def test_load__an_exported_file_detects_what_the_checkpoint_does(detector):
    picture = photo()
    of_file = Detector.load(exported(), threads=1).predict(picture, score_threshold=0.1)
    of_checkpoint = detector.predict(picture, score_threshold=0.1)
    assert of_file.names == of_checkpoint.names
    np.testing.assert_allclose(of_file.scores, of_checkpoint.scores, atol=1e-4)
    np.testing.assert_allclose(of_file.boxes, of_checkpoint.boxes, atol=0.05)


def test_load__refuses_what_is_no_model(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.ckpt: cannot be read"):
        Detector.load(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"b\.onnx: no such file"):
        Detector.load(tmp_path / "b.onnx")


def test_detector__refuses_a_module_without_classes():
    module = lively_detector()
    module.classes = None
    with pytest.raises(InputError, match="knows no classes"):
        Detector(module)


def test_detect__refuses_images_of_another_size(detector):
    with pytest.raises(ValueError, match="the network takes"):
        detector.detect(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([[8, 8]]))


HEAVY = ("torch", "jsonargparse", "lightning", "matplotlib", "pycocotools")


@pytest.mark.parametrize(
    ("module", "heavy"), [("detect.api", HEAVY), ("detect.deploy.export", ("lightning", "matplotlib"))]
)
def test_importing_it_loads_no_torch_trainer_parser_evaluator_or_plotter(
    module: str, heavy: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

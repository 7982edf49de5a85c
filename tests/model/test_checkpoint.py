import os
from pathlib import Path

import pytest
import torch

from detect.errors import InputError
from detect.model.checkpoint import (
    build_detector,
    build_from_checkpoint,
    checkpoint_content,
    read_checkpoint,
    write_checkpoint,
)
from detect.model.checkpoint_format import FORMAT_VERSION
from detect.model.detector import TorchDetector
from detect.types import ClassMap

SETTINGS = {
    "backbone": {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}},
    "num_classes": 2,
    "image_size": [64, 96],
    "postprocess": {"score_threshold": 0.2},
}


@pytest.fixture
def detector() -> TorchDetector:
    built = build_detector(SETTINGS)
    built.classes = ClassMap(("cat", "dog"), (17, 18))
    return built.eval()


def save(detector: TorchDetector, path: Path, **changes: object) -> Path:
    content = checkpoint_content(detector)
    write_checkpoint(path, content | {"detect": content["detect"] | changes})
    return path


def test_a_checkpoint_alone_gives_the_same_detector(detector: TorchDetector, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(detector, tmp_path / "a.ckpt"))
    loaded = build_from_checkpoint(checkpoint)
    assert loaded.classes == detector.classes
    assert loaded.describe() == detector.describe()
    assert not loaded.training
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        for one, other in zip(loaded.net(images)[:2], detector.net(images)[:2], strict=True):
            assert one.equal(other)


def test_settings_that_no_detector_takes_are_refused() -> None:
    with pytest.raises(InputError, match=r"image_sise"):
        build_detector({**SETTINGS, "image_sise": [64, 64]})


@pytest.mark.parametrize(
    "class_path",
    [
        "subprocess.Popen",
        "detect.model.backbones.pretrained.subprocess.Popen",
        "detect.training.losses",
        "torch.optimx.SGD",
    ],
)
def test_classes_that_are_not_trusted_are_refused_before_import(
    class_path: str, detector: TorchDetector, tmp_path: Path
) -> None:
    for where in ({"class_path": class_path}, class_path):
        path = save(detector, tmp_path / "a.ckpt", model={**SETTINGS, "backbone": where})
        with pytest.raises(InputError, match=f"asks for the class '{class_path}'"):
            read_checkpoint(path)


def test_a_newer_format_is_refused(detector: TorchDetector, tmp_path: Path) -> None:
    path = save(detector, tmp_path / "a.ckpt", format_version=FORMAT_VERSION + 1)
    with pytest.raises(InputError, match=f"format version {FORMAT_VERSION + 1}; this detect reads 1 up to"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(InputError, match=r"a.ckpt: no such checkpoint"):
        read_checkpoint(path)
    path.write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"a.ckpt: cannot be read as a checkpoint: it is broken") as raised:
        read_checkpoint(path)
    assert "weights_only" not in str(raised.value)  # torch advises to trust the file
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(
        InputError, match=r"a.ckpt: not a checkpoint of detect; .* convert-weights torchvision"
    ):
        read_checkpoint(path)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch stolen",)


def test_reading_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"detect": RunsCode(), "state_dict": {}}, "a.ckpt")
    with pytest.raises(InputError, match=r"cannot be read as a checkpoint"):
        read_checkpoint(Path("a.ckpt"))
    assert os.listdir() == ["a.ckpt"]


def test_weights_of_another_network_are_refused(detector: TorchDetector, tmp_path: Path) -> None:
    path = save(detector, tmp_path / "a.ckpt", model={**SETTINGS, "num_classes": 5})
    with pytest.raises(InputError, match=r"weights do not fit the settings in the file"):
        build_from_checkpoint(read_checkpoint(path))


def test_a_failed_write_leaves_the_old_checkpoint(
    detector: TorchDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(detector, tmp_path / "a.ckpt")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(detector, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]

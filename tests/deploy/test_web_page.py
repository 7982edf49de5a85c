"""`detect export --format web`, in headless Chromium: its detections are those of `detect predict`."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from detect.commands.main import main
from detect.data.images.decode import load_pixels
from detect.data.images.resize import input_array
from detect.deploy import web_page
from detect.deploy.array_postprocess import suppress
from detect.deploy.export import ExportOptions
from detect.deploy.onnxruntime_web import FILES, copy_runtime, find_package
from detect.deploy.web_page import PAGE, export_page, page_settings
from detect.errors import InputError
from detect.model.thresholds import PostProcessConfig
from detect.types import ResizeRule
from tests.browser import CHROMIUM, Browser, static_server
from tests.deploy.test_onnxruntime_web import unpacked
from tests.detector_cases import IMAGE_SIZE, lively_detector, photo, save_checkpoint

pytestmark = pytest.mark.slow

OWN = (0.45, 0.4, 0.5)
"""Thresholds of the classes."""
SIZES = [(200, 150), (128, 96), (61, 203), (2100, 2000)]
"""Width and height: larger than the input, equal, smaller and larger, more than one strip."""
CAMERA = (320, 240)
READY = "document.getElementById('status').textContent.startsWith('Ready')"
Row = dict[str, Any]


def detector_file(path: Path, *, resize_rule: ResizeRule = "antialias") -> Path:
    detector = lively_detector()
    detector.resize_rule = resize_rule
    if resize_rule == "antialias":
        config = replace(detector.postprocess.config, class_thresholds=OWN)
        detector.postprocess.config = config
    return save_checkpoint(detector, path)


def test_page_settings__where_the_threshold_begins(tmp_path: Path) -> None:
    description = {**lively_detector().describe(), "export": {"form": "decoded", "anchors": None}}
    assert page_settings(description, None)["score_threshold"] == 0.3
    assert page_settings(description, 0.2)["score_threshold"] == 0.2
    description["postprocess"]["class_thresholds"] = list(OWN)
    assert page_settings(description, None)["score_threshold"] == OWN
    assert page_settings(description, 0.2)["score_threshold"] == 0.2


def test_export_page__refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    no_file = tmp_path / "none.ckpt"
    with pytest.raises(InputError, match="full exists and is not an empty folder"):
        export_page(no_file, tmp_path / "full", ExportOptions())
    with pytest.raises(InputError, match="--form nms: the page takes decoded, and does NMS by itself"):
        export_page(no_file, tmp_path / "page", ExportOptions(form="nms"))
    arguments = ["--ckpt_path", str(no_file), "--out", str(tmp_path / "a.onnx"), "--onnxruntime_web", "x.tgz"]
    assert main(["export", "--format", "onnx", *arguments]) == 2
    assert "--onnxruntime_web is for --format web" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page and a checkpoint for each resize rule, and images; without the real runtime."""
    folder = tmp_path_factory.mktemp("pages")
    package = unpacked(folder / "package")
    for rule in get_args(ResizeRule):
        model = detector_file(folder / f"{rule}.ckpt", resize_rule=rule)
        arguments = ["--ckpt_path", str(model), "--out", str(folder / rule)]
        assert main(["export", "--format", "web", *arguments, "--onnxruntime_web", str(package)]) == 0
    for i, size in enumerate(SIZES):
        photo(*size, seed=i).save(folder / f"{i}.png")
    return folder


def test_export_page__all_that_it_needs(pages: Path) -> None:
    found = {file.name for file in (pages / "antialias").iterdir()}
    assert found == {
        *(file.name for file in PAGE.iterdir()),
        *("model.onnx", "model.onnx.json", "model.onnx.md", "settings.json", "onnxruntime"),
    }
    runtime = {file.name for file in (pages / "antialias" / "onnxruntime").iterdir()}
    assert runtime == set(FILES.values())
    content = json.loads((pages / "antialias" / "model.onnx.json").read_text())
    assert content["export"]["form"] == "decoded"
    assert content["postprocess"]["class_thresholds"] == list(OWN)


def test_export_page__nothing_is_left_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise InputError("differs from PyTorch")

    model, package = detector_file(tmp_path / "a.ckpt"), unpacked(tmp_path / "package")
    monkeypatch.setattr(web_page, "write_with_card", fail)
    with pytest.raises(InputError, match="differs"):
        export_page(model, tmp_path / "page", ExportOptions(), package)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ckpt", "package"]


def test_page__names_no_other_server() -> None:
    for file in PAGE.iterdir():
        assert "://" not in file.read_text(encoding="utf-8"), file.name


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest) -> Path:
    """onnxruntime-web, kept with what pytest keeps."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian's package: chromium)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECT_CACHE", str(request.config.cache.mkdir("onnxruntime-web")))
        try:
            return find_package(None)
        except InputError as error:
            pytest.skip(f"onnxruntime-web cannot be had: {error}")


@pytest.fixture(scope="module")
def server(pages: Path, package: Path) -> Iterator[str]:
    """The pages, now with the real runtime."""
    for rule in get_args(ResizeRule):
        shutil.rmtree(pages / rule / "onnxruntime")
        copy_runtime(package, pages / rule / "onnxruntime")
    with static_server(pages) as url:
        yield url


@pytest.fixture(scope="module")
def browser(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    write_y4m(folder / "camera.y4m", photo(*CAMERA, seed=9))
    started = Browser(
        folder / "profile",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
    )
    yield started
    started.close()


def write_y4m(path: Path, image: Image.Image) -> None:
    """A video of one frame, YUV 4:2:0."""
    y, cb, cr = image.convert("YCbCr").split()
    half = (image.width // 2, image.height // 2)
    planes = [y, *(plane.resize(half, Image.Resampling.BOX) for plane in (cb, cr))]
    header = f"YUV4MPEG2 W{image.width} H{image.height} F10:1 Ip A1:1 C420jpeg\nFRAME\n".encode()
    path.write_bytes(header + b"".join(plane.tobytes() for plane in planes))


def predicted(model: Path, source: Path, output: Path, *arguments: str) -> list[Row]:
    command = ["predict", "--ckpt_path", str(model), "--source", str(source), "--out", str(output)]
    assert main([*command, "--draw", "false", *arguments]) == 0
    rows: list[Row] = json.loads((output / "detections.json").read_text())
    return rows


def saved(browser: Browser, folder: Path) -> list[Row]:
    """What the button saves."""
    browser.downloads_to(folder)
    browser.evaluate("document.getElementById('save-json').click()")
    browser.wait("document.getElementById('status').textContent.startsWith('detections.json')")
    file = folder / "detections.json"
    for _ in range(200):
        if file.is_file():
            break
        browser.evaluate("new Promise((done) => setTimeout(done, 50))")
    rows: list[Row] = json.loads(file.read_text())
    file.unlink()
    return rows


def assert_same(found: list[Row], wanted: list[Row], *, least: int = 5) -> None:
    """Every detection has its own twin of the same class, within 1 px and 1e-3."""
    assert len(found) == len(wanted) >= least
    rest = list(found)
    for row in wanted:
        twin = next((one for one in rest if is_twin(one, row)), None)
        assert twin is not None, row
        rest.remove(twin)


def is_twin(one: Row, other: Row) -> bool:
    names = ("image_id", "category_id", "category_name")
    near = np.abs(np.subtract(one["bbox"], other["bbox"])).max() <= 1
    return (
        all(one[name] == other[name] for name in names)
        and near
        and abs(one["score"] - other["score"]) <= 1e-3
    )


@pytest.mark.parametrize("rule", ["antialias", "torchvision"])
def test_resize__to_the_value(browser: Browser, server: str, pages: Path, rule: ResizeRule) -> None:
    browser.open(f"{server}/antialias/settings.json")
    for i in range(len(SIZES)):
        code = f"""(async () => {{
          const {{ resize }} = await import("{server}/antialias/resize.js");
          const image = await createImageBitmap(await (await fetch("/{i}.png")).blob());
          const values = resize(image, {list(IMAGE_SIZE)}, "{rule}");
          const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
          return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        }})()"""
        wanted = input_array([load_pixels(pages / f"{i}.png")], IMAGE_SIZE, rule)
        found = np.frombuffer(base64.b64decode(browser.evaluate(code)), wanted.dtype).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "limits",
    [{}, {"topk_candidates": 40}, {"topk_per_class": 12, "topk_candidates": None}, {"max_detections": 7}],
    ids=lambda limits: "-".join(limits) or "default",
)
def test_find__as_in_numpy(browser: Browser, server: str, limits: dict[str, int | None]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 500, (300, 3)).astype(np.float32) / 500  # many are equal
    corner = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 40, (300, 2)).round(-1)], axis=1)
    boxes = boxes.astype(np.float32)
    config = PostProcessConfig(score_threshold=OWN, nms_threshold=0.3, **limits)  # type: ignore[arg-type]
    wanted = suppress(scores, boxes, config)
    names = ("nms_threshold", "max_detections", "topk_candidates", "topk_per_class")
    given = {name: getattr(config, name) for name in names}
    browser.open(f"{server}/antialias/settings.json")
    code = f"""(async () => {{
      const {{ find }} = await import("{server}/antialias/find.js");
      const settings = {{ thresholds: {list(OWN)}, postprocess: {json.dumps(given)}, imageSize: [96, 128],
        origSize: [192, 128] }};
      const [scores, boxes] = {json.dumps([scores.ravel().tolist(), boxes.ravel().tolist()])};
      return find(Float32Array.from(scores), Float32Array.from(boxes), settings);
    }})()"""
    found = browser.evaluate(code)
    assert [row["label"] for row in found] == wanted.labels.tolist()
    assert [row["score"] for row in found] == wanted.scores.tolist()
    assert [row["box"] for row in found] == (wanted.boxes * np.float32([1, 2, 1, 2])).tolist()


def open_with_files(browser: Browser, url: str, files: list[Path], **window: Any) -> None:
    browser.open(url, **window)
    browser.wait(READY)
    browser.choose_files("#choose", files)
    browser.wait(f"document.getElementById('status').textContent.startsWith('{files[0].name}: ')")


@pytest.fixture(scope="module")
def awkward_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG upright and turned by EXIF, PNG with transparency and with a gamma, GIF, grey."""
    folder = tmp_path_factory.mktemp("images")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(seed=1).save(folder / "plain.jpg", quality=90)
    photo(seed=2).save(folder / "turned.jpg", quality=90, exif=turned)
    clear = photo(seed=3).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    photo(seed=4).save(folder / "palette.gif")
    photo(seed=5).convert("L").save(folder / "grey.png")
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", struct.pack(">I", 100_000))  # browsers show such images in other colours
    photo(seed=6).save(folder / "gamma.png", pnginfo=linear)
    return folder


def test_files__equal_detect_predict(
    browser: Browser, server: str, pages: Path, awkward_images: Path, tmp_path: Path
) -> None:
    model, files = pages / "antialias.ckpt", sorted(awkward_images.iterdir())
    open_with_files(browser, f"{server}/antialias/", files)
    assert_same(saved(browser, tmp_path), predicted(model, awkward_images, tmp_path / "own"))
    browser.evaluate("""{ const slider = document.getElementById("threshold"); slider.value = 0.35;
      slider.dispatchEvent(new Event("input")); }""")
    browser.evaluate("document.querySelector('#classes input').click()")  # no squares
    arguments = ["--score_threshold", "0.35", "--classes", "disc", "bar"]
    found = saved(browser, tmp_path)
    assert_same(found, predicted(model, awkward_images, tmp_path / "one", *arguments))
    shown = browser.wait("document.getElementById('canvas').getAttribute('aria-label')")
    assert shown.startswith("clear.png: ")
    assert "square" not in shown
    assert "disc" in shown
    assert [line for line in browser.log if "adapters" not in line] == []  # there is no GPU
    addresses = browser.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
    assert {"app.js", "model.onnx.json"} <= {address.rpartition("/")[2] for address in addresses}
    assert all(address.startswith((server, "blob:")) for address in addresses)


def test_rule_of_torchvision__equals_detect_predict(
    browser: Browser, server: str, pages: Path, awkward_images: Path, tmp_path: Path
) -> None:
    open_with_files(browser, f"{server}/torchvision/", sorted(awkward_images.iterdir()))
    wanted = predicted(pages / "torchvision.ckpt", awkward_images, tmp_path / "out")
    assert_same(saved(browser, tmp_path), wanted)


def test_camera__equals_detect_predict_on_its_frame(
    browser: Browser, server: str, pages: Path, tmp_path: Path
) -> None:
    browser.open(f"{server}/antialias/")
    browser.wait(READY)
    browser.evaluate("document.getElementById('camera').click()")
    browser.wait("document.getElementById('timing').textContent.includes('frames per second')")
    live = saved(browser, tmp_path)
    browser.evaluate("document.getElementById('photo').click()")
    browser.wait("document.getElementById('status').textContent.startsWith('photo.png: ')")
    encoded = browser.evaluate("""(async () => {
      const file = await (await fetch(document.querySelector("#files img").src)).arrayBuffer();
      return btoa(Array.from(new Uint8Array(file), (byte) => String.fromCharCode(byte)).join(""));
    })()""")
    (tmp_path / "photo.png").write_bytes(base64.b64decode(encoded))
    frame = np.asarray(Image.open(tmp_path / "photo.png").convert("RGB")).astype(int)
    assert np.abs(frame - np.asarray(photo(*CAMERA, seed=9))).mean() < 8  # it is the file's, but for its YUV
    wanted = predicted(pages / "antialias.ckpt", tmp_path / "photo.png", tmp_path / "out")
    assert_same(saved(browser, tmp_path), wanted)
    assert_same([{**row, "image_id": "photo.png"} for row in live], wanted)


def test_phone__fits_its_width_and_every_control_has_a_name(
    browser: Browser, server: str, pages: Path
) -> None:
    open_with_files(browser, f"{server}/antialias/", [pages / "0.png"], width=360, height=740, mobile=True)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.evaluate("document.getElementById('canvas').getBoundingClientRect().width") > 300
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "radio", "slider", "combobox", "image", "form", "table"}
    named = {node["role"]["value"]: 0 for node in nodes}
    for node in nodes:
        if not node["ignored"] and (role := node["role"]["value"]) in roles:
            assert node["name"]["value"], node
            named[role] += 1
    assert named["button"] >= 6
    assert named["checkbox"] == 3
    assert named["radio"] == 2
    assert named["slider"] == 1


def test_not_an_image__says_so(browser: Browser, server: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    browser.open(f"{server}/antialias/")
    browser.wait(READY)
    browser.choose_files("#choose", [tmp_path / "broken.png"])
    browser.wait("document.getElementById('status').className === 'error'")
    shown = browser.evaluate("document.getElementById('status').textContent")
    assert shown == "broken.png: this browser cannot decode it."


def test_a_page_without_its_model__says_so(browser: Browser, server: str, pages: Path) -> None:
    (pages / "torchvision" / "model.onnx").rename(pages / "away.onnx")
    browser.open(f"{server}/torchvision/")
    browser.wait("document.getElementById('status').className === 'error'")
    shown = browser.evaluate("document.getElementById('status').textContent")
    assert shown == f"{server}/torchvision/model.onnx: the server answers 404"
    assert browser.evaluate("document.getElementById('camera').disabled")
    (pages / "away.onnx").rename(pages / "torchvision" / "model.onnx")

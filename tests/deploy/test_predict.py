import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.api import Detector, Prediction
from detect.commands.main import main
from detect.data.images.decode import load_image
from detect.deploy import predict as predict_module
from detect.deploy.predict import (
    PredictOptions,
    batches,
    decode,
    decode_ahead,
    labels_to_keep,
    nothing_found,
    predict,
)
from detect.deploy.prediction_files import find_images
from detect.errors import InputError
from tests.data_sets import claim_size
from tests.detector_cases import CLASSES, checkpoint, exported, lively_detector, photo

LOW = PredictOptions(score_threshold=0.05)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    photo(seed=1).save(folder / "a.jpg", quality=95)
    photo(90, 140, seed=2).save(folder / "b.png")
    photo(seed=3).save(folder / "deeper" / "a.webp", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


def rows_of(output: Path) -> list[dict]:
    return json.loads((output / "detections.json").read_text())


def test_predict__a_folder_gives_drawings_and_a_list(photos, tmp_path, capsys):
    assert predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=LOW) == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a-2.jpg", "a.jpg", "b.png", "detections.json"]
    assert Image.open(tmp_path / "out" / "b.png").size == (90, 140)
    rows = rows_of(tmp_path / "out")
    assert {row["file_name"] for row in rows} == {str(path) for path in find_images([str(photos)])}
    assert f"{len(rows)} detections in 3 images" in capsys.readouterr().out
    assert list(rows[0]) == ["image_id", "category_id", "bbox", "score", "file_name", "category_name"]


def test_predict__nothing_found__says_how_to_see_more(photos, tmp_path, capsys):
    options = PredictOptions(score_threshold=0.9999)
    assert predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=options) == 0
    assert "nothing scores more than 0.9999; a lower --score_threshold shows more" in capsys.readouterr().out


def test_nothing_found__advises_what_helps():
    of_file = Detector.load(exported(), threads=1)
    assert nothing_found(of_file).endswith(
        "0.01, the threshold that the file was exported with; export with a lower --score_threshold"
    )
    assert nothing_found(of_file.at_threshold(0.2)).endswith("0.2; a lower --score_threshold shows more")
    detector = Detector(lively_detector(), device="cpu")
    assert nothing_found(detector).endswith("0.01; a lower --score_threshold shows more")
    assert nothing_found(detector.at_threshold(0.0)) == "nothing scores more than 0.0"


def test_predict__lists_what_the_detector_finds(photos, tmp_path):
    predict(checkpoint(), [str(photos / "b.png")], output=tmp_path / "out", options=LOW)
    found = Detector.load(checkpoint()).predict(photos / "b.png", score_threshold=0.05)
    rows = rows_of(tmp_path / "out")
    assert [row["category_name"] for row in rows] == found.names
    assert [row["category_id"] for row in rows] == [CLASSES.category_id(label) for label in found.labels]
    np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-5)
    xywh = np.array([row["bbox"] for row in rows])
    np.testing.assert_allclose(xywh[:, :2] + xywh[:, 2:], found.boxes[:, 2:], atol=0.03)


def test_predict__batch_size_changes_nothing(photos, tmp_path):
    for size in (1, 3):
        options = PredictOptions(score_threshold=0.05, batch_size=size)
        predict(checkpoint(), [str(photos)], output=tmp_path / str(size), options=options)
    one, three = rows_of(tmp_path / "1"), rows_of(tmp_path / "3")
    assert [(r["file_name"], r["category_id"]) for r in one] == [
        (r["file_name"], r["category_id"]) for r in three
    ]
    np.testing.assert_allclose([r["bbox"] for r in one], [r["bbox"] for r in three], atol=0.05)


def test_predict__a_broken_file_is_named_and_skipped(photos, tmp_path, capsys):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (photos / "text.png").write_text("no picture")
    assert predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=LOW) == 1
    output = capsys.readouterr().out
    assert output.count("skipped:") == 2
    assert str(photos / "cut.jpg") in output
    assert str(photos / "text.png") in output
    assert "in 3 images" in output
    assert (tmp_path / "out" / "a.jpg").exists()


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "I;16", "rotated", "1 px"])
def test_predict__any_kind_of_picture(mode, tmp_path):
    picture = photo()
    exif = Image.Exif()
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif mode == "rotated":
        exif[0x0112] = 8
    elif mode == "1 px":
        picture = picture.resize((1, 1))
    else:
        picture = picture.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path, exif=exif)
    assert predict(checkpoint(), [str(path)], output=tmp_path / "out", options=LOW) == 0
    drawn = next(path for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    assert Image.open(drawn).size == load_image(path).size  # upright


def test_predict__keeps_some_classes(photos, tmp_path):
    options = PredictOptions(score_threshold=0.05, classes=["disc"])
    predict(checkpoint(), [str(photos)], output=tmp_path / "some", options=options)
    predict(checkpoint(), [str(photos)], output=tmp_path / "all", options=LOW)
    discs = [row for row in rows_of(tmp_path / "all") if row["category_name"] == "disc"]
    assert len(discs) > 0
    assert rows_of(tmp_path / "some") == discs


def test_labels_to_keep__names_the_nearest_class():
    assert labels_to_keep(["bar", "square"], CLASSES).tolist() == [3, 1]
    assert labels_to_keep(None, CLASSES) is None
    with pytest.raises(InputError, match=r"--classes dics: .* did you mean 'disc'"):
        labels_to_keep(["dics"], CLASSES)
    with pytest.raises(InputError, match="it knows square, disc, bar"):
        labels_to_keep(["elephant"], CLASSES)


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_predict__writes_annotations_without_drawings(format, photos, tmp_path):
    options = PredictOptions(score_threshold=0.05, format=format, draw=False)
    assert predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=options) == 0
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert (
        written
        == {
            "coco": {"annotations.json", "detections.json"},
            "voc": {"Annotations/a.xml", "Annotations/a-2.xml", "Annotations/b.xml", "detections.json"},
            "yolo": {"data.yaml", "labels/a.txt", "labels/a-2.txt", "labels/b.txt", "detections.json"},
        }[format]
    )


def test_predict__overwrites_no_source_and_nothing_of_others(photos, tmp_path):
    before = (photos / "a.jpg").read_bytes()
    with pytest.raises(InputError, match="would overwrite the source"):
        predict(checkpoint(), [str(photos / "a.jpg")], output=photos, options=LOW)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "b.png", other / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg exists there"):
        predict(checkpoint(), [str(photos / "a.jpg")], output=other, options=LOW)
    assert (photos / "a.jpg").read_bytes() == before
    assert (other / "a.jpg").read_bytes() == (photos / "b.png").read_bytes()
    assert sorted(path.name for path in other.iterdir()) == ["a.jpg"]


def test_predict__replaces_results_of_an_earlier_prediction(photos, tmp_path):
    for threshold in (0.05, 0.9999):
        options = PredictOptions(score_threshold=threshold)
        predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=options)
    assert rows_of(tmp_path / "out") == []


def test_predict__wrong_numbers(photos, tmp_path):
    with pytest.raises(InputError, match="--score_threshold is 30"):
        predict(checkpoint(), [str(photos)], output=tmp_path, options=PredictOptions(score_threshold=30))
    with pytest.raises(InputError, match=r"--score_threshold is 1\.0; give a value from 0 to below 1"):
        predict(checkpoint(), [str(photos)], output=tmp_path, options=PredictOptions(score_threshold=1.0))
    with pytest.raises(InputError, match="--batch_size is 0"):
        predict(checkpoint(), [str(photos)], output=tmp_path, options=PredictOptions(batch_size=0))


def test_predict__leaves_no_half_written_list(photos, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(predict_module, "draw", fail)
    with pytest.raises(OSError, match="disk full"):
        predict(checkpoint(), [str(photos)], output=tmp_path / "out", options=LOW)
    assert list((tmp_path / "out").iterdir()) == []


def test_decode_ahead__keeps_the_order_and_the_budget(tmp_path, monkeypatch):
    files = []
    for i in range(12):
        files.append(tmp_path / f"{i:02d}.png")
        photo(20 + i, 20).save(files[-1])
    picture_bytes = 31 * 20 * 3
    monkeypatch.setattr(predict_module, "BUDGET_BYTES", 3 * picture_bytes)
    started: list[Path] = []
    real = predict_module.decode
    monkeypatch.setattr(predict_module, "decode", lambda file: started.append(file) or real(file))
    taken = []
    with predict_module.ThreadPoolExecutor(2) as pool:
        for picture in decode_ahead(iter(files), pool):
            taken.append(picture.file)
            assert len(started) - len(taken) <= 4
    assert taken == files


def test_batches__are_smaller_for_large_pictures(monkeypatch):
    pixels = np.zeros((10, 10, 3), np.uint8)
    decoded = [predict_module.Decoded(Path(str(i)), pixels, None) for i in range(5)]
    decoded.insert(2, predict_module.Decoded(Path("x"), None, "cannot read x"))
    skipped: list[str] = []
    assert [len(batch) for batch in batches(iter(decoded), 4, skipped)] == [4, 1]
    assert skipped == ["cannot read x"]
    monkeypatch.setattr(predict_module, "BUDGET_BYTES", 600)
    assert [len(batch) for batch in batches(iter(decoded), 4, [])] == [2, 2, 1]


def test_predict_command__takes_model_or_ckpt_path(photos, tmp_path, capsys):
    arguments = ["--source", str(photos), "--output", str(tmp_path / "out"), "--draw", "false"]
    assert main(["predict", "--ckpt_path", str(checkpoint()), *arguments]) == 0
    assert main(["predict", *arguments]) == 2
    assert "give --ckpt_path or --model" in capsys.readouterr().err
    assert main(["predict", "--model", str(checkpoint()), *arguments, "--classes", "disc", "bar"]) == 0


@pytest.mark.parametrize(("words", "images"), [((), 3), (("--recursive",), 3), (("--recursive", "false"), 2)])
def test_predict_command__recursive(words, images, photos, tmp_path, capsys):
    arguments = ["--source", str(photos), "--out", str(tmp_path / "out"), "--draw", "false", *words]
    assert main(["predict", "--ckpt_path", str(checkpoint()), *arguments]) == 0
    assert f"detections in {images} images" in capsys.readouterr().out


@pytest.mark.slow
def test_predict__memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    photo(640, 480).save(tmp_path / "0.jpg")
    for i in range(1, 200):
        os.link(tmp_path / "0.jpg", tmp_path / f"{i}.jpg")
    monkeypatch.setattr(predict_module, "BUDGET_BYTES", 20_000_000)

    def resident_mb() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    options = replace(LOW, score_threshold=0.9)  # few boxes to draw
    predict(checkpoint(), [str(tmp_path / "1?.jpg")], output=tmp_path / "few", options=options)
    before = resident_mb()
    predict(checkpoint(), [str(tmp_path / "*.jpg")], output=tmp_path / "many", options=options)
    assert resident_mb() - before < 100  # the pictures have 184


def test_prediction__selects_by_label():
    prediction = Prediction(
        np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.array([1, 3, 1]), ["a", "b", "a"]
    )
    assert predict_module.select(prediction, np.array([1])).names == ["a", "a"]


def test_predict__overwrites_no_source_by_another_ones_drawing(photos, tmp_path):
    out = tmp_path / "out"
    predict(checkpoint(), [str(photos / "a.jpg")], output=out, options=LOW)
    before = (out / "a.jpg").read_bytes()
    with pytest.raises(InputError, match=r"would overwrite the source .*out/a\.jpg"):
        predict(checkpoint(), [str(photos / "a.jpg"), str(out / "a.jpg")], output=out, options=LOW)
    assert (out / "a.jpg").read_bytes() == before


def test_predict__leaves_a_runs_own_detections(photos, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "detections.json").write_text("[]")
    with pytest.raises(InputError, match=r"is a run, .*such as .*run/predictions"):
        predict(checkpoint(), [str(photos / "a.jpg")], output=run, options=LOW)


@pytest.mark.parametrize(
    ("label_format", "name"), [("yolo", "data.yaml"), ("voc", "Annotations"), ("coco", "annotations.json")]
)
def test_predict__leaves_label_files_of_others(label_format, name, photos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    options = PredictOptions(format=label_format)
    with pytest.raises(InputError, match=f"{name} exists there"):
        predict(checkpoint(), [str(photos / "a.jpg")], output=tmp_path / "mine", options=options)


def test_predict__a_folder_in_brackets_is_printed_as_it_is(photos, tmp_path, capsys):
    assert predict(checkpoint(), [str(photos / "a.jpg")], output=tmp_path / "of [anna]", options=LOW) == 0
    assert "of [anna]/detections.json" in capsys.readouterr().out


def test_decode__a_jpeg_that_claims_more_than_memory_holds__never_reaches_a_decoder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_size(photos / "a.jpg", 60_000, 60_000)
    monkeypatch.setattr(predict_module, "load_pixels", lambda file: pytest.fail(f"decoded {file}"))
    decoded = decode(photos / "a.jpg")
    assert decoded.pixels is None
    assert "3600000000 pixels" in str(decoded.error)


def test_predict__two_pictures_of_one_name_have_ids_of_their_own(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        photo(seed=1).save(tmp_path / folder / "a.jpg")
    photo(seed=2).save(tmp_path / "two" / "b.jpg")
    predict(
        checkpoint(), [str(tmp_path / "one"), str(tmp_path / "two")], output=tmp_path / "out", options=LOW
    )
    assert {row["image_id"] for row in rows_of(tmp_path / "out")} == {"one/a.jpg", "two/a.jpg", "b.jpg"}

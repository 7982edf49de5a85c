import json

import pytest

from detect.deploy.exported_file import (
    check_graph,
    describe_export,
    differences,
    expected_shapes,
    file_sha256,
    json_path,
    parts,
    read_description,
    sum_bytes,
    write_json,
)
from detect.errors import InputError
from tests.detector_cases import checkpoint, lively_detector


def described(form="decoded", format="onnx"):
    return describe_export(
        lively_detector(), form=form, format=format, precision="fp32", checkpoint=checkpoint()
    )


@pytest.fixture
def file(tmp_path):
    """A file whose content does not matter, with its FILE.json."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"graph")
    write_json(path, described(), None)
    return path


def test_describe_export__is_plain_and_complete():
    description = described("raw")
    assert json.loads(json.dumps(description)) == description
    assert len(description["export"]["anchors"]) == len(lively_detector().net.anchors)
    assert description["input"]["mean"] == [0.5, 0.5, 0.5]
    assert described("nms")["export"]["anchors"] is None
    assert "uint8" in description["export"]["input"]


def test_read_description__from_inside_and_from_beside(file):
    inside = json.dumps(described())
    assert read_description(file, inside) == described()
    assert read_description(file, None) == described()
    json_path(file).unlink()
    assert read_description(file, inside) == described()


def test_read_description__a_foreign_file_is_refused(file):
    json_path(file).unlink()
    with pytest.raises(InputError, match=r"a\.onnx: not exported by detect: .* no a\.onnx\.json beside it"):
        read_description(file, None)


def test_read_description__a_json_of_another_file_is_refused_with_both_hashes(file):
    old = file_sha256([file])
    file.write_bytes(b"another graph")
    new = file_sha256([file])
    with pytest.raises(InputError, match=f"sha256 {old[:12]}.*{new[:12]}.*one of them is stale"):
        read_description(file, None)


def test_read_description__a_json_that_says_otherwise_is_refused_with_the_difference(file):
    content = json.loads(json_path(file).read_text())
    content["input"]["image_size"] = [320, 320]
    content["postprocess"]["nms_threshold"] = 0.3
    json_path(file).write_text(json.dumps(content))
    with pytest.raises(InputError, match="differs from what") as caught:
        read_description(file, json.dumps(described()))
    assert "input.image_size: [320, 320] | [96, 128]" in str(caught.value)
    assert "postprocess.nms_threshold: 0.3 | 0.55" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"file": {}}', "[" * 50_000], ids=["list", "open", "empty", "deep"]
)
def test_read_description__a_json_of_another_program_is_refused(file, text):
    json_path(file).write_text(text)
    with pytest.raises(InputError, match=r"a\.onnx\.json: not written by `detect export`"):
        read_description(file, None)


def test_read_description__a_newer_version_and_an_unknown_form_are_refused(file):
    json_path(file).unlink()
    newer = described() | {"format_version": 99}
    with pytest.raises(InputError, match="format version 99; this detect reads"):
        read_description(file, json.dumps(newer))
    other = described()
    other["export"]["form"] = "tracked"
    with pytest.raises(InputError, match="form 'tracked'; known are raw, decoded, nms"):
        read_description(file, json.dumps(other))


def test_check_graph__takes_its_own_and_refuses_another_with_a_table(tmp_path):
    description = described("raw")
    rows = len(lively_detector().net.anchors)
    own = {
        "images": [None, 3, 96, 128],
        "cls_logits": [None, rows, 4],
        "box_deltas": [None, rows, 4],
    }
    assert expected_shapes(description) == own
    check_graph(tmp_path / "a.onnx", description, own)
    check_graph(tmp_path / "a.onnx", description, own | {"images": [1, 3, 96, 128]})
    with pytest.raises(InputError, match="the graph is not the one") as caught:
        check_graph(tmp_path / "a.onnx", description, own | {"cls_logits": [None, rows, 91], "extra": [1]})
    assert f"cls_logits: described [None, {rows}, 4], in the graph [None, {rows}, 91]" in str(caught.value)
    assert "extra: described None, in the graph [1]" in str(caught.value)
    assert "box_deltas" not in str(caught.value)


def test_expected_shapes__with_nms_are_dense():
    shapes = expected_shapes(described("nms"))
    assert shapes["boxes"] == [None, 100, 4]
    assert shapes["counts"] == [None]


def test_parts__openvino_has_two(tmp_path):
    xml = tmp_path / "a.xml"
    xml.write_bytes(b"12")
    (tmp_path / "a.bin").write_bytes(b"345")
    assert [part.name for part in parts(xml)] == ["a.xml", "a.bin"]
    assert sum_bytes(xml) == 5
    assert parts(tmp_path / "a.tflite") == [tmp_path / "a.tflite"]


def test_differences__long_values_are_cut():
    line = differences({"a": {"b": list(range(100))}}, {"a": {"b": [1]}})
    assert line.startswith("  a.b: [0, 1, 2")
    assert line.endswith("... | [1]")
    assert len(line) < 90

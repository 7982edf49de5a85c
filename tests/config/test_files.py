from pathlib import Path

import pytest

from detect.config.files import read_yaml
from detect.config.model_section import read_config, read_model_section
from detect.errors import InputError


def test_read_yaml__values_with_today_s_class_paths(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {loss: detect.losses.AnyLoss}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"model": {"loss": "detect.training.losses.AnyLoss"}}
    (tmp_path / "empty.yaml").touch()
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1\n", r"a\.yaml is not valid YAML, line 3: "),
        (b"- 1\n", r"a\.yaml: holds a list, expected named values"),
        (b"\xff", r"a\.yaml: cannot be read as a configuration"),
        (None, r"a\.yaml: cannot be read as a configuration: No such file"),
    ],
)
def test_read_yaml__no_configuration__named_with_its_line(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_read_config__a_class_that_is_not_trusted__refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {backbone: {class_path: my_parts.X}}\n")
    for read in (read_config, read_model_section):
        with pytest.raises(InputError, match="--trust my_parts"):
            read(tmp_path / "a.yaml")


def test_read_model_section__an_overlay__none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {compile: true}\n")
    assert read_model_section(tmp_path / "a.yaml") is None

"""npm's package: fetched from a registry on 127.0.0.1, or given by hand."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from detect.deploy import onnxruntime_web
from detect.deploy.onnxruntime_web import FILES, NAME, VERSION, copy_runtime, find_package, registry
from detect.errors import InputError
from tests.file_server import FileServer, serving

ADDRESS = f"/mirror/npm/{NAME}/-/{NAME}-{VERSION}.tgz"
CONTENT = {f"package/dist/{name}": name.encode() for name in FILES}


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A package with the right names in it, and its hash as the right one."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(onnxruntime_web, "SHA256", hashlib.sha256(stream.getvalue()).hexdigest())
    return stream.getvalue()


@pytest.fixture
def npm(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as told:
        told.files[ADDRESS] = archive
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{told.url}/mirror/npm/")
        yield told


def unpacked(folder: Path, *, version: str = VERSION) -> Path:
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": NAME, "version": version}))
    for name in FILES:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


def test_fetched_once_from_the_registry_of_npm(npm: FileServer, tmp_path: Path) -> None:
    package = find_package(None)
    assert find_package(None) == package
    assert [request["path"] for request in npm.requests] == [ADDRESS]
    copy_runtime(package, tmp_path / "runtime")
    found = {file.name: file.read_text() for file in (tmp_path / "runtime").iterdir()}
    assert found == {target: source for source, target in FILES.items()}


def test_another_content__refused_and_deleted(npm: FileServer) -> None:
    npm.files[ADDRESS] = b"another"
    with pytest.raises(InputError, match=r"has the sha256 .*: it was deleted; try again; or get the package"):
        find_package(None)
    npm.files.clear()
    with pytest.raises(
        InputError, match=rf"answers 404.*put the file at .*tgz; or .*npm pack {NAME}@{VERSION}"
    ):
        find_package(None)


def test_no_network__a_file_or_a_folder_by_hand(archive: bytes, tmp_path: Path) -> None:
    file = tmp_path / "given.tgz"
    file.write_bytes(archive)
    assert find_package(file) == file
    folder = unpacked(tmp_path / "node_modules" / NAME)
    assert find_package(folder) == folder
    copy_runtime(folder, tmp_path / "runtime")
    assert sorted(path.name for path in (tmp_path / "runtime").iterdir()) == sorted(FILES.values())


def test_what_is_not_the_package__refused(tmp_path: Path) -> None:
    (tmp_path / "other.tgz").write_bytes(b"another")
    with pytest.raises(InputError, match=rf"other\.tgz has the sha256 .* it is not {NAME} {VERSION}"):
        find_package(tmp_path / "other.tgz")
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        find_package(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no package of npm \(package\.json\)"):
        find_package(tmp_path)
    with pytest.raises(InputError, match=rf"is {NAME} 1\.2\.3; the page is made for {NAME} {VERSION}"):
        find_package(unpacked(tmp_path / "old", version="1.2.3"))
    whole = unpacked(tmp_path / "whole")
    (whole / "dist" / next(iter(FILES))).unlink()
    with pytest.raises(InputError, match=r"dist/ort\.wasm\.bundle\.min\.mjs is missing"):
        find_package(whole)


def test_registry__asked_of_npm_where_no_variable_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"npm is not installed.*or set NPM_CONFIG_REGISTRY"):
        registry()
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo http://127.0.0.1:9/\n')
    npm.chmod(0o755)
    assert registry() == "http://127.0.0.1:9"

from __future__ import annotations

import fcntl
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from detect.commands.main import main
from detect.data.public import http_file
from detect.data.public import sets as public_sets
from detect.data.public.download import download
from detect.data.public.sets import DATA_SETS, Archive, DataSet
from detect.data.public.unpack import Limits
from detect.data.splits import open_split
from detect.errors import InputError, RunStopped
from tests.data_sets import make_voc, make_yolo
from tests.file_server import FileServer, serving

LIMITS = Limits(100, 0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http_file, "WAIT_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as told:
        yield told


def zipped(root: Path, prefix: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, f"{prefix}/{path.relative_to(root)}")
    return buffer.getvalue()


@pytest.fixture
def voc_zip(tmp_path: Path) -> bytes:
    """An archive as the one of BCCD."""
    objects = [("cat", (2, 3, 30, 40)), ("dog", (20, 3, 50, 40))]
    root = make_voc(tmp_path / "made", {"train": {"a": objects, "b": objects}, "val": {"c": objects}})
    return zipped(root, "set-master/BCCD")


def one_archive(server: FileServer, content: bytes, checksum: str | None = None) -> DataSet:
    server.files["/set.zip"] = content
    return DataSet(
        page="https://example.org/set",
        licence="made for a test",
        archives=(Archive(f"{server.url}/set.zip", "[^/]+/BCCD/(.*)", 0.01, LIMITS, checksum),),
        use="--data.root ROOT",
    )


def test_download__through_a_break__can_be_opened_and_leaves_nothing_else(
    server: FileServer, voc_zip: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.md5(voc_zip).hexdigest()
    server.breaks = [len(voc_zip) // 2]
    download(one_archive(server, voc_zip, f"md5:{digest}"), tmp_path / "out")
    assert len(open_split(tmp_path / "out", role="train").annotations) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["made", "out"]
    shown = capsys.readouterr().err
    assert "licence: made for a test" in shown
    assert f"md5 {digest} (as published)" in shown


def test_download__wrong_checksum__is_refused_and_the_file_deleted(
    server: FileServer, voc_zip: bytes, tmp_path: Path
) -> None:
    data_set = one_archive(server, voc_zip, "sha256:" + "0" * 64)
    with pytest.raises(InputError, match=r"has the sha256 [0-9a-f]{64}, expected 0{64}; it was deleted"):
        download(data_set, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out.download").iterdir()] == [".lock"]


def test_download__stopped__goes_on_where_it_was(server: FileServer, voc_zip: bytes, tmp_path: Path) -> None:
    data_set = one_archive(server, voc_zip)
    server.breaks = [len(voc_zip) // 2] + [0] * http_file.ATTEMPTS
    with pytest.raises(RunStopped, match="run the same command to resume"):
        download(data_set, tmp_path / "out")
    download(data_set, tmp_path / "out")
    assert server.requests[-1]["Range"] == f"bytes={len(voc_zip) // 2}-"


def test_download__second_archive_fails__the_first_is_not_fetched_again(
    server: FileServer, voc_zip: bytes, tmp_path: Path
) -> None:
    data_set = one_archive(server, voc_zip)
    second = replace(data_set.archives[0], url=f"{server.url}/second.zip")
    data_set = replace(data_set, archives=(data_set.archives[0], second))
    with pytest.raises(InputError, match=r"second.zip: the server answers 404"):
        download(data_set, tmp_path / "out")
    server.files["/second.zip"] = voc_zip  # the same files once more: kept once
    download(data_set, tmp_path / "out", keep_archives=True)
    assert [request["path"] for request in server.requests] == ["/set.zip", "/second.zip", "/second.zip"]
    kept = sorted(path.name for path in (tmp_path / "out.download").iterdir())
    assert kept == [".lock", "second.zip", "set.zip"]


def test_download__hostile_archive__writes_nothing_and_is_deleted(server: FileServer, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/BCCD/good", b"1")
        archive.writestr("x/BCCD/../../../evil", b"2")
    with pytest.raises(InputError, match="a path that can leave the folder"):
        download(one_archive(server, buffer.getvalue()), tmp_path / "deep" / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "deep", "out.download"]


def test_download__archive_of_something_else__is_no_data_set(server: FileServer, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/BCCD/readme", b"1")
    with pytest.raises(InputError, match="has no format that is known"):
        download(one_archive(server, buffer.getvalue()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_download__existing_folder__is_not_touched(
    server: FileServer, voc_zip: bytes, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        download(one_archive(server, voc_zip), tmp_path / "out")
    assert server.requests == []


def test_download__two_at_once__the_second_is_refused(
    server: FileServer, voc_zip: bytes, tmp_path: Path
) -> None:
    waiting = tmp_path / "out.download"
    waiting.mkdir()
    with (waiting / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is downloading"):
            download(one_archive(server, voc_zip), tmp_path / "out")


def test_download__cannot_write__stops(
    server: FileServer, voc_zip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device", "a.jpg")

    monkeypatch.setattr("detect.data.public.download.unpack", full)
    with pytest.raises(RunStopped, match=r"No space left on device \(a.jpg\); what was fetched is kept"):
        download(one_archive(server, voc_zip), tmp_path / "out")
    assert (tmp_path / "out.download" / "set.zip").read_bytes() == voc_zip


def test_download_command__coco128__gets_the_file_that_its_archive_lacks(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = make_yolo(tmp_path / "made", {"train2017": {"a": "0 0.5 0.5 0.2 0.2", "b": "79 0.5 0.5 0.2 0.2"}})
    (made / "data.yaml").unlink()
    server.files["/coco128.zip"] = zipped(made, "coco128")
    known = DATA_SETS["coco128"]
    local = replace(known, archives=(replace(known.archives[0], url=f"{server.url}/coco128.zip"),))
    monkeypatch.setitem(public_sets.DATA_SETS, "coco128", local)
    assert main(["data", "download", "coco128", str(tmp_path / "out")]) == 0
    found = open_split(tmp_path / "out", role="train").annotations
    assert [found.classes.name(label) for label in found.labels] == ["person", "toothbrush"]
    assert f"--data.root {tmp_path / 'out'}" in capsys.readouterr().out


def test_download_command__unknown_name__names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download", "imagenet", "out"]) == 2
    assert "voc2007" in capsys.readouterr().err

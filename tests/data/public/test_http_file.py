from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detect.data.public import http_file
from detect.data.public.http_file import ATTEMPTS, fetch
from detect.errors import InputError, RunStopped
from tests.file_server import FileServer, serving

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MUCH = 10_000_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http_file, "WAIT_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as told:
        told.files["/a.zip"] = CONTENT
        yield told


def ranges(server: FileServer) -> list[str | None]:
    return [request.get("Range") for request in server.requests]


def test_fetch__plain__gives_the_file_and_leaves_nothing_else(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH, show=lambda *now: seen.append(now))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_fetch__breaks_in_the_middle__asks_for_the_rest_alone(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [300_000, 0, 1, 200_000]
    said: list[str] = []
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH, say=said.append)
    assert said[:2] == ["the connection ended after 300000 of 1000000 bytes; again in 0 s"] * 2
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", "bytes=300000-", "bytes=300001-", "bytes=500001-"]
    assert server.requests[1]["If-Range"] == '"1"'


def test_fetch__no_progress__stops_and_the_next_call_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [300_000] + [0] * ATTEMPTS
    with pytest.raises(RunStopped, match="300000 of 1000000 bytes, 6 times in a row; 300000 bytes are kept"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert not (tmp_path / "a.zip").exists()
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=300000-"


def test_fetch__no_server__stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_file, "WAIT_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as told:
        url = told.url
    with pytest.raises(RunStopped, match="ConnectionRefusedError"):
        fetch(f"{url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)


def test_fetch__server_without_ranges__begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, [300_000, 700_000]
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("validators", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_fetch__file_replaced_meanwhile__begins_anew(
    server: FileServer, tmp_path: Path, validators: dict[str, str]
) -> None:
    server.validators = validators
    server.breaks = [300_000] + [0] * ATTEMPTS
    with pytest.raises(RunStopped):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    server.files["/a.zip"] = CONTENT[::-1]  # of the same length
    server.validators = {name: f"{value[:-1]}x" for name, value in validators.items()}
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_fetch__no_validator_and_another_size__begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.validators = {"ETag": 'W/"weak"'}  # may not be used for parts
    server.breaks = [300_000] + [0] * ATTEMPTS
    with pytest.raises(RunStopped):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    server.files["/a.zip"] = CONTENT[:400_000][::-1]
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[:400_000][::-1]
    assert "If-Range" not in server.requests[-2]


def test_fetch__part_of_another_place__begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.files["/b.zip"] = CONTENT[::-1]
    server.breaks = [300_000] + [0] * ATTEMPTS
    with pytest.raises(RunStopped):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    fetch(f"{server.url}/b.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("notes", ["", "[1]", '{"url": 1}', "\x00"])
def test_fetch__notes_of_the_part_are_broken__begins_anew(
    server: FileServer, tmp_path: Path, notes: str
) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    (tmp_path / "a.zip.part.json").write_text(notes)
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_fetch__part_is_complete__is_taken(server: FileServer, tmp_path: Path) -> None:
    """A process that was killed between the last byte and the renaming."""
    url = f"{server.url}/a.zip"
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    notes = {"url": url, "validator": '"1"', "total": len(CONTENT)}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(notes))
    fetch(url, tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(CONTENT)}-"]


def test_fetch__part_is_longer_than_the_file__begins_anew(server: FileServer, tmp_path: Path) -> None:
    url = f"{server.url}/a.zip"
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    notes = {"url": url, "validator": '"1"', "total": len(CONTENT)}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(notes))
    fetch(url, tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_fetch__passing_errors__tries_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert len(server.requests) == 3


def test_fetch__no_such_file__refused_at_once(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/b\.zip: the server answers 404 Not Found"):
        fetch(f"{server.url}/b.zip", tmp_path / "b.zip", max_bytes=MUCH)
    assert len(server.requests) == 1


def test_fetch__redirect__is_followed_with_the_range(server: FileServer, tmp_path: Path) -> None:
    server.redirects = {"/moved": "/moved2", "/moved2": f"{server.url}/a.zip"}
    server.breaks = [300_000]
    fetch(f"{server.url}/moved", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=300000-"


def test_fetch__redirects_in_a_circle__refused(server: FileServer, tmp_path: Path) -> None:
    server.redirects = {"/one": "/two", "/two": "/one"}
    with pytest.raises(InputError, match="the server answers 302"):
        fetch(f"{server.url}/one", tmp_path / "a.zip", max_bytes=MUCH)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a.zip"])
def test_fetch__redirect_out_of_the_web__refused(server: FileServer, tmp_path: Path, place: str) -> None:
    server.redirects = {"/moved": place}
    with pytest.raises(InputError, match=r"redirects to ftp|the server answers 302"):
        fetch(f"{server.url}/moved", tmp_path / "a.zip", max_bytes=MUCH)
    assert not list(tmp_path.iterdir())


def test_redirects__from_https_to_http__refused() -> None:
    request = urllib.request.Request("https://example.org/a.zip")
    handler, place = http_file._Redirects(), "http://example.org/a.zip"
    with pytest.raises(InputError, match=r"https://example\.org/a\.zip redirects to http://example"):
        handler.redirect_request(request, None, 302, "", None, place)  # type: ignore[arg-type]


def test_fetch__announced_too_large__refused_before_a_byte(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 1000000 bytes, it may have at most 999999"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=999_999)
    assert not list(tmp_path.iterdir())


def test_fetch__too_large_without_announcing__refused(server: FileServer, tmp_path: Path) -> None:
    server.send_length = False
    with pytest.raises(InputError, match="sends more than the 999999 bytes"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=999_999)
    assert not (tmp_path / "a.zip.part").exists()


def test_fetch__server_names_no_size__takes_all(server: FileServer, tmp_path: Path) -> None:
    server.send_length = False
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("content_range", ["bytes 7-99/1000000", "nonsense", "bytes 300000-999999/1000007"])
def test_fetch__another_part_than_asked_for__begins_anew(
    server: FileServer, tmp_path: Path, content_range: str
) -> None:
    server.breaks, server.extra_headers = [300_000], {"Content-Range": content_range}
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_fetch__part_without_asking__refused(server: FileServer, tmp_path: Path) -> None:
    server.statuses, server.extra_headers = [206], {}
    with pytest.raises(InputError, match="a part where the whole was asked for"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)


def test_fetch__no_room_for_the_rest__is_said_at_the_start(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room._replace(free=999_999))
    with pytest.raises(RunStopped, match=r"a\.zip\.part needs another 0\.0 GB, the disk has 0\.0 GB"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)
    assert not list(tmp_path.iterdir())


def test_fetch__disk_is_full__stops_and_says_so(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    notes = {"url": f"{server.url}/a.zip", "validator": None, "total": None}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(notes))
    with pytest.raises(RunStopped, match=r"cannot write .*a.zip.part: No space left on device"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", max_bytes=MUCH)

"""One file from a web server to the disk, through breaks: what is there already is not fetched again."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from detect.errors import InputError, RunStopped
from detect.system.files import write_atomically

CHUNK_BYTES = 1 << 18
GB = 1e9
TIMEOUT_S = 30.0
"""Longest wait for a byte."""
ATTEMPTS = 6
"""Failed attempts in a row, without a new byte, after which to give up."""
WAIT_S = 1.0
"""Wait before the second attempt; it doubles before each that follows."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes of errors that may pass."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Patience(NamedTuple):
    """With a server that does not answer."""

    attempts: int = ATTEMPTS
    timeout_s: float = TIMEOUT_S


PATIENCE = Patience()

Show = Callable[[int, int | None], None]
"""Called with the bytes so far, and the total where it is known."""


@dataclass
class _Known:
    """What is known of the file on the server, kept beside the unfinished copy."""

    url: str
    validator: str | None = None
    """An ETag or a time of change: the rest of the same version is asked for."""
    total: int | None = None


class _Broken(Exception):
    """An attempt that ended before the file did."""


def fetch(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    show: Show = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
    patience: Patience = PATIENCE,
) -> None:
    """Download the file at `url` to `target`; an unfinished copy, TARGET.part, is resumed.

    Args:
        url: http or https; redirects are followed, but not from https to http.
        target: not there yet; it appears when it is complete.
        max_bytes: the largest size of the file.
        show: called as bytes arrive.
        say: called with every failure before the wait for the next attempt.
        patience: with a server that does not answer.

    Raises:
        InputError: the server has no such file, or it is larger than it may be.
        RunStopped: the connection failed several times, or the disk is full; the unfinished copy stays.
    """
    part = target.with_name(f"{target.name}.part")
    notes = target.with_name(f"{target.name}.part.json")
    known = _recall(url, part, notes)
    most, failures = _size(part), 0
    while True:
        try:
            _attempt(known, part, notes, max_bytes=max_bytes, show=show, timeout_s=patience.timeout_s)
            break
        except _Broken as error:
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures == patience.attempts:
                often = f", {failures} times in a row" if failures > 1 else ""
                raise RunStopped(
                    f"{url}: {error}{often}; {most} bytes are kept in {part}, run the same command to resume",
                    exit_code=3,
                ) from error
            wait = WAIT_S * 2 ** max(0, failures - 1)
            say(f"{error}; again in {wait:g} s")
            time.sleep(wait)
        except OSError as error:
            raise RunStopped(
                f"cannot write {part}: {error.strerror}; run the same command to resume", exit_code=3
            ) from error
    part.replace(target)
    notes.unlink(missing_ok=True)


def fetch_with_progress(
    url: str, target: Path, *, max_bytes: int, console: Console, patience: Patience = PATIENCE
) -> None:
    """`fetch` with a bar on a terminal, and a line for every failure."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(target.name, total=None)
        fetch(
            url,
            target,
            max_bytes=max_bytes,
            show=lambda done, total: bar.update(task, completed=done, total=total),
            say=lambda message: console.print(f"{target.name}: {message}", highlight=False, markup=False),
            patience=patience,
        )


class _Reply(NamedTuple):
    """An answer that brings the file from `start` on."""

    body: IO[bytes]
    start: int
    total: int | None


def _attempt(known: _Known, part: Path, notes: Path, *, max_bytes: int, show: Show, timeout_s: float) -> None:
    """One connection: append what it brings.

    Raises:
        _Broken: it ended early, or could not be made.
        InputError: as `fetch`.
    """
    reply = _ask(known, _size(part), timeout_s)
    if reply is None:  # all of it is there
        return
    with reply.body as body:
        if reply.total is not None and reply.total > max_bytes:
            raise InputError(f"{known.url} has {reply.total} bytes, it may have at most {max_bytes}; refused")
        _require_room(part, (reply.total or 0) - reply.start)
        known.total = reply.total
        write_atomically(notes, json.dumps(asdict(known)))
        size = reply.start
        with part.open("ab" if reply.start else "wb") as file:
            while chunk := _read(body):
                size += len(chunk)
                if size > max_bytes:
                    part.unlink()
                    raise InputError(
                        f"{known.url} sends more than the {max_bytes} bytes it may have; refused"
                    )
                file.write(chunk)
                show(size, reply.total)
    if reply.total is not None and size != reply.total:
        if size > reply.total:
            part.unlink()
        raise _Broken(f"the connection ended after {size} of {reply.total} bytes")


def _require_room(part: Path, missing: int) -> None:
    """Say at the start, and not after hours, that the rest of a file has no room.

    Raises:
        RunStopped: it has none.
    """
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise RunStopped(
            f"{part} needs another {missing / GB:.1f} GB, the disk has {free / GB:.1f} GB; make room and run "
            "the same command again",
            exit_code=3,
        )


def _ask(known: _Known, have: int, timeout_s: float) -> _Reply | None:
    """Ask for what is missing; None where nothing is."""
    headers = {"User-Agent": "detect", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    request = urllib.request.Request(known.url, headers=headers)
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if have == known.total:
                return None
            return _ask(known, 0, timeout_s)
        if error.code in PASSING:
            raise _Broken(f"{error.code} {error.reason}") from error
        raise InputError(f"{known.url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_describe(error)) from error
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        start, total = _content_range(answer.headers)
        if start != have or (known.total is not None and total != known.total):
            answer.close()  # not what was asked for, or of another version
            if not have:
                raise InputError(f"{known.url}: the server sends a part where the whole was asked for")
            return _ask(known, 0, timeout_s)
        return _Reply(answer, have, total)
    known.validator = _validator(answer.headers)
    length = answer.headers.get("Content-Length")
    return _Reply(answer, 0, int(length) if length is not None and length.isdigit() else None)


def _read(body: IO[bytes]) -> bytes:
    try:
        return body.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_describe(error)) from error


def _describe(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__


def _content_range(headers: http.client.HTTPMessage) -> tuple[int | None, int | None]:
    match = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """What `If-Range` may name: a strong ETag, else the time of change."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _recall(url: str, part: Path, notes: Path) -> _Known:
    """What is known of an unfinished copy; a copy of which nothing is known is started again."""
    try:
        content = json.loads(notes.read_text(encoding="utf-8"))
        known = _Known(content["url"], content["validator"], content["total"])
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None or known.url != url:
        part.unlink(missing_ok=True)
        return _Known(url)
    return known


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http and https only, and never from an encrypted connection to an open one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = {"https"} if urlsplit(req.full_url).scheme == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise InputError(f"{req.full_url} redirects to {newurl[:200]}; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

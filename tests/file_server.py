"""A web server on 127.0.0.1 that breaks off, redirects and misbehaves as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """What it serves, and how; one instance a test."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path to content."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path to Location."""
    breaks: list[int] = field(default_factory=list)
    """Bytes that the first, the second, ... answer with content sends before it breaks off."""
    statuses: list[int] = field(default_factory=list)
    """Answered in place of content, in this order, first of all."""
    ranges: bool = True
    validators: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    extra_headers: dict[str, str] = field(default_factory=dict)
    """In place of the right ones."""
    send_length: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of every request, with "path"."""


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        told: FileServer = self.server.told
        told.requests.append({**self.headers, "path": self.path})
        if told.statuses:
            return self.answer(told.statuses.pop(0), {}, b"")
        if self.path in told.redirects:
            return self.answer(302, {"Location": told.redirects[self.path]}, b"")
        if self.path not in told.files:
            return self.answer(404, {}, b"")
        content, status, headers = told.files[self.path], 200, dict(told.validators)
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, *told.validators.values())
        if wanted and told.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, {}, b"")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        return self.answer(status, headers | told.extra_headers, content)

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        told: FileServer = self.server.told
        self.send_response(status)
        if told.send_length:
            headers = {"Content-Length": str(len(content))} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        sent = told.breaks.pop(0) if content and told.breaks else len(content)
        self.wfile.write(content[:sent])


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that runs for the length of the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        told = FileServer(url=f"http://127.0.0.1:{server.server_address[1]}")
        server.told = told  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()

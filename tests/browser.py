"""Headless Chromium, driven by the DevTools protocol over two pipes: no package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 60.0
"""Longest wait for an answer, on a machine that is busy with other things."""
POLL_S = 0.05


class Browser:
    """One page of a browser.

    Args:
        arguments: of the command line, beside those that every test needs.
        profile: an empty folder.
    """

    def __init__(self, profile: Path, *arguments: str) -> None:
        if CHROMIUM is None:
            pytest.skip("Chromium is not installed (Debian's package: chromium)")
        theirs, self._to = os.pipe()
        self._from, their_answers = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe"]
        # Chromium reads from 3 and writes to 4.
        script = f'exec "$@" 3<&{theirs} 4>&{their_answers}'
        command = [CHROMIUM, *flags, f"--user-data-dir={profile}", *arguments, "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(theirs, their_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(their_answers)
        self._rest = b""
        self._id = 0
        self.log: list[str] = []
        """What the page wrote to its console, and errors that nothing caught."""
        self._session = ""
        pages = self._targets()
        attached = self.call("Target.attachToTarget", targetId=pages[0], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def _targets(self) -> list[str]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            infos = self.call("Target.getTargets")["targetInfos"]
            if pages := [info["targetId"] for info in infos if info["type"] == "page"]:
                return pages
            time.sleep(POLL_S)
        raise TimeoutError("the browser opened no page")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], PATIENCE_S)
            if not ready:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError(f"the browser ended with {self._process.wait()}")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.log.append(
                    " ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"])
                )
            case "Runtime.exceptionThrown":
                self.log.append(str(params["exceptionDetails"]))
            case "Log.entryAdded":
                self.log.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, url: str, *, width: int = 1200, height: int = 900, mobile: bool = False) -> None:
        """Go to a page in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=mobile)
        self.log.clear()
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState !== 'loading'")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """The first true value of an expression."""
        deadline, failure = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline:
            try:
                if value := self.evaluate(expression):
                    return value
            except RuntimeError as error:  # such as: the page is being replaced
                failure = str(error)
            time.sleep(POLL_S)
        shown = self.evaluate("document.body.innerText")
        raise TimeoutError(f"never true: {expression}\n{failure}\nlog: {self.log}\npage:\n{shown}")

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Give files to an input of a page, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as a PNG."""
        shot = self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(shot["data"]))

    def downloads_to(self, folder: Path) -> None:
        """Where files go that the page saves."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        try:
            self.call("Browser.close")
            self._process.wait(PATIENCE_S)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def static_server(folder: Path) -> Iterator[str]:
    """What `python -m http.server` serves, on a free port; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

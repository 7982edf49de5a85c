"""onnxruntime-web, which runs ONNX files in a browser: a package of npm, fetched once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO

from detect.data.annotation_cache import cache_folder
from detect.data.public.pinned_file import PinnedFile, one_at_a_time, pinned_file
from detect.errors import InputError

NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
MAX_BYTES = 40_000_000
FILES = {
    "ort.wasm.bundle.min.mjs": "ort.wasm.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs": "ort.webgpu.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
"""In the package's `dist/`, and beside a page: some servers do not know that `.mjs` is JavaScript."""
BY_HAND = (
    f"get the package where there is npm (`npm pack {NAME}@{VERSION}`) and give its file: --onnxruntime_web "
    f"{NAME}-{VERSION}.tgz"
)


def find_package(given: Path | None) -> Path:
    """The package on this machine: a `.tgz` of npm with the right hash, or an unpacked folder.

    Args:
        given: by the user; null: from the cache, fetched if it is not there.

    Raises:
        InputError: it is another package or version, or can neither be found nor fetched.
    """
    if given is None:
        return _fetched()
    if given.is_dir():
        _require_version(given)
    elif given.is_file():
        _pinned("").require_hash(given, f"it is not {NAME} {VERSION} as npm has it; {BY_HAND}")
    else:
        raise InputError(f"--onnxruntime_web {given}: no such file or folder")
    return given


def copy_runtime(package: Path, folder: Path) -> None:
    """Write `FILES` of a package to a new folder.

    Raises:
        InputError: one is missing there.
    """
    folder.mkdir()
    if package.is_dir():
        for source, target in FILES.items():
            shutil.copyfile(package / "dist" / source, folder / target)
        return
    with tarfile.open(package) as archive:
        for source, target in FILES.items():
            file: IO[bytes] | None = archive.extractfile(f"package/dist/{source}")
            assert file is not None, source  # the hash is right
            with file, (folder / target).open("wb") as copy:
                shutil.copyfileobj(file, copy)


def registry() -> str:
    """The address of npm's registry, by the variable NPM_CONFIG_REGISTRY or the settings of npm.

    Raises:
        InputError: neither is there.
    """
    address = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry")
    if not address and (npm := shutil.which("npm")) is not None:
        asked = subprocess.run(
            [npm, "config", "get", "registry"], capture_output=True, text=True, check=False
        )
        address = asked.stdout.strip()
    if not address or not address.startswith(("http://", "https://")):
        raise InputError(
            f"a page needs {NAME}, a package of npm, and npm is not installed: {BY_HAND}; or set "
            "NPM_CONFIG_REGISTRY to the address of npm's registry"
        )
    return address.rstrip("/")


def _fetched() -> Path:
    folder = cache_folder() / "npm"
    file = _pinned("")
    with one_at_a_time(folder / f".{NAME}.lock"):
        if not (folder / file.name).is_file():
            file = _pinned(registry())
            print(f"fetching {file.url}, once", file=sys.stderr)
        try:
            return pinned_file(file, folder)
        except InputError as error:
            raise InputError(f"{error}; or {BY_HAND}") from error


def _pinned(registry: str) -> PinnedFile:
    return PinnedFile(f"{registry}/{NAME}/-/{NAME}-{VERSION}.tgz", SHA256, MAX_BYTES)


def _require_version(package: Path) -> None:
    """Stop at a folder that is not the package.

    Raises:
        InputError: another package, another version, or incomplete.
    """
    try:
        content = json.loads((package / "package.json").read_text(encoding="utf-8"))
        found = f"{content['name']} {content['version']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--onnxruntime_web {package}: no package of npm (package.json): {error}") from error
    if found != f"{NAME} {VERSION}":
        raise InputError(f"--onnxruntime_web {package} is {found}; the page is made for {NAME} {VERSION}")
    for file in FILES:
        if not (package / "dist" / file).is_file():
            raise InputError(f"--onnxruntime_web {package}: dist/{file} is missing; unpack the package again")

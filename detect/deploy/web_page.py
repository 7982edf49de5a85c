"""`detect export --format web`: a page that runs the detector in a browser, all it needs beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.deploy.export import ExportOptions, load_for_export, write_with_card
from detect.deploy.int8 import print_line
from detect.deploy.onnxruntime_web import NAME, VERSION, copy_runtime, find_package
from detect.deploy.spec import PREDICTION_THRESHOLD, ModelSpec
from detect.errors import InputError
from detect.system.output_folder import new_folder, require_new

WEB = "web"
"""As `--format`."""
PAGE = Path(__file__).parent / "web"
MODEL = "model.onnx"


def export_page(source: Path, folder: Path, options: ExportOptions, package: Path | None = None) -> int:
    """Write page, detector and onnxruntime-web; prints what was written and returns the exit code.

    Args:
        source: a checkpoint, or a config (random weights).
        folder: gets the page; it does not exist yet, or is empty.
        options: as for ONNX; the score threshold is where the page's begins.
        package: onnxruntime-web, a `.tgz` or a folder; null: from the cache, fetched if it is not there.

    Raises:
        InputError: see `export`; or onnxruntime-web can neither be found nor fetched.
    """
    if options.form not in (None, "decoded"):
        raise InputError(f"--form {options.form}: the page takes decoded, and does NMS by itself")
    options = replace(options, format="onnx", form="decoded")
    options.check(folder / MODEL)
    require_new(folder)
    model = load_for_export(source, options, "decoded")
    package = find_package(package)
    with new_folder(folder) as page:
        content = write_with_card(model, page / MODEL, options)
        for file in sorted(PAGE.iterdir()):
            shutil.copyfile(file, page / file.name)
        copy_runtime(package, page / "onnxruntime")
        settings = page_settings(content, options.score_threshold)
        (page / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in page.rglob("*") if file.is_file())
    print_line(f"{folder} ({size / 1e6:.0f} MB): a page for any web server, such as")
    print_line(f"  python -m http.server --directory {folder}")
    return 0


def page_settings(description: dict[str, Any], score_threshold: float | None) -> dict[str, Any]:
    """What the page must know beside the description of its model.

    Args:
        description: of the model.
        score_threshold: where the page's begins; null: as `detect predict`.
    """
    first = ModelSpec.from_description(description).at_threshold(score_threshold).thresholds.score_threshold
    return {
        "model": MODEL,
        "score_threshold": first,
        "default_threshold": PREDICTION_THRESHOLD,
        "runtime": f"{NAME} {VERSION}",
    }

import sys
from pathlib import Path

import pytest

from detect.commands import sweep as sweep_module
from detect.commands import sweep_jobs
from tests.conftest import make_coco
from tests.fit_cases import write_config

FAKE = """
import hashlib, json, os, signal, sys, time
from pathlib import Path

command, args = sys.argv[1], sys.argv[2:]
value = lambda flag: args[args.index(flag) + 1]
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(json.dumps([time.time(), os.environ.get("CUDA_VISIBLE_DEVICES"), "DETECT_RUN" in os.environ,
                            *sys.argv[1:]]) + "\\n")
if command == "fit":
    text, folder = Path(value("--config")).read_text(), Path(value("--out"))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if "slow" in text:
        signal.signal(signal.SIGTERM, lambda *_: (Path(folder / "saved").touch(), sys.exit(143)))
        (folder / "ready").touch()
        time.sleep(60)
    if "together" in text:
        until = time.time() + 30
        while len(list(folder.parent.glob("*/checkpoints"))) < 2:
            if time.time() > until:
                sys.exit("alone")
            time.sleep(0.01)
    time.sleep(0.3)
    if "bad" in text and not (folder / "mended").exists():
        print("the reason\\n")
        sys.exit(3)
    (folder / "checkpoints" / "best.ckpt").write_text(text)
    (folder / "metrics.json").write_text(json.dumps({"mAP": 0.5}))
    (folder / "config.yaml").write_text(f"name: {text}")
elif command == "export":
    Path(value("--out")).write_bytes(Path(value("--ckpt_path")).read_bytes())
else:
    models = args[args.index("--model") + 1 : args.index("--runtime")]
    stage = {"p50": 1.0}
    rows = [{"model": m, "checkpoint_sha256": hashlib.sha256(Path(m).read_bytes()).hexdigest(),
             "runtime": "onnxruntime", "precision": "fp32", "threads": 1, "batch": 1,
             "total_ms": stage, "network_ms": stage} for m in models]
    Path(value("--json")).write_text(json.dumps({"protocol": {}, "rows": rows}))
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration and a data set whose boxes the usual anchors fit badly."""
    folder = tmp_path_factory.mktemp("case")
    return write_config(folder), make_coco(folder / "coco", train=16, val=5)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without report.html, a third of so short a run; those of a module's fixtures have it."""
    monkeypatch.setattr("detect.commands.fit.write_report", lambda run: None)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program that only writes files in the place of `detect`; returns the list of its calls."""
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    for module in (sweep_module, sweep_jobs):
        monkeypatch.setattr(module, "DETECT", (sys.executable, "-S", str(fake)))
    monkeypatch.setattr(sweep_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(sweep_module, "EXPORT_PACKAGES", ())
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "calls"

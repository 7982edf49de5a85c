from __future__ import annotations

from pathlib import Path

import pytest

from detect.system.cores import available_cores


def test_available_cores__obeys_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    for text, cores in (("max 100000", 16), ("350000 100000", 3), ("50000 100000", 1), ("broken", 16)):
        monkeypatch.setattr(Path, "read_text", lambda _, text=text: text)
        assert available_cores() == cores


def test_available_cores__a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(Path, "read_text", lambda _: "max 100000")
    assert available_cores() == 8

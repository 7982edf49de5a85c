from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from detect.system.memory import keep_freed_memory

FAULTS = """
import resource, sys
import torch
from detect.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
block = 64 * 2**20
for _ in range(16):  # until the heap has room for one beside what lies around it
    torch.ones(block, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(block, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is not here")
def test_a_freed_block_is_used_again_without_page_faults() -> None:
    def page_faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # 4 blocks of 64 MiB in pages of at most 2 MiB, against next to none.
    assert page_faults("keep") < 64 < 128 <= page_faults("default")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()

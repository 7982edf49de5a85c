from pathlib import Path

import pytest

from tests.kill_and_resume import kill_and_resume


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_never_stopped(tmp_path: Path) -> None:
    """A shorter `scripts/kill_and_resume`."""
    assert kill_and_resume(tmp_path, kills=2, epochs=6, seed=0) == []

import os
import signal
from collections.abc import Iterator

import pytest

from detect.errors import RunStopped
from detect.training.stop_signals import StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    installed = StopSignals()
    yield installed
    installed.remove()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_first_signal_is_noted_and_nothing_else(signals: StopSignals) -> None:
    signals.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.signum == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.signum == signal.SIGTERM


def test_a_second_ctrl_c_stops_at_once(signals: StopSignals) -> None:
    signals.install()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(RunStopped, match="stopped at once") as stopped:
        os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.exit_code == 130


def test_only_sigterm_is_passed_on(signals: StopSignals) -> None:
    passed: list[int] = []
    signals.install(pass_on=passed.append)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert passed == [signal.SIGTERM]


def test_a_forked_worker_ignores_what_it_inherited(signals: StopSignals) -> None:
    signals.install()
    if (child := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(signals.signum)
    assert os.waitpid(child, 0)[1] == 0

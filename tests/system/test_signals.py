import os
import signal
import threading

from detect.system.signals import how_it_ended, noted_signals


def test_noted_signals__are_a_list_and_end_nothing() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with noted_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals == [signal.SIGINT, signal.SIGTERM]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_noted_signals__in_another_thread_is_an_empty_list() -> None:
    found: list[list[int]] = []

    def work() -> None:
        with noted_signals() as signals:
            found.append(signals)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]


def test_how_it_ended__in_words() -> None:
    assert how_it_ended(2) == "ended with 2"
    assert how_it_ended(-signal.SIGTERM) == "was ended by SIGTERM"
    assert how_it_ended(-signal.SIGKILL).startswith("was killed from outside")

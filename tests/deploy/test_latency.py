import os
import subprocess
import sys

import numpy as np
import pytest

from detect.deploy.latency import (
    Protocol,
    Ratio,
    describe_machine,
    interleave,
    load_average,
    paired_ratio,
    pin,
    summarise,
)
from detect.errors import InputError


def test_interleave__each_subject_once_a_round_in_turning_order():
    calls: list[int] = []

    def subject(number):
        def run():
            calls.append(number)
            return {"network": number * 1e-3}

        return run

    rounds = interleave([subject(1), subject(2), subject(3)], Protocol(rounds=12, warmup=2))
    by_round = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(by_round) == 14
    assert all(sorted(taken) == [1, 2, 3] for taken in by_round)
    assert {taken[0] for taken in by_round} == {1, 2, 3}
    follows = {(taken[i], taken[i + 1]) for taken in by_round for i in range(2)}
    assert len(follows) == 6  # each comes after each other
    assert [taken["network"].tolist() for taken in rounds] == [[1.0] * 12, [2.0] * 12, [3.0] * 12]


def test_interleave__total_is_the_sum_of_the_stages():
    (taken,) = interleave([lambda: {"pre": 0.001, "network": 0.002}], Protocol(rounds=3, warmup=1))
    assert taken["total"] == pytest.approx([3.0] * 3)


def test_summarise__by_hand():
    figures = summarise(np.arange(1, 102))  # 1 ... 101: the p-th percentile is p + 1
    assert figures == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "mean": 51.0, "n": 101}


def test_paired_ratio__is_taken_within_rounds():
    slow_and_fast = np.array([1.0, 1, 10, 10])  # the machine slows down after two rounds
    assert paired_ratio(0.5 * slow_and_fast, slow_and_fast) == Ratio(0.5, 0.5, 0.5)


def test_paired_ratio__a_subject_against_itself_is_no_difference():
    rng = np.random.default_rng(0)
    shared = rng.lognormal(0, 1, 100)
    noise = rng.lognormal(0, 0.05, (2, 100))
    ratio = paired_ratio(shared * noise[0], shared * noise[1])
    assert not ratio.is_real
    assert "no difference shown" in str(ratio)
    better = paired_ratio(0.7 * shared * noise[0], shared * noise[1])
    assert better.is_real
    assert str(better).startswith("0.7")
    assert "no difference" not in str(better)


def test_stopwatch__wall_counts_sleep_and_cpu_does_not():
    # In a process of its own: what other tests have left running counts as processor time, too.
    script = (
        "import time; from detect.deploy.latency import Stopwatch\n"
        "for clock, least, most in (('wall', 0.02, 10), ('cpu', 0, 0.015)):\n"
        "    watch = Stopwatch(clock); time.sleep(0.02); watch.stop('network')\n"
        "    assert least <= watch.seconds['network'] <= most, (clock, watch.seconds)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_protocol__refuses_numbers_that_measure_nothing():
    with pytest.raises(InputError, match="--rounds is 2"):
        Protocol(rounds=2).check()
    with pytest.raises(InputError, match="--warmup is 0"):
        Protocol(warmup=0).check()
    Protocol().check()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot hold a process to cores")
def test_pin__holds_and_refuses():
    before = os.sched_getaffinity(0)
    core = min(before)
    try:
        pin((core,))
        assert describe_machine()["pinned_to"] == [core]
        with pytest.raises(InputError, match="--cores 9999"):
            pin((9999,))
    finally:
        os.sched_setaffinity(0, before)
    pin(None)
    assert os.sched_getaffinity(0) == before


def test_describe_machine__names_what_figures_depend_on():
    machine = describe_machine()
    assert machine["cpu"]
    assert set(machine["versions"]) >= {"torch", "numpy"}
    assert machine["cores"] == os.cpu_count()
    assert load_average() is None or len(load_average()) == 3

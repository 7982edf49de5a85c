from __future__ import annotations

from typing import Any

import pytest

from detect.training.reproduction import Agreement, judge, seed_margin


def result(mAP: float, weights: str = "a") -> dict[str, Any]:
    return {"weights": {"best": weights, "last": weights}, "metrics": {"mAP": mAP, "AP50": 0.6, "APs": -1.0}}


def judged(now: dict[str, Any], **given: Any) -> Agreement:
    known: dict[str, Any] = {
        "seed_values": [0.5],
        "decisive": ["versions.torch"],
        "on_cpu": True,
        "shown": ["mAP", "AP50", "APs"],
        **given,
    }
    return judge(result(0.5), now, **known)


def test_judge__every_bit_the_same__reproduced_whatever_differs() -> None:
    agreement = judged(result(0.5))
    assert agreement.exit_code == 0
    assert str(agreement) == "REPRODUCED: the weights of best.ckpt and last.ckpt are bit-identical"


def test_judge__nothing_differs_but_the_weights_on_a_cpu__not_reproduced_however_close() -> None:
    agreement = judged(result(0.5, "b"), decisive=[])
    assert agreement.exit_code == 1
    assert "which should not be" in str(agreement)


def test_judge__nothing_differs_but_the_weights_on_a_gpu__by_the_metrics() -> None:
    agreement = judged(result(0.505, "b"), decisive=[], on_cpu=False)
    assert agreement.exit_code == 0
    assert "a GPU adds in an order of its own" in str(agreement)


@pytest.mark.parametrize(("mAP", "exit_code"), [(0.509, 0), (0.491, 0), (0.511, 1), (0.489, 1)])
def test_judge__one_seed__the_assumed_margin(mAP: float, exit_code: int) -> None:
    agreement = judged(result(mAP, "b"))
    assert agreement.exit_code == exit_code
    assert "versions.torch differ" in str(agreement)
    assert f"mAP lies {abs(mAP - 0.5):.4f} from the original's, 0.010 is allowed" in str(agreement)
    assert "give other seeds with --runs" in str(agreement)
    assert "APs" not in str(agreement)  # -1: there are no small boxes


def test_seed_margin__prediction_interval_of_one_more() -> None:
    # mean 0.5, standard deviation 0.01, t(2) = 4.30: 4.30 * 0.01 * sqrt(4 / 3) = 0.0497
    margin, centre, _ = seed_margin([0.49, 0.5, 0.51])
    assert centre == pytest.approx(0.5)
    assert margin == pytest.approx(0.0497, abs=1e-4)
    # t(9) stands for more: 30 values of standard deviation s give 2.26 * s * sqrt(31 / 30)
    values = [0.4, 0.6] * 15
    assert seed_margin(values)[0] == pytest.approx(2.26 * 0.10171 * (31 / 30) ** 0.5, rel=1e-3)


def test_judge__several_seeds__their_spread_decides() -> None:
    wide = [0.45, 0.5, 0.55]
    assert judged(result(0.6, "b"), seed_values=wide).exit_code == 0
    assert judged(result(0.6, "b"), seed_values=[0.499, 0.5, 0.501]).exit_code == 1
    json = judged(result(0.6, "b"), seed_values=wide).to_json()
    assert json["metrics"]["mAP"] == {"original": 0.5, "now": 0.6}
    assert json["identical"] is False

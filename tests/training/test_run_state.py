import pytest

from detect.training.run_state import RunLength, TrainingState


@pytest.mark.parametrize(
    ("total", "epochs", "last"),
    [(12, 3, 4), (9, 3, 1), (3, 1, 3), (4, 1, 4)],
)
def test_the_last_epoch_may_be_shorter(total: int, epochs: int, last: int) -> None:
    length = RunLength(steps_per_epoch=4, total_steps=total)
    assert length.epochs == epochs
    assert length.steps_of(epochs - 1) == last
    assert sum(length.steps_of(epoch) for epoch in range(epochs)) == total


def test_a_position_counts_steps_since_the_start() -> None:
    assert TrainingState(epoch=2, steps=3, steps_per_epoch=4).global_step == 2 * 4 + 3
    assert TrainingState(epoch=2, steps=0, steps_per_epoch=4).global_step == 8


def test_a_position_can_be_read() -> None:
    assert str(TrainingState(2, 0, 4)) == "after epoch 2"
    assert str(TrainingState(2, 3, 4)) == "in epoch 3, after step 3 of 4"

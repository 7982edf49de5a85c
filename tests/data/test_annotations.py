import pytest

from detect.data.annotations import spread_rows


@pytest.mark.parametrize(
    ("total", "count", "rows"),
    [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (5, 1, [0]), (0, 4, [])],
)
def test_spread_rows__from_the_first_to_the_last_each_once(total: int, count: int, rows: list[int]) -> None:
    assert spread_rows(total, count).tolist() == rows

"""Days, and the two bits that are kept of them."""

from __future__ import annotations

import pytest

from oegw.sst.epochs import MAX_DAY, candidates, day_of, day_with, epoch_of, seconds_left


@pytest.mark.parametrize(
    ("time", "day"),
    [(0.0, 0), (86399.999, 0), (86400.0, 1), (1_700_000_000.0, 19675), (-5.0, 0), (1e30, MAX_DAY)],
)
def test_the_day_of_a_time(time: float, day: int) -> None:
    assert day_of(time) == day


def test_until_midnight() -> None:
    assert seconds_left(0.0) == 86400.0
    assert seconds_left(86399.0) == 1.0


def test_likeliest_first_and_one_day_either_side() -> None:
    assert candidates(20000) == (20000, 19999, 20001)
    assert candidates(0) == (0, 1)
    assert candidates(MAX_DAY) == (MAX_DAY, MAX_DAY - 1)
    assert candidates(None) == (None,)


@pytest.mark.parametrize("today", [3, 19998, 19999, 20000, 20001])
def test_an_epoch_kept_with_a_flow_names_its_day_for_two_days_more(today: int) -> None:
    around = [today - 2, today - 1, today, today + 1]
    assert sorted(epoch_of(day) for day in around) == [0, 1, 2, 3]
    for day in around:
        assert day_with(epoch_of(day), today) == day


def test_where_epochs_are_off_there_is_one() -> None:
    assert epoch_of(None) == 0
    assert day_with(2, None) is None

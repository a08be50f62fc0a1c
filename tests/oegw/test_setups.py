"""The budget of set-ups, in virtual time."""

from __future__ import annotations

import pytest

from oegw.setups import BURST, SetupBudget


def test_so_many_are_under_way_and_no_more() -> None:
    budget = SetupBudget(limit=3, rate=1000)
    assert [budget.refuses(under_way, 0.0) for under_way in range(5)] == [
        None, None, None, "setups_under_way", "setups_under_way",
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [1.0, 250.0, 1000.0])
def test_rate_holds_over_any_time_however_they_come(rate: float) -> None:
    for step in (0.0001, 0.01, 0.3, 7.0):
        budget = SetupBudget(limit=10**9, rate=rate)
        turns, tries = int(20 / step), max(1, int(step * rate * 3))
        begun = 0
        for number in range(turns):
            begun += sum(budget.refuses(0, 5 + number * step) is None for _ in range(tries))
        saved = max(rate * BURST, 1)
        assert begun <= turns * step * rate + saved
        assert begun >= 0.8 * turns * min(step * rate, saved)


def test_a_second_is_saved_up_and_not_more() -> None:
    budget = SetupBudget(limit=10**9, rate=10)
    for moment in (0.0, 1000.0):
        taken = [budget.refuses(0, moment) for _ in range(100)]
        assert taken.count(None) == 10
        assert taken.count("setups_per_second") == 90


def test_what_is_refused_costs_nothing() -> None:
    budget = SetupBudget(limit=1, rate=2)
    for _ in range(100):
        assert budget.refuses(1, 0.0) == "setups_under_way"
    assert [budget.refuses(0, 0.0) for _ in range(3)] == [None, None, "setups_per_second"]


def test_rate_below_one_lets_the_first_begin() -> None:
    budget = SetupBudget(limit=10, rate=0.1)
    assert budget.refuses(0, 0.0) is None
    assert budget.refuses(0, 9.0) == "setups_per_second"
    assert budget.refuses(0, 10.5) is None

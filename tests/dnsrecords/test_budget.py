"""How many questions, and what is kept from strangers."""

from dnsrecords.budget import BURST_SECONDS, Budget


def taken(budget: Budget, now: float, under_way: int = 0, *, ours: bool = False) -> int:
    """How many questions are admitted until one is not."""
    count = 0
    while budget.refusal(under_way, now, ours=ours) is None:
        count += 1
    return count


def test_a_quarter_of_those_under_way_is_ours() -> None:
    budget = Budget(under_way=100, per_second=1000)
    assert budget.refusal(74, 0.0, ours=False) is None
    assert budget.refusal(75, 0.0, ours=False) == "dns_too_many_lookups"
    assert budget.refusal(99, 0.0, ours=True) is None
    assert budget.refusal(100, 0.0, ours=True) == "dns_too_many_lookups"


def test_a_quarter_of_those_per_second_is_ours() -> None:
    budget = Budget(per_second=100)
    assert taken(budget, 10.0) == 100 * BURST_SECONDS * 0.75
    assert budget.refusal(0, 10.0, ours=False) == "dns_too_many_per_second"
    assert taken(budget, 10.0, ours=True) == 100 * BURST_SECONDS * 0.25


def test_tokens_come_back_with_time_and_not_beyond_the_burst() -> None:
    budget = Budget(per_second=100, kept=0.0)
    assert taken(budget, 0.0) == 200
    assert taken(budget, 0.5) == 50
    assert taken(budget, 1000.0) == 200
    assert taken(budget, 999.0) == 0, "a clock that goes back gives nothing"


def test_a_minute_of_a_flood() -> None:
    budget = Budget(per_second=100)
    admitted = sum(
        budget.refusal(0, second + n / 1000, ours=False) is None
        for second in range(60)
        for n in range(1000)
    )
    assert 6000 <= admitted <= 6200

"""What waits: bounded in number, for each host, for strangers, and in time (SST-36)."""

from __future__ import annotations

from ipaddress import ip_address

from oegw.sst.allowance import Allowance
from oegw.sst.holding import HELD_PER_HOST, Held, Holding
from oegw.sst.interface import Caught, Leg, Reason, Way


def held(
    number: int, host: str = "192.0.2.1", until: float = 10.0, *, stranger: bool = False
) -> Held:
    caught = Caught(number, Way.OPEN, Leg.OUTSIDE, Reason.UNKNOWN_FLOW, b"")
    return Held(caught, ("keys", host), ip_address(host), until, stranger)


def numbers(those: list[Held]) -> list[int]:
    return [each.caught.number for each in those]


def test_what_waited_comes_back_in_its_order() -> None:
    holding = Holding(10)
    for number in (3, 1, 2):
        assert holding.hold(held(number))
    assert holding.hold(held(4, "192.0.2.2"))
    assert numbers(holding.take(("keys", "192.0.2.1"))) == [3, 1, 2]
    assert holding.take(("keys", "192.0.2.1")) == []
    assert len(holding) == 1


def test_there_is_room_for_so_many_and_no_more() -> None:
    holding = Holding(20)
    assert [holding.hold(held(n)) for n in range(HELD_PER_HOST + 1)].count(True) == HELD_PER_HOST
    more = [holding.hold(held(100 + n, f"192.0.2.{n + 2}")) for n in range(10)]
    assert more.count(True) == 20 - HELD_PER_HOST


def test_one_host_gets_a_quarter_of_much_room() -> None:
    holding = Holding(256)
    assert [holding.hold(held(n)) for n in range(100)].count(True) == 64


def test_strangers_get_half_of_the_room() -> None:
    holding = Holding(20)
    came = [holding.hold(held(n, f"192.0.2.{n}", stranger=True)) for n in range(20)]
    assert came.count(True) == 10
    assert holding.hold(held(99, "192.0.2.99"))
    holding.take(("keys", "192.0.2.0"))
    assert holding.hold(held(98, "192.0.2.98", stranger=True))


def test_each_waits_for_its_time_and_no_longer() -> None:
    holding = Holding(10)
    holding.hold(held(1, until=5.0))
    holding.hold(held(2, "192.0.2.2", until=3.0))
    assert holding.next_end() == 3.0
    assert numbers(holding.overdue(2.9)) == []
    assert numbers(holding.overdue(3.0)) == [2]
    holding.take(("keys", "192.0.2.1"))
    assert holding.next_end() is None
    assert holding.overdue(99.0) == []


def test_a_packet_that_is_held_again_keeps_its_end() -> None:
    holding = Holding(10)
    holding.hold(held(1, until=5.0))
    holding.take(("keys", "192.0.2.1"))
    holding.hold(held(1, until=5.0))
    assert numbers(holding.overdue(5.0)) == [1]
    assert holding.overdue(6.0) == []
    assert len(holding) == 0


def test_an_allowance_is_a_burst_and_a_rate() -> None:
    allowance = Allowance(2.0, 5.0)
    assert [allowance.take(0.0) for _ in range(7)].count(True) == 5
    assert [allowance.take(1.0) for _ in range(7)].count(True) == 2
    assert [allowance.take(100.0) for _ in range(7)].count(True) == 5
    assert not allowance.take(50.0)  # a clock that goes back gives nothing

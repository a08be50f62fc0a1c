"""Alarms, retransmission, the half-open table and repeated answers."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from ike.alarms import Alarms
from ike.configuration import Configuration
from ike.half_open import HalfOpenTable, source_of
from ike.retransmit import AnsweredMessages, Retransmission
from tests.support.ike_pair import private_key


def test_alarms_ring_in_order_and_once() -> None:
    alarms = Alarms()
    rung: list[str] = []
    for when, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        alarms.set(when, lambda now, name=name: rung.append(name))
    assert alarms.next() == 1.0
    alarms.ring(0.5)
    assert rung == []
    alarms.ring(2.0)
    assert rung == ["a", "b"]
    alarms.ring(9.0)
    alarms.ring(9.0)
    assert rung == ["a", "b", "c"]
    assert alarms.next() is None


def test_an_alarm_cancelled_while_another_rings() -> None:
    alarms = Alarms()
    rung: list[str] = []
    second = None

    def first(now: float) -> None:
        second.cancel()
        alarms.set(now, lambda now: rung.append("later"))

    alarms.set(1.0, first)
    second = alarms.set(1.0, lambda now: rung.append("second"))
    alarms.ring(1.0)
    assert rung == []
    alarms.ring(1.0)
    assert rung == ["later"]
    second.cancel()


def test_cancelled_alarms_do_not_pile_up() -> None:
    alarms = Alarms()
    for index in range(10_000):
        alarms.set(1e6 + index, lambda now: None).cancel()
    assert len(alarms._queue) < 200
    assert alarms.next() is None


def schedule(**settings) -> Retransmission:
    configuration = Configuration(private_key("a"), **settings)
    return Retransmission(configuration, random.Random(3).randbytes)


def test_intervals_double_within_their_jitter() -> None:
    retransmission = schedule(retransmit_first=0.5, retransmit_factor=2.0, retransmit_jitter=0.1)
    waits = []
    while not retransmission.exhausted:
        waits.append(retransmission.sent(100.0) - 100.0)
    assert len(waits) == 5
    for wait, nominal in zip(waits, (0.5, 1, 2, 4, 8), strict=True):
        assert 0.9 * nominal <= wait <= 1.1 * nominal
    assert (
        len(
            {
                round(wait / nominal, 6)
                for wait, nominal in zip(waits, (0.5, 1, 2, 4, 8), strict=True)
            }
        )
        > 1
    )


def test_giving_up_soon() -> None:
    retransmission = schedule()
    retransmission.sent(0.0)
    retransmission.give_up_soon()
    assert retransmission.exhausted


def test_repeated_answers_are_limited_and_forgotten() -> None:
    answered = AnsweredMessages()
    for index in range(100):
        answered.remember(b"%d" % index, "INFO", b"reply")
    assert not answered.knows(b"0")
    assert answered.knows(b"99")
    assert [answered.again(b"99") is None for _ in range(7)] == [False] * 5 + [True] * 2
    answered.forget()
    assert not answered.knows(b"99")


def test_sources() -> None:
    assert source_of(ip_address("192.1.1.4")) != source_of(ip_address("192.1.1.5"))
    assert source_of(ip_address("2001:db8::1")) == source_of(ip_address("2001:db8::ffff"))
    assert source_of(ip_address("2001:db8::1")) != source_of(ip_address("2001:db8:0:1::1"))


def test_who_must_go() -> None:
    table: HalfOpenTable[str] = HalfOpenTable(4, 3)
    one, two, three = (ip_address(f"10.0.0.{n}") for n in (1, 2, 3))
    table.add(one, 1, "one-1")
    table.add(two, 2, "two-1")
    table.add(two, 3, "two-2")
    assert table.must_go() is None
    table.add(three, 4, "three-1")
    assert table.must_go() == "two-1"  # the oldest of the busiest
    table.remove(two, 2)
    table.add(one, 5, "one-2")
    assert table.must_go() == "one-1"
    table.proved_reachable(one, 1, "one-1")
    assert table.must_go() == "three-1"  # all have one now: who had so for longest
    for address, number, name in ((two, 3, "two-2"), (three, 4, "three-1"), (one, 5, "one-2")):
        table.proved_reachable(address, number, name)
    assert table.fresh == 0
    assert table.must_go() == "one-1"
    assert len(table) == 4
    table.remove(one, 1)
    table.remove(one, 99)
    assert len(table) == 3


def test_a_source_at_its_limit() -> None:
    table: HalfOpenTable[str] = HalfOpenTable(100, 2)
    address = ip_address("10.0.0.1")
    for number in (1, 2):
        assert table.admits(address)
        table.add(address, number, "x")
    table.proved_reachable(address, 1, "x")
    assert not table.admits(address)
    table.remove(address, 1)
    assert table.admits(address)


@pytest.mark.parametrize("seed", range(3))
def test_the_table_keeps_count_whatever_happens(seed: int) -> None:
    randomness = random.Random(seed)
    table: HalfOpenTable[int] = HalfOpenTable(50, 5)
    here: dict[int, object] = {}
    for number in range(3000):
        address = ip_address(randomness.randrange(20))
        if table.admits(address):
            leaving = table.must_go()
            if leaving is not None:
                table.remove(here.pop(leaving), leaving)
            table.add(address, number, number)
            here[number] = address
        if here and randomness.random() < 0.5:
            other = randomness.choice(list(here))
            if randomness.random() < 0.5:
                table.proved_reachable(here[other], other, other)
            else:
                table.remove(here.pop(other), other)
        assert len(table) == len(here) <= 50

"""Idle times, in times that the test tells."""

from __future__ import annotations

import random
import socket

from oegw.socks5.relay.idleness import Idleness
from oegw.socks5.relay.pair import Pair


def pair(idle: float, active_at: float = 0.0) -> Pair:
    never = socket.socket()
    never.close()
    made = Pair(0, never, never, b"", idle)
    made.active_at = active_at
    return made


def test_who_moves_octets_is_not_over() -> None:
    idleness = Idleness()
    busy, idle = pair(10.0), pair(10.0)
    idleness.watch(busy)
    idleness.watch(idle)
    assert idleness.next() == 10.0
    busy.active_at = 9.0
    assert idleness.over(9.9) == []
    assert idleness.over(10.0) == [idle]
    assert idleness.next() == 19.0
    assert idleness.over(19.0) == [busy]
    idleness.forget(busy)
    assert idleness.next() is None


def test_what_was_forgotten_leaves_nothing_behind() -> None:
    """Connections of a minute, with an idle time of an hour."""
    idleness = Idleness()
    kept = pair(3600.0)
    idleness.watch(kept)
    for number in range(10_000):
        short = pair(3600.0, float(number))
        idleness.watch(short)
        idleness.forget(short)
    assert len(idleness._due) < 100
    assert idleness.over(3600.0) == [kept]


def test_different_idle_times_do_not_wait_for_each_other() -> None:
    idleness = Idleness()
    long, short = pair(3600.0), pair(1.0, 5.0)
    idleness.watch(long)
    idleness.watch(short)
    assert idleness.next() == 6.0
    assert idleness.over(6.0) == [short]


def test_each_is_over_when_its_time_is_by_chance() -> None:
    """Beside a plain reckoning of the same."""
    chance = random.Random(1)
    idleness = Idleness()
    alive: list[Pair] = []
    now = 0.0
    for _ in range(2000):
        now += chance.random()
        what = chance.random()
        if what < 0.3:
            alive.append(pair(chance.choice((5.0, 20.0)), now))
            idleness.watch(alive[-1])
        elif what < 0.8 and alive:
            chance.choice(alive).active_at = now
        found = set(idleness.over(now))
        assert found == {each for each in alive if each.active_at + each.idle <= now}
        for each in found:
            alive.remove(each)
        if what > 0.9 and alive:
            idleness.forget(alive.pop(chance.randrange(len(alive))))

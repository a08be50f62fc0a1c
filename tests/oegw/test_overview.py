"""Sums over all connections and the first few of them, by rates between two looks."""

from __future__ import annotations

import asyncio
import gc
import time
from ipaddress import ip_network
from typing import Any

import pytest

from dnsrecords.trust import Trust
from oegw.connection import Connection, Selectors, State, Tunnel
from oegw.datapath.interface import Usage
from oegw.overview import LONGEST, MOST_ROWS, BadWish, Samples, Shown, Sums, Wanted, wanted
from policy.rule import Category, Rule
from tests.support.playbook import SG_B, inbound_key, outbound_key

RULE = Rule("default", Category.OPPORTUNISTIC)


def keyed(number: int) -> Connection:
    remote = ip_network(f"192.2.{number // 250}.{number % 250}")
    made = Connection(number, Selectors(ip_network("192.1.0.65"), remote), RULE, State.KEYED)
    made.trust = Trust.INSECURE
    made.since = float(number)
    tunnel = Tunnel(number, SG_B, True, inbound_key(number), outbound_key(number), up=True)
    made.tunnels[number] = tunnel
    return made


def look(
    samples: Samples,
    connections: list[Connection],
    octets: dict[int, tuple[int, int]],
    now: float,
    wish: Wanted,
) -> tuple[Sums, list[Shown]]:
    usage = {}
    for number, (came, went) in octets.items():
        usage[inbound_key(number)] = Usage(1, came, None)
        usage[outbound_key(number)] = Usage(1, went, None)
    return asyncio.run(samples.taken(connections, usage, now, wish))


def numbers(shown: list[Shown]) -> list[int]:
    return [each.connection.number for each in shown]


def test_rates_are_what_came_between_two_looks() -> None:
    samples, three = Samples(), [keyed(n) for n in (1, 2, 3)]
    wish = Wanted(rows=2)
    _, first = look(samples, three, {1: (0, 0), 2: (500, 0), 3: (0, 9000)}, 100.0, wish)
    assert [each.rates for each in first] == [(None, None)] * 2
    sums, first = look(samples, three, {1: (0, 40), 2: (2500, 100), 3: (0, 9000)}, 102.0, wish)
    assert [(each.connection.number, each.rates) for each in first] == [
        (2, (1000.0, 50.0)),
        (1, (0.0, 20.0)),
    ]
    assert sums.connections == {"keyed": {"opportunistic": 3}}
    assert (sums.tunnels, sums.trust, sums.matching) == (3, {"insecure": 3}, 3)


def test_two_who_look_at_the_same_time_do_not_shorten_the_time_between() -> None:
    samples, one, wish = Samples(), [keyed(1)], Wanted(rows=1)
    look(samples, one, {1: (0, 0)}, 100.0, wish)
    look(samples, one, {1: (1000, 0)}, 101.0, wish)
    _, [shown] = look(samples, one, {1: (1010, 0)}, 101.01, wish)
    assert shown.rates[0] == pytest.approx(1000, rel=0.01)


def test_after_a_long_time_without_looks_and_with_a_new_tunnel_nothing_is_made_up() -> None:
    samples, one, wish = Samples(), [keyed(1)], Wanted(rows=1)
    look(samples, one, {1: (5000, 0)}, 100.0, wish)
    _, [shown] = look(samples, one, {1: (9000, 0)}, 101.0 + LONGEST, wish)
    assert shown.rates == (None, None)
    _, [shown] = look(samples, one, {1: (10, 0)}, 102.0 + LONGEST, wish)  # its SAs are others now
    assert shown.rates == (0.0, 0.0)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("age", [3, 2, 1]),
        ("octets", [2, 3, 1]),
        ("destination", [1, 2, 3]),
        ("state", [3, 1, 2]),
    ],
)
def test_orders(order: str, expected: list[int]) -> None:
    three = [keyed(n) for n in (1, 2, 3)]
    three[2].state = State.DENIED
    octets = {1: (0, 1), 2: (7, 1), 3: (5, 0)}
    _, shown = look(Samples(), three, octets, 1.0, Wanted(rows=9, order=order))
    assert numbers(shown) == expected
    _, shown = look(Samples(), three, octets, 1.0, Wanted(rows=9, order=order, reverse=True))
    assert numbers(shown) == expected[::-1]


def test_a_text_is_looked_for_in_addresses_state_rule_and_gateway() -> None:
    three = [keyed(n) for n in (1, 2, 3)]
    three[0].tunnels[1].agreed = True
    three[1].state, three[1].reason = State.CLEAR, "No Record"
    for match, expected in (("192.2.0.3", [3]), ("no rec", [2]), (str(SG_B), [1]), ("x", [])):
        wish = wanted({"rows": 5, "match": match.upper()})
        sums, shown = look(Samples(), three, {}, 1.0, wish)
        assert (numbers(shown), sums.matching) == (expected, len(expected)), match


@pytest.mark.parametrize(
    "request_",
    [{"rows": -1}, {"rows": MOST_ROWS + 1}, {"rows": True}, {"order": "beauty"}, {"match": 7}],
)
def test_wishes_that_make_no_sense_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(BadWish, match=next(iter(request_))):
        wanted(request_)


def test_ten_thousand_connections_are_a_fraction_of_a_second_and_leave_room_for_others() -> None:
    many = [keyed(n) for n in range(10_000)]
    usage = {}
    for each in many:
        usage[inbound_key(each.number)] = Usage(1, each.number, None)
        usage[outbound_key(each.number)] = Usage(1, 10, None)
    samples, longest = Samples(), 0.0

    async def watched() -> list[Shown]:
        nonlocal longest
        looking = asyncio.create_task(samples.taken(many, usage, 1.0, Wanted(rows=50)))
        while not looking.done():
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
        return looking.result()[1]

    gc.collect()
    gc.disable()  # it would look at what other tests have left, for longer than all this takes
    try:
        began = time.thread_time()
        shown = asyncio.run(watched())
        seconds = time.thread_time() - began
    finally:
        gc.enable()
    assert len(shown) == 50
    assert seconds < 1.0, seconds  # measured: 0.07
    assert longest < seconds / 2, (longest, seconds)  # others have their turn in between

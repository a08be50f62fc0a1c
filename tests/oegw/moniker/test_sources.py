"""How often a source may ask (MK-26)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from oegw.moniker.sources import BURST_SECONDS, MAX_SOURCES, Sources

ALICE = ip_address("192.0.2.1")


def taken(sources: Sources, source: IPv4Address | IPv6Address, now: float) -> int:
    """How many of a thousand questions are allowed."""
    return sum(sources.take(source, True, now) for _ in range(1000))


def test_mk_26_a_burst_and_then_so_many_a_second() -> None:
    sources = Sources(20.0)
    assert taken(sources, ALICE, 0.0) == 20 * BURST_SECONDS
    assert taken(sources, ALICE, 0.0) == 0
    assert taken(sources, ALICE, 1.0) == 20
    assert taken(sources, ALICE, 1000.0) == 20 * BURST_SECONDS
    assert taken(sources, ALICE, 999.0) == 0  # a clock that goes back gives nothing


def test_mk_26_others_have_their_own() -> None:
    sources = Sources(1.0)
    assert taken(sources, ALICE, 0.0) == 10
    assert taken(sources, ip_address("192.0.2.2"), 0.0) == 10
    assert sources.take(ALICE, False, 0.0)  # who forges her address takes nothing from her


def test_mk_26_a_network_of_ipv6_is_one_source() -> None:
    sources = Sources(1.0)
    assert taken(sources, ip_address("2001:db8::1"), 0.0) == 10
    assert taken(sources, ip_address("2001:db8::ffff:2"), 0.0) == 0
    assert taken(sources, ip_address("2001:db8:0:1::1"), 0.0) == 10


def test_mk_26_the_table_is_bounded_and_a_flood_takes_nothing_from_others() -> None:
    sources = Sources(1.0)
    for number in range(3 * MAX_SOURCES):
        sources.take(IPv4Address(number), False, 0.0)
        assert len(sources) <= MAX_SOURCES
    assert taken(sources, ALICE, 0.0) == 10


def test_one_question_at_least() -> None:
    sources = Sources(0.01)
    assert taken(sources, ALICE, 0.0) == 1
    assert taken(sources, ALICE, 99.0) == 0
    assert taken(sources, ALICE, 201.0) == 1

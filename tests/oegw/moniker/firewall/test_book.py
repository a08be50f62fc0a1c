"""The book of leases, without a kernel."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest

from oegw.moniker.firewall.book import (
    MAX_LEASES,
    MAX_OF_CLIENT,
    MAX_SECONDS,
    NEW_AT_ONCE,
    SLACK,
    Forward,
    Hole,
    LeaseBook,
    full_name,
)
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused

LEASE = Lease(ip_address("10.9.0.2"), ip_address("10.1.0.2"), "tcp", 4711, 60, "starwars", "bob")


def group_of(host: IPAddress) -> tuple[str, int]:
    return ("bob", 3) if str(host) in ("10.1.0.2", "fd00:1::2") else ("", MAX_LEASES)


@pytest.fixture
def book() -> LeaseBook:
    return LeaseBook(group_of)


def from_client(number: int, **changes: object) -> Lease:
    client = ip_address(0x0B000000 + number)
    return replace(LEASE, client=client, host=ip_address("10.2.0.1"), **changes)


def code(book: LeaseBook, lease: Lease, now: float = 0.0) -> str:
    with pytest.raises(LeaseRefused) as refused:
        book.open(lease, now)
    return refused.value.code


def test_a_lease_lives_for_its_time_and_a_little(book: LeaseBook) -> None:
    held = book.open(LEASE, 100.0)
    assert held.until == 160 + SLACK
    assert book.expire(160 + SLACK - 0.1) == []
    assert [each.lease for each, _ in book.expire(160 + SLACK)] == [LEASE]
    assert len(book) == 0


def test_asked_for_again_it_is_renewed_and_never_shorter(book: LeaseBook) -> None:
    book.open(LEASE, 0.0)
    assert book.open(LEASE, 10.0).until == 70 + SLACK
    assert book.open(replace(LEASE, seconds=5), 11.0).until == 70 + SLACK
    assert len(book) == 1


def test_nobody_leases_for_a_day(book: LeaseBook) -> None:
    assert book.open(replace(LEASE, seconds=86400), 0.0).lease.seconds == MAX_SECONDS


def test_an_ipv4_address_is_one_also_as_ipv6(book: LeaseBook) -> None:
    mapped = replace(LEASE, client=ip_address("::ffff:10.9.0.2"))
    assert book.open(mapped, 0.0).hole == Hole.of(LEASE)


def test_mptcp_is_tcp_on_the_wire() -> None:
    assert Hole.of(replace(LEASE, transport="mptcp")) == Hole.of(LEASE)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transport": "carrier-pigeon"}, "transport"),
        ({"client": ip_address("fd00::1")}, "malformed"),
        ({"port": 0}, "malformed"),
        ({"port": 65536}, "malformed"),
        ({"seconds": 0}, "malformed"),
    ],
)
def test_what_can_not_be_a_lease(
    book: LeaseBook, changes: dict[str, object], expected: str
) -> None:
    assert code(book, replace(LEASE, **changes)) == expected
    assert len(book) == 0


def test_a_host_has_a_limit_over_all_its_addresses(book: LeaseBook) -> None:
    for port in (1, 2):
        book.open(replace(LEASE, port=port), 0.0)
    six = replace(LEASE, client=ip_address("fd00::9"), host=ip_address("fd00:1::2"))
    book.open(six, 0.0)
    assert code(book, replace(LEASE, port=4)) == "busy"
    book.end(lambda held: held.hole.port == 2)
    book.open(replace(LEASE, port=4), 0.0)


def test_a_client_has_a_limit_and_a_network_of_ipv6_is_one_client(book: LeaseBook) -> None:
    for port in range(1, MAX_OF_CLIENT + 1):
        book.open(from_client(1, port=port), 0.0)
    assert code(book, from_client(1, port=9999)) == "busy"
    book.open(from_client(2), 0.0)
    six = replace(LEASE, host=ip_address("fd00:2::1"))
    for number in range(MAX_OF_CLIENT):
        book.open(replace(six, client=ip_address(f"fd00:9::{number + 1:x}")), 0.0)
    assert code(book, replace(six, client=ip_address("fd00:9::ffff:1"))) == "busy"
    book.open(replace(six, client=ip_address("fd00:9:0:1::1")), 0.0)


def test_new_leases_have_a_rate_and_renewals_do_not(book: LeaseBook) -> None:
    for number in range(int(NEW_AT_ONCE)):
        book.open(from_client(number), 0.0)
    assert code(book, from_client(5000)) == "busy"
    book.open(from_client(7), 0.0)
    book.open(from_client(5000), 0.01)


def test_what_one_host_has_opened_takes_nothing_from_another() -> None:
    """Neither its leases for somebody else's address, nor that it opens and ends all the time."""
    names = {"10.1.0.2": "bob", "10.1.0.3": "eve"}
    book = LeaseBook(lambda host: (names[str(host)], 256))
    eves = replace(LEASE, host=ip_address("10.1.0.3"))
    for port in range(1, MAX_OF_CLIENT + 1):
        book.open(replace(eves, port=port), 0.0)
    assert code(book, replace(eves, port=9999)) == "busy"
    book.open(LEASE, 0.0)
    for number in range(int(NEW_AT_ONCE)):
        with suppress(LeaseRefused):
            book.open(replace(eves, client=ip_address(0x0B000000 + number)), 1.0)
        book.end(lambda held: held.group == "eve")
    assert code(book, eves, 1.0) == "busy"
    book.open(replace(LEASE, port=4712), 1.0)
    book.open(eves, 2.0)


def test_an_end_looks_at_the_leases_of_its_port_only(book: LeaseBook) -> None:
    for port in (80, 443):
        book.open(from_client(1, port=port), 0.0)
    seen = []
    book.end(lambda held: bool(seen.append(held.hole.port)) or True, (6, 443))
    assert seen == [443]
    assert [held.hole.port for held in book] == [80]
    assert book.end(lambda held: True, (17, 80)) == []


def test_there_are_never_more_than_the_kernel_holds(book: LeaseBook) -> None:
    for number in range(MAX_LEASES):
        book.open(from_client(number), number / 100)
    assert code(book, from_client(MAX_LEASES), 1e6) == "busy"
    book.expire(1e6)
    book.open(from_client(MAX_LEASES), 1e6)


def test_a_forward_lives_and_ends_with_its_lease(book: LeaseBook) -> None:
    hole = Hole.of(LEASE)
    forward = Forward(hole, ip_address("10.2.0.1"), 33333)
    with pytest.raises(ValueError, match="under a lease only"):
        book.add_forward(forward)
    book.open(LEASE, 0.0)
    book.add_forward(forward)
    assert book.forward(hole, ip_address("10.2.0.1")) == forward
    assert book.forward(hole, ip_address("10.2.0.9")) is None
    ((_, forwards),) = book.end(lambda held: True)
    assert forwards == [forward]
    assert book.forward(hole, ip_address("10.2.0.1")) is None


def test_a_lease_of_a_process_before_us_costs_no_credit(book: LeaseBook) -> None:
    for number in range(int(NEW_AT_ONCE) + 10):
        held = book.adopt(from_client(number), 12.5, 100.0)
        assert held is not None
        assert held.until == 112.5
    assert book.adopt(replace(LEASE, port=0), 5, 0.0) is None


def test_counts_are_those_of_what_is_there(book: LeaseBook) -> None:
    """After any order of opening, ending and expiring, an empty book admits what a new one does."""
    dice = random.Random(7)
    now = 0.0
    for _ in range(2000):
        now += dice.random()
        port, seconds = dice.randrange(1, 9), dice.randrange(1, 9)
        lease = from_client(dice.randrange(5), port=port, seconds=seconds)
        try:
            book.open(lease, now)
        except LeaseRefused:
            pytest.fail("nothing is near a limit")
        if dice.random() < 0.2:
            book.end(lambda held, port=port: held.hole.port == port)
        book.expire(now)
    book.end(lambda held: True)
    assert not book._of_client  # the counters of an empty book are empty: nothing leaks
    assert not book._of_group
    assert not book._of_port


def test_the_full_name_has_the_namespace() -> None:
    assert full_name(LEASE) == "bob::starwars"
    assert full_name(replace(LEASE, namespace="")) == "starwars"

"""What the reverse zone calls an address: as a conversation, and from a server."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from dnsrecords.outcome import Malformed, NameOutcome, NamesFound, NothingFound, Unanswered
from dnsrecords.pointer import MAX_NAMES, PointerLookup
from dnsrecords.question import Answer, Question, Status
from dnsrecords.resolver import Resolver
from dnsrecords.trust import Trust
from tests.support.dns_server import LOOPBACK, DnsServer

BOB = ip_address("192.2.0.66")
AT_BOB = Question("66.0.2.192.in-addr.arpa.", "PTR")


def wire(name: str) -> bytes:
    labels = [label.encode("latin-1") for label in name.split(".") if label]
    return b"".join(bytes([len(each)]) + each for each in labels) + b"\0"


def answered(*records: bytes, trust: Trust = Trust.INSECURE) -> PointerLookup:
    lookup = PointerLookup(BOB)
    assert lookup.next_question() == AT_BOB
    assert lookup.next_question() is None
    lookup.receive_answer(Answer(AT_BOB, Status.ANSWERED, records, 300.0, trust))
    assert lookup.next_question() is None
    return lookup


def test_names_in_an_order_of_our_own() -> None:
    for records in ((wire("b.example"), wire("a.example")), (wire("a.example"), wire("b.example"))):
        assert answered(*records).result == NamesFound(
            ("a.example", "b.example"), 300.0, Trust.INSECURE
        )
    many = [wire(f"h{number}.example") for number in range(MAX_NAMES + 5)]
    result = answered(*many).result
    assert isinstance(result, NamesFound)
    assert len(result.names) == MAX_NAMES


@pytest.mark.parametrize(
    "rdata",
    [
        b"",
        b"\x00",
        b"\x05bob",
        b"\x03bob",
        wire("a b.example"),
        b"\x0bbob.example\x00",
        b"\xc0\x0c",
    ],
)
def test_what_is_no_hosts_name_says_nothing(rdata: bytes) -> None:
    lookup = answered(rdata)
    assert isinstance(lookup.result, NothingFound)
    assert [trigger for trigger, _ in lookup.notes] == ["domain_name_malformed"]
    assert answered(rdata, wire("bob.example")).result == NamesFound(
        ("bob.example",), 300.0, Trust.INSECURE
    )


def test_failures() -> None:
    assert isinstance(answered(wire("bob.example"), trust=Trust.BOGUS).result, Malformed)
    for status, kind in ((Status.NO_NAME, NothingFound), (Status.UNANSWERED, Unanswered)):
        lookup = PointerLookup(BOB)
        lookup.next_question()
        lookup.receive_answer(Answer(AT_BOB, status))
        assert isinstance(lookup.result, kind)
        lookup.receive_answer(Answer(AT_BOB, Status.ANSWERED, (wire("late.example"),)))
        assert isinstance(lookup.result, kind)


def test_private_reverse_names_are_not_asked_for() -> None:
    lookup = PointerLookup(ip_address("10.1.2.3"), lambda address: not address.is_private)
    assert lookup.next_question() is None
    assert isinstance(lookup.result, NothingFound)


def test_from_a_server_that_compresses_names() -> None:
    records = {
        AT_BOB.name: {"PTR": ["BOB.2.192.in-addr.arpa.", "bob.example."]},
        "67.0.2.192.in-addr.arpa.": {"CNAME": ["67.64/26.0.2.192.in-addr.arpa."]},
        "67.64/26.0.2.192.in-addr.arpa.": {"PTR": ["carol.example."]},
    }

    async def run() -> list[NameOutcome]:
        async with DnsServer(records, authentic=True) as server:
            loopback = ip_address(LOOPBACK)
            resolver = Resolver([loopback], trusted=[loopback], port=server.port)
            hosts = (BOB, ip_address("192.2.0.67"), ip_address("192.2.0.68"))
            return [await resolver.run(PointerLookup(host)) for host in hosts]

    bob, carol, nobody = asyncio.run(run())
    assert bob == NamesFound(("bob.2.192.in-addr.arpa", "bob.example"), 300.0, Trust.SECURE)
    assert carol == NamesFound(("carol.example",), 300.0, Trust.SECURE)
    assert isinstance(nobody, NothingFound)

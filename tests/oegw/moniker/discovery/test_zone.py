"""The zone of exported services: what is said to a question."""

from __future__ import annotations

import random
import time
from ipaddress import ip_address
from typing import Any

import pytest

from dnsrecords.dnssd import Address, Code, Labels, Place, Pointer, Record, Reply, Start
from dnsrecords.errors import RecordError
from oegw.moniker.discovery.naming import Instances
from oegw.moniker.discovery.zone import MAX_TOLD, Zone, labels_of
from oegw.moniker.interface import Entry
from tests.support.moniker_entries import entry

DOMAIN = ("site-b", "example")
HOST = ("bob", *DOMAIN)
FOUR, SIX = ip_address("192.2.0.66"), ip_address("2001:db8:2::66")
TYPE = ("_starwars", "_tcp", *DOMAIN)


def zone(*entries: Entry, host: Labels = HOST) -> Zone:
    return Zone(DOMAIN, host, [FOUR, SIX], Instances("bob").named(entries), 7)


def contents(records: tuple[Record, ...]) -> list[Any]:
    return [record.content for record in records]


def test_browsing_gives_instances_and_what_will_be_asked_next() -> None:
    """RFC 6763 sections 4.1 and 12.1."""
    reply = zone(entry(port=28403)).reply(TYPE, "PTR")
    assert contents(reply.answers) == [Pointer(("starwars 1 on bob", *TYPE))]
    place, text, four, six = contents(reply.additional)
    assert place == Place(0, 100, 28403, HOST)
    assert text.strings[1] == b"version=1"
    assert (four, six) == (Address(FOUR), Address(SIX))


def test_an_instance_has_a_place_and_a_text() -> None:
    of_two = zone(entry(), entry(version="2", port=50000, weight=7))
    name = ("StarWars 2 on BOB", *TYPE)
    assert contents(of_two.reply(name, "SRV").answers) == [Place(0, 7, 50000, HOST)]
    assert len(of_two.reply(name, "TXT").answers) == 1
    assert len(of_two.reply(name, "ANY").answers) == 2


def test_plain_srv_prefers_the_highest_version_of_the_system() -> None:
    """RFC 2782, for programs that know no more."""
    told = zone(
        entry(version="1.2", port=50001),
        entry(version="10", port=50002, weight=3),
        entry(version="10", port=50003, transport="mptcp"),
        entry(version="11", port=50004, namespace="reynolds"),
        entry(version="12", port=50005, transport="sctp"),
    )
    places = contents(told.reply(TYPE, "SRV").answers)
    assert sorted((p.priority, p.weight, p.port) for p in places) == [
        (0, 3, 50002),
        (0, 100, 50003),
        (1, 100, 50001),
    ]
    sctp = contents(told.reply(("_starwars", "_sctp", *DOMAIN), "SRV").answers)
    assert [place.port for place in sctp] == [50005]


def test_types_and_domains_can_be_browsed() -> None:
    told = zone(entry(), entry("chess", transport="udp"), entry(version="2"))
    types = contents(told.reply(("_services", "_dns-sd", "_udp", *DOMAIN), "PTR").answers)
    assert types == [Pointer(TYPE), Pointer(("_chess", "_udp", *DOMAIN))]
    for word in ("b", "lb"):
        answers = told.reply((word, "_dns-sd", "_udp", *DOMAIN), "PTR").answers
        assert contents(answers) == [Pointer(DOMAIN)]


def test_a_service_of_one_address_has_a_target_with_just_that() -> None:
    told = zone(entry(address=SIX), entry(version="2"))
    one, both = contents(told.reply(TYPE, "SRV").answers)
    if one.target == HOST:
        one, both = both, one
    assert contents(told.reply(one.target, "AAAA").answers) == [Address(SIX)]
    assert told.reply(one.target, "A").answers == ()
    assert both.target == HOST


def test_what_there_is_not() -> None:
    told = zone(entry())
    soa = [Start(HOST, 7, 10)]
    missing = told.reply(("_chess", "_tcp", *DOMAIN), "PTR")
    assert (missing.code, missing.answers, contents(missing.authority)) == (Code.NXDOMAIN, (), soa)
    for name, rdtype in ((TYPE, "A"), (("_tcp", *DOMAIN), "PTR"), (HOST, "TXT")):
        nothing = told.reply(name, rdtype)
        assert (nothing.code, nothing.answers) == (Code.NOERROR, ())
        assert contents(nothing.authority) == soa
    for foreign in (("example",), ("bob", "site-c", "example"), ()):
        assert told.reply(foreign, "A") == Reply(Code.REFUSED)


def test_a_host_that_has_another_name_is_told_by_it() -> None:
    told = zone(entry(), host=("bob", "lab", "example"))
    (place,) = contents(told.reply(TYPE, "SRV").answers)
    assert place.target == ("bob", "lab", "example")
    assert told.reply(place.target, "A").code is Code.REFUSED, "others answer for that"


def test_a_thousand_instances_are_bounded_in_time_and_length() -> None:
    def seconds(count: int) -> float:
        entries = [entry(text=("x=" + "y" * 200,)) for _ in range(count)]
        start = time.process_time()
        reply = zone(*entries).reply(TYPE, "PTR")
        assert len(reply.answers) == min(count, MAX_TOLD)
        assert len(reply.additional) < 400
        return time.process_time() - start

    assert seconds(1024) < 40 * max(seconds(256), 0.005), "grows with the number, not its square"


def test_the_apex_and_all_records_can_be_told() -> None:
    told = zone(entry(text=('quote="\\',)))
    assert list(told.reply(DOMAIN, "SOA").answers) == told.records()[:1]
    assert told.reply(DOMAIN, "AXFR") == Reply(Code.REFUSED), "half a transfer would be none"
    lines = [record.line for record in told.records()]
    assert lines[0].startswith("site-b.example. 10 IN SOA bob.site-b.example.")
    assert any('"quote=\\"\\\\"' in line for line in lines)


@pytest.mark.parametrize("text", ["", ".", "a..b", "x" * 64 + ".example"])
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(RecordError):
        labels_of(text)


def test_hostile_names_get_an_answer() -> None:
    dice = random.Random(1035)
    told = zone(entry(), entry("ß", version="2"))
    owners = [record.owner for record in told.records()]
    for _ in range(2_000):
        labels = list(dice.choice(owners))
        labels[dice.randrange(len(labels))] = chr(dice.randrange(0x250)) * dice.randrange(1, 9)
        del labels[dice.randrange(len(labels) + 1) :]
        reply = told.reply(tuple(labels), dice.choice(["PTR", "SRV", "TXT", "ANY", "TYPE999"]))
        assert reply.code in (Code.NOERROR, Code.NXDOMAIN, Code.REFUSED)

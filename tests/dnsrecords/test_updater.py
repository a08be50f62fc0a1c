"""Dynamic updates, against BIND."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.update
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.delegation import Delegation
from dnsrecords.key import HostKey
from dnsrecords.published import PublishedRecord, TsigKey
from dnsrecords.updater import UpdateError, Updater
from tests.support.named import LOOPBACK, MINIMUM, Named

ZONE, OTHER = "1.1.192.in-addr.arpa.", "example."
SERVER = IPv4Address(LOOPBACK)
NAME_SERVER = "ns.example. A 127.0.0.1"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    with Named(
        tmp_path_factory.mktemp("updater"),
        [ZONE, OTHER],
        {
            OTHER: [NAME_SERVER],
            ZONE: ["9.1.1.192.in-addr.arpa. CNAME nine.example.", '8 TXT "v=spf1 -all"'],
        },
    ) as server:
        yield server


@pytest.fixture(scope="module")
def key() -> rsa.RSAPublicKey:
    return rsa.generate_private_key(65537, 2048).public_key()


@pytest.fixture
def updater(named: Named) -> Updater:
    return updater_of(named)


def updater_of(named: Named, secret: bytes | None = None) -> Updater:
    tsig = TsigKey.parse(named.key_file.read_text())
    if secret is not None:
        tsig = replace(tsig, secret=secret)
    return Updater([SERVER], key=tsig, port=named.port)


def delegation(last: int, key: rsa.RSAPublicKey) -> PublishedRecord:
    record = Delegation(10, address=IPv4Address("192.1.1.4"), key=key)
    return PublishedRecord.of_delegation(f"{last}.1.1.192.in-addr.arpa", record)


def test_the_zone_its_primary_and_its_servers_are_found(
    updater: Updater, key: rsa.RSAPublicKey
) -> None:
    zone = updater.zone_of(delegation(65, key))
    assert (zone.name, zone.primary, zone.servers) == (ZONE, SERVER, (SERVER,))
    assert zone.minimum == MINIMUM


def test_records_come_and_go_and_what_others_published_stays(
    updater: Updater, key: rsa.RSAPublicKey
) -> None:
    records = [
        delegation(8, key),
        PublishedRecord.of_key("4.1.1.192.in-addr.arpa", HostKey(key)),
        PublishedRecord.of_key("sg-a.example", HostKey(key)),
    ]
    spf = PublishedRecord("8.1.1.192.in-addr.arpa.", "TXT", b"\x0bv=spf1 -all", "")
    assert [absence.record for absence in updater.absences(records)] == records
    assert {zone.name for zone in updater.change(records)} == {ZONE, OTHER}
    assert not updater.absences([*records, spf])
    updater.change(records)  # once more is no error
    updater.change([], records)
    assert [absence.record for absence in updater.absences(records)] == records
    assert not updater.absences([spf])
    updater.change([], records)


def test_a_reverse_name_that_is_an_alias_is_followed(
    updater: Updater, key: rsa.RSAPublicKey
) -> None:
    """RFC 2317: small networks have their reverse names elsewhere."""
    record = delegation(9, key)
    assert updater.zone_of(record).name == OTHER
    updater.change([record])
    assert not updater.absences([record])
    there = replace(record, owner="nine.example.")
    assert not updater.absences([there])
    updater.change([], [record])


def test_the_time_that_resolvers_may_remember(updater: Updater, key: rsa.RSAPublicKey) -> None:
    record = delegation(66, key)
    assert updater.holding_time([record]) == MINIMUM
    updater.change([record], ttl=77)
    assert updater.holding_time([record]) == 77
    updater.change([], [record])


def test_an_update_with_a_wrong_secret_is_refused_and_said(
    named: Named, key: rsa.RSAPublicKey
) -> None:
    with pytest.raises(UpdateError, match=r"127\.0\.0\.1: update of zone 1\.1\.192\.in-addr\.arpa"):
        updater_of(named, b"guessed").change([delegation(67, key)])
    assert updater_of(named).absences([delegation(67, key)])


def test_an_answer_that_is_not_signed_is_not_believed(
    updater: Updater, key: rsa.RSAPublicKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8945 section 5.3.1: whoever is in between says that all is done."""
    exchange = Updater._exchange

    def forged(
        self: Updater, query: dns.message.Message, server: IPv4Address, what: str
    ) -> dns.message.Message:
        if not isinstance(query, dns.update.UpdateMessage):
            return exchange(self, query, server, what)
        answer = dns.update.UpdateMessage(ZONE, id=query.id)
        answer.flags |= dns.flags.QR
        return dns.message.from_wire(answer.to_wire())

    monkeypatch.setattr(Updater, "_exchange", forged)
    with pytest.raises(UpdateError, match="the answer is not signed"):
        updater.change([delegation(67, key)])


def test_an_update_without_a_key_is_refused(named: Named, key: rsa.RSAPublicKey) -> None:
    with pytest.raises(UpdateError, match=r"refused: REFUSED .*there is no TSIG key"):
        Updater([SERVER], port=named.port).change([delegation(67, key)])


def test_a_name_in_no_zone_of_ours(updater: Updater) -> None:
    record = PublishedRecord("x.nowhere.test.", "TXT", b"\x01x", "")
    with pytest.raises(UpdateError, match=r"x\.nowhere\.test\. CNAME: REFUSED"):
        updater.zone_of(record)


def test_a_server_that_is_not_there(named: Named, key: rsa.RSAPublicKey) -> None:
    updater = Updater([SERVER], port=1, timeout=0.5)
    with pytest.raises(UpdateError, match=r"127.0.0.1: 65.* CNAME: Connection refused"):
        updater.zone_of(delegation(65, key))


def test_a_server_without_dynamic_updates_is_said_to_be_one(
    updater: Updater, key: rsa.RSAPublicKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Updater._exchange

    def like_nsd(
        self: Updater, query: dns.message.Message, server: IPv4Address, what: str
    ) -> dns.message.Message:
        if query.opcode() != dns.opcode.UPDATE:
            return exchange(self, query, server, what)
        response = dns.message.Message(query.id)
        response.set_rcode(dns.rcode.NOTIMP)
        return response

    monkeypatch.setattr(Updater, "_exchange", like_nsd)
    with pytest.raises(UpdateError, match=r"NOTIMP \(it takes no dynamic updates\)"):
        updater.change([delegation(66, key)])

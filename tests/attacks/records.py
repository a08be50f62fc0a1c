"""Attacks by DNS records: rows 6, 15 and 17."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.delegation import Delegation
from dnsrecords.errors import MalformedDelegation, MalformedRsaKey
from dnsrecords.outcome import GatewaysFound, KeysFound, Malformed, NothingFound, Unanswered
from dnsrecords.question import Status
from dnsrecords.trust import Trust
from oegw import commands as do
from oegw import events as happened
from oegw.assurance import UnsignedDelegation
from oegw.commands import Verdict
from policy.rule import OnFailure, Require
from tests.attacks.frame import attack, replaced, survived
from tests.dnsrecords import test_delegation, test_lookup, test_message
from tests.dnsrecords.test_lookup import AT_BOB, AT_SG_B, SG_B, converse, found, in_order, to
from tests.dnsrecords.test_rsakey import MODULUS, octets
from tests.support.dns_keys import KEY_1024, key_rdata, many_keys, txt
from tests.support.playbook import BOB, SG_D, Playbook, opportunistic, ping
from tests.support.playbook import found as delegated

HOSTILE_KEYS = {
    "exponent 0": octets(b"\x00", MODULUS),
    "exponent 1": octets(b"\x01", MODULUS),
    "exponent 2": octets(b"\x02", MODULUS),
    "even exponent": octets(b"\x01\x00\x00", MODULUS),
    "huge exponent": octets(b"\x01" * 9, MODULUS),
    "even modulus": octets(b"\x03", MODULUS + 1),
    "tiny modulus": octets(b"\x03", (1 << 511) + 1),
    "huge modulus": octets(b"\x03", (1 << 8192) + 1),
    "exponent longer than the record": octets(b"\x03", MODULUS, b"\x00\xff\xff"),
    "exponent's length in the long form": octets(b"\x03", MODULUS, b"\x00\x00\x01"),
}


def _parse_anything(data: bytes) -> rsa.RSAPublicKey:
    """A parser that believes what the record says of itself."""
    length, rest = data[0], data[1:]
    if length == 0:
        length, rest = int.from_bytes(data[1:3], "big"), data[3:]
    e, n = int.from_bytes(rest[:length], "big"), int.from_bytes(rest[length:], "big")

    class Numbers:
        key_size = n.bit_length()

        def public_numbers(self) -> rsa.RSAPublicNumbers:
            return rsa.RSAPublicNumbers(e, n)

    return Numbers()  # type: ignore[return-value]


@attack(
    6,
    "Keys with exponents 0, 1, 2, even ones; moduli that are even, tiny, huge; lengths that lie",
    source="CVE-2018-17540, CVE-2026-14957",
    defence="dnsrecords/rsakey.py parse",
    otherwise="such a key is used: any signature holds, or the verifier works for seconds",
    without=replaced(("dnsrecords.rsakey.parse", _parse_anything)),
)
def hostile_keys() -> None:
    for name, data in HOSTILE_KEYS.items():
        begun = time.process_time()
        with survived():
            try:
                rsakey.parse(data)
            except MalformedRsaKey:
                pass
            else:
                raise AssertionError(f"{name}: taken")
        assert time.process_time() - begun < 0.01, name


@attack(
    6,
    "A KEY record with a key that was factored long ago, beside a good one",
    source="CVE-2018-17540",
    defence="dnsrecords/rsakey.py parse",
    otherwise="whoever factored the old key signs as its owner",
    without=replaced(("dnsrecords.rsakey.MIN_MODULUS_BITS", 256)),
)
def small_key_beside_a_good_one() -> None:
    small = b"\x42\x00\x04\x01" + octets(b"\x03", (1 << 511) + (1 << 100) + 1)
    from dnsrecords.lookup import KeyLookup

    outcome = converse(KeyLookup(SG_B), found(AT_SG_B, small, key_rdata(KEY_1024)))
    assert isinstance(outcome, KeysFound)
    assert [key.key_size for key in outcome.keys] == [1024]


_NEAR_MISSES = (
    "(65536)=192.1.1.5", "(-1)=192.1.1.5", "(0x)=192.1.1.5", "((10))=192.1.1.5",
    "(10)=@a=b.example", "(10)=@road\x00.example", "(10)=192.1.1.5/32", "(10)=192.1.1.5 AQN*",
    "(10)=0.0.0.0", "(10)=255.255.255.255", "(10)=127.0.0.1",
)  # fmt: skip


@attack(
    15,
    "TXT records with our name that say nonsense: precedences, names, addresses, keys",
    source="CVE-2013-2052, CVE-2013-2053, CVE-2013-2054",
    defence="dnsrecords/delegation.py Delegation.parse",
    otherwise="what can't be read counts as no record, and the traffic goes in the clear",
    without=replaced(("dnsrecords.delegation.Delegation.parse", lambda rdata: None)),
)
def hostile_delegations() -> None:
    for rest in _NEAR_MISSES:
        with survived():
            with pytest.raises(MalformedDelegation) as caught:
                Delegation.parse(txt(f"X-IPsec-Server{rest}"))
            assert len(str(caught.value)) < 250


@attack(
    15,
    "64 kilobytes of text, of blanks, of parentheses in one TXT record",
    source="CVE-2013-2052",
    defence="dnsrecords/delegation.py MAX_TEXT",
    otherwise="the record is read to its end",
    without=replaced(
        ("dnsrecords.delegation.MAX_TEXT", 1 << 20),
        ("dnsrecords.rsakey._MAX_TEXT", 1 << 20),
    ),
)
def sixty_four_kilobytes() -> None:
    test_delegation.test_64_kilobytes_take_bounded_time()
    for blanks in (5000, 60000):
        text = "X-IPsec-Server(10)=192.1.1.5" + " " * blanks
        rdata = txt(*[text[at : at + 255] for at in range(0, len(text), 255)])
        with pytest.raises(MalformedDelegation):
            Delegation.parse(rdata)


@attack(
    15,
    "500 delegations at one name, 20 keys of one gateway",
    source="Openswan's cap of ten records",
    defence="dnsrecords/lookup.py MAX_DELEGATIONS",
    otherwise="each of them is tried, one negotiation after the other",
    without=replaced(
        ("dnsrecords.lookup.MAX_DELEGATIONS", 1 << 20), ("dnsrecords.reading.MAX_KEYS", 1 << 20)
    ),
)
def many_records() -> None:
    from ipaddress import ip_address

    from dnsrecords.lookup import GatewayLookup

    addresses = [ip_address(0xC0010100 + n) for n in range(500)]
    records = [to(address, 10, KEY_1024) for address in addresses]
    outcome = converse(GatewayLookup(test_lookup.BOB, in_order), found(AT_BOB, *records))
    assert isinstance(outcome, GatewaysFound)
    assert len(outcome.gateways) <= 32
    keys = [to(SG_B, 10, key) for key in many_keys(20)]
    outcome = converse(GatewayLookup(test_lookup.BOB, in_order), found(AT_BOB, *keys))
    assert len(outcome.gateways[0].keys) <= 16


def _read_each_time(self: Any) -> Any:
    """MessageReader._name that does not remember, and lets pointers point anywhere."""
    labels: list[bytes] = []
    at, end, hops = self._position, None, 0
    while True:
        length = self._octets[at]
        if length & 0xC0 == 0xC0:
            end = at + 2 if end is None else end
            at = (length & 0x3F) << 8 | self._octets[at + 1]
            hops += 1
            assert hops < 10_000, "a pointer that points to itself"
        elif length:
            labels.append(bytes(self._octets[at + 1 : at + 1 + length]).lower())
            at += 1 + length
        else:
            break
    self._position = at + 1 if end is None else end
    return tuple(labels)


@attack(
    15,
    "Compressed names that point to themselves, forward, and through thousands of pointers",
    source="pluto's changelog (compression loops)",
    defence="dnsrecords/message.py MessageReader._name",
    otherwise="the reader never comes back",
    without=replaced(("dnsrecords.message.MessageReader._name", _read_each_time)),
)
def compression_loops() -> None:
    for name in (b"\xc0\x0c", b"\xc0\x00", b"\x01a\xc0\x0c"):
        test_message.test_hostile_names(name, "points forward")
    test_message.test_pointers_to_pointers_and_long_names_take_bounded_time()


def decide(outcome: Any, on_failure: OnFailure) -> Verdict:
    """What the gateway does with a packet, the look-up having ended so."""
    book = Playbook(default=opportunistic("default", on_failure=on_failure))
    [lookup] = [c for c in book.send(ping(1)) if isinstance(c, do.StartLookup)]
    commands = book.send(happened.LookupEnded(lookup.lookup, outcome))
    released = [c for c in commands if isinstance(c, do.ReleaseHeld)]
    return released[0].verdict if released else Verdict.DENY


def _always_as_the_rule_says(fall_back: Any) -> Any:
    def lenient(self: Any, connection: Any, lifespan: Any, reason: Any, now: Any, **more: Any):
        fall_back(self, connection, lifespan, reason, now)

    return lenient


def _bind() -> Any:
    from oegw.ledger import Ledger

    return Ledger.fall_back


@attack(
    17,
    "Records that can't be read, or that DNSSEC calls bogus, in the hope for clear text",
    source="RFC 4322 sections 3.2.4 and 9.1",
    defence="oegw/ledger.py Ledger.fall_back",
    otherwise="whoever spoils a record gets the traffic in the clear",
    without=replaced(("oegw.ledger.Ledger.fall_back", _always_as_the_rule_says(_bind()))),
)
def spoiled_records() -> None:
    for on_failure in OnFailure:
        verdict = decide(Malformed("bogus", 60.0), on_failure)
        assert verdict is Verdict.DENY, on_failure


def _bogus_is_nothing(answer: Any) -> Any:
    answer = replace(answer, trust=Trust.INSECURE)
    if answer.status is Status.UNANSWERED:
        return Unanswered("")
    return None if answer.records else NothingFound(answer.ttl, "")


@attack(
    17,
    "An answer that DNSSEC calls bogus, with records and without",
    source="RFC 4322 section 3.2.4",
    defence="dnsrecords/reading.py answer_failure",
    otherwise="it counts as an unsigned one",
    without=replaced(("dnsrecords.reading.answer_failure", _bogus_is_nothing)),
)
def bogus_answers() -> None:
    from dnsrecords.lookup import GatewayLookup

    for answer in (
        replace(found(AT_BOB, to(SG_B, 10, KEY_1024)), trust=Trust.BOGUS),
        replace(test_lookup.silent(AT_BOB), trust=Trust.BOGUS),
    ):
        outcome = converse(GatewayLookup(test_lookup.BOB, in_order), answer)
        assert isinstance(outcome, Malformed)


@attack(
    17,
    "Somebody strips the TXT record: no such name, no answer",
    source="RFC 4322 section 9.1",
    defence="policy/rule.py Rule.protected",
    otherwise="traffic that must be encrypted goes in the clear",
    without=replaced(("policy.rule.Rule.protected", False)),
)
def stripped_records() -> None:
    for outcome in (NothingFound(60.0, "no such name"), Unanswered("no answer in time")):
        assert decide(outcome, OnFailure.CLEAR) is Verdict.CLEAR
        assert decide(outcome, OnFailure.DROP) is Verdict.DENY


@attack(
    17,
    "An unsigned record that delegates to somebody else's gateway",
    source="RFC 4322 section 3.2.4.1",
    defence="oegw/assurance.py admitted",
    otherwise="whoever forges a reply of the DNS leads the traffic to a gateway of his own",
    without=replaced(
        (
            "oegw.assurance.admitted",
            lambda outcome, client, rule, unsigned: iter(outcome.gateways),
        )
    ),
)
def unsigned_delegation_to_a_third_party() -> None:
    for on_failure in OnFailure:
        book = Playbook(
            default=opportunistic("default", on_failure=on_failure),
            unsigned_delegation=UnsignedDelegation.SELF,
        )
        [lookup] = [c for c in book.send(ping(1)) if isinstance(c, do.StartLookup)]
        commands = book.send(happened.LookupEnded(lookup.lookup, delegated((SG_D, "mallory"))))
        assert not [c for c in commands if isinstance(c, do.StartNegotiation)]
        # To itself it may delegate.
        itself = delegated((BOB, "bob"))
        book = Playbook(unsigned_delegation=UnsignedDelegation.SELF)
        [lookup] = [c for c in book.send(ping(1)) if isinstance(c, do.StartLookup)]
        commands = book.send(happened.LookupEnded(lookup.lookup, itself))
        assert [c for c in commands if isinstance(c, do.StartNegotiation)]


@attack(
    17,
    "An unsigned record where the policy demands a signed one",
    source="RFC 4033 section 5; RFC 4322 section 9.1",
    defence="oegw/assurance.py admitted",
    otherwise="`require` demands nothing",
    without=replaced(
        (
            "oegw.assurance.admitted",
            lambda outcome, client, rule, unsigned: iter(outcome.gateways),
        )
    ),
)
def unsigned_record_where_a_signed_one_is_required() -> None:
    for trust in (Trust.INSECURE, Trust.INDETERMINATE):
        book = Playbook(default=opportunistic("default", require=Require.SECURE))
        [lookup] = [c for c in book.send(ping(1)) if isinstance(c, do.StartLookup)]
        outcome = replace(delegated((SG_D, "sg-d")), trust=trust)  # type: ignore[type-var]
        commands = book.send(happened.LookupEnded(lookup.lookup, outcome))
        assert not [c for c in commands if isinstance(c, do.StartNegotiation)]

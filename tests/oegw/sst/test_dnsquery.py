"""What a forwarder reads of questions and answers, whatever comes."""

from __future__ import annotations

import random

import dns.message
import dns.rrset
import pytest

from oegw.sst.dnsquery import DnsQuery, UnanswerableQuery, code_of, refusal

ROUNDS = 100_000
ADDRESSES = [f"192.2.0.{number}" for number in range(1, 60)]


def query(name: str = "www.example.", rdtype: str = "A") -> DnsQuery:
    return DnsQuery.parse(dns.message.make_query(name, rdtype, id=7).to_wire())


def response(of: DnsQuery, *lines: str) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(of.octets))
    for line in lines:
        owner, rdtype, *texts = line.split()
        message.answer.append(dns.rrset.from_text(owner, 300, "IN", rdtype, *texts))
    return message.to_wire()


def test_hosts_are_those_who_can_have_addresses() -> None:
    assert query("WWW.Example.").host == "www.example"
    assert query("www.example.", "AAAA").host == "www.example"
    for name, rdtype in (("www.example.", "TXT"), ("www.example.", "MX"), (".", "A")):
        assert query(name, rdtype).host is None
    assert query("a\\.b.example.").host is None
    assert query("\\195\\164.example.").host is None


def test_aliases_are_followed_to_the_addresses() -> None:
    of = query()
    octets = response(
        of, "www.example. CNAME a.example.", "a.example. CNAME B.example.", "b.example. A 192.2.0.1"
    )
    addresses, name = of.addresses_in(octets)
    assert ([str(each) for each in addresses], name) == (["192.2.0.1"], "b.example")
    assert of.addresses_in(response(of, "other.example. A 192.2.0.1")) == ((), "www.example")
    loop = response(of, "www.example. CNAME a.example.", "a.example. CNAME www.example.")
    assert of.addresses_in(loop)[0] == ()


def test_addresses_are_bounded() -> None:
    of = query()
    addresses, _ = of.addresses_in(response(of, f"www.example. A {' '.join(ADDRESSES)}"))
    assert len(addresses) == 32


def test_responses_to_others_are_told_apart() -> None:
    of = query()
    good = response(of, "www.example. A 192.2.0.1")
    assert of.answered_by(good, b"\x00\x07")
    assert not of.answered_by(good, b"\x00\x08")
    assert not of.answered_by(of.octets, b"\x00\x07")
    assert not of.answered_by(response(query(rdtype="AAAA")), b"\x00\x07")
    assert not of.answered_by(good[:11], b"\x00\x07")
    # A server that does not understand the question may leave it out; one that does, not.
    assert of.answered_by(refusal(of.octets, 1), b"\x00\x07")
    assert not of.answered_by(refusal(of.octets, 0), b"\x00\x07")


def test_our_own_failure_is_an_answer_to_the_question() -> None:
    for edns in (0, False):
        asked = dns.message.make_query("www.example.", "A", use_edns=edns)
        failed = dns.message.from_wire(DnsQuery.parse(asked.to_wire()).failure())
        assert asked.is_response(failed)
        assert failed.rcode() == dns.rcode.SERVFAIL
        assert failed.edns == asked.edns
    assert code_of(refusal(asked.to_wire(), 5)) == 5


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    if not rng.randrange(8):
        return rng.randbytes(rng.randrange(64))
    octets = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(octets) + 1)
        match rng.randrange(4):
            case 0:
                octets[at : at + 1] = rng.randbytes(1)
            case 1:
                del octets[at : at + rng.randrange(1, 9)]
            case 2:
                octets[at:at] = octets[at : at + rng.randrange(1, 33)]
            case 3:
                del octets[at:]
    return bytes(octets)


@pytest.mark.fuzz
def test_any_question_is_read_or_refused() -> None:
    rng, read, refused = random.Random(5353), 0, 0
    seeds = [query().octets, query("b.example.", "TXT").octets]
    for _ in range(ROUNDS):
        octets = mutated(rng, seeds)
        answer = b""
        try:
            found = DnsQuery.parse(octets)
        except UnanswerableQuery as error:
            refused += 1
            if error.code is not None:
                answer = refusal(octets, error.code)
        else:
            read += 1
            answer = found.failure()
            assert answer[12:].startswith(octets[12 : found.end])
            assert found.with_id(b"\x01\x02")[2:] == octets[2:]
        assert answer[:2] in (b"", octets[:2])
    assert read > 1000
    assert refused > 1000


@pytest.mark.fuzz
def test_any_answer_is_read_or_is_none() -> None:
    rng, taken, with_addresses = random.Random(5354), 0, 0
    of = query()
    seeds = [
        response(of, "www.example. CNAME a.example.", "a.example. A 192.2.0.1 192.2.0.2"),
        response(of, "www.example. A 192.2.0.1"),
        response(of),
    ]
    for _ in range(ROUNDS):
        octets = mutated(rng, seeds)
        taken += of.answered_by(octets, b"\x00\x07")
        with_addresses += bool(len(octets) > 12 and of.addresses_in(octets)[0])
    assert taken > 1000
    assert with_addresses > 1000

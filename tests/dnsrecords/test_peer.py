"""Look-ups of a peer by name, as conversations."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import permutations

import pytest

from dnsrecords.outcome import Malformed, NothingFound, PeerFound, Unanswered
from dnsrecords.peer import MAX_ADDRESSES, PeerLookup
from dnsrecords.question import Answer, Question, Status
from dnsrecords.trust import Trust
from tests.support.dns_keys import KEY_2048, key_rdata

A = Question("sg-b.example.", "A")
AAAA = Question("sg-b.example.", "AAAA")
KEY = Question("sg-b.example.", "KEY")
SG_B, SG_B6 = ip_address("192.1.1.5"), ip_address("2001:db8:1:1::5")


def found(question: Question, *records: bytes, ttl: float = 300.0, trust: Trust = Trust.SECURE):  # type: ignore[no-untyped-def]
    return Answer(question, Status.ANSWERED, records, ttl, trust)


def nothing(question: Question) -> Answer:
    return Answer(question, Status.NO_DATA, (), 60.0)


def converse(lookup: PeerLookup, *answers: Answer):  # type: ignore[no-untyped-def]
    asked: list[Question] = []
    for answer in answers:
        assert lookup.result is None
        while (question := lookup.next_question()) is not None:
            asked.append(question)
        assert answer.question in asked, "what nobody asked is not answered"
        lookup.receive_answer(answer)
    assert lookup.next_question() is None
    return lookup.result


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_addresses_of_both_families_and_keys_in_any_order(order: tuple[int, ...]) -> None:
    lookup = PeerLookup("SG-B.example", "sg-b.example")
    answers = [
        found(A, SG_B.packed),
        found(AAAA, SG_B6.packed, ttl=100.0, trust=Trust.INSECURE),
        found(KEY, key_rdata(KEY_2048), ttl=200.0),
    ]
    result = converse(lookup, *[answers[place] for place in order])
    assert result == PeerFound((SG_B, SG_B6), (KEY_2048,), 100.0, Trust.INSECURE)


def test_one_family_is_enough() -> None:
    result = converse(PeerLookup("sg-b.example", None), nothing(A), found(AAAA, SG_B6.packed))
    assert result == PeerFound((SG_B6,), (), 300.0, Trust.SECURE)


def test_key_alone() -> None:
    lookup = PeerLookup(None, "sg-b.example")
    result = converse(lookup, found(KEY, key_rdata(KEY_2048)))
    assert result == PeerFound((), (KEY_2048,), 300.0, Trust.SECURE)


def test_neither_family() -> None:
    assert isinstance(
        converse(PeerLookup("sg-b.example", None), nothing(A), nothing(AAAA)), NothingFound
    )
    silent = Answer(A, Status.UNANSWERED, detail="no answer in time")
    assert isinstance(converse(PeerLookup("sg-b.example", None), silent, nothing(AAAA)), Unanswered)


def test_bogus_answer_ends_it() -> None:
    bogus = Answer(A, Status.ANSWERED, (SG_B.packed,), 0.0, Trust.BOGUS)
    assert isinstance(converse(PeerLookup("sg-b.example", None), bogus), Malformed)


def test_no_key() -> None:
    result = converse(PeerLookup(None, "sg-b.example"), nothing(KEY))
    assert isinstance(result, NothingFound)


def test_name_that_is_none() -> None:
    lookup = PeerLookup("a..b", None)
    assert isinstance(lookup.result, Malformed)
    assert lookup.next_question() is None


def test_records_of_wrong_size_and_too_many() -> None:
    many = [bytes([10, 0, 0, n]) for n in range(MAX_ADDRESSES + 5)]
    result = converse(PeerLookup("sg-b.example", None), found(A, b"abc", *many), nothing(AAAA))
    assert isinstance(result, PeerFound)
    assert len(result.addresses) == MAX_ADDRESSES

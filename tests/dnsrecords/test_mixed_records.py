"""Look-ups that read TXT and IPSECKEY records: asked at once, merged by precedence."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from dnsrecords.delegation import Delegation
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.lookup import MAX_ADDRESSES, MAX_NAMES, GatewayLookup, KeyLookup
from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    IPAddress,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.peer import PeerLookup
from dnsrecords.question import Answer, Question, Status
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust
from tests.support.dns_keys import KEY_1024, KEY_2048, KEY_4096, key_rdata

BOTH = ("TXT", "IPSECKEY")
BOB, SG_B, SG_D = map(ip_address, ("192.2.0.66", "192.1.1.5", "192.1.1.6"))
TXT, IPSECKEY = (Question(reverse_name(BOB), kind) for kind in BOTH)
A, AAAA = (Question("sg-b.example.", kind) for kind in ("A", "AAAA"))
BAD = bytes([10, 1, 2, 0, 0, 0, 0])


def found(
    question: Question, *records: bytes, ttl: float = 300.0, trust: Trust = Trust.SECURE
) -> Answer:
    return Answer(question, Status.ANSWERED, records, ttl, trust)


def nothing(question: Question, trust: Trust = Trust.SECURE) -> Answer:
    return Answer(question, Status.NO_DATA, (), 60.0, trust)


def silent(question: Question) -> Answer:
    return Answer(question, Status.UNANSWERED)


def in_order(_: list[Gateway]) -> None:
    """The shuffle that leaves things as they are."""


def look(
    answers: Sequence[Answer],
    records: Sequence[str] = BOTH,
    with_keys: bool = True,
    backwards: bool = False,
) -> GatewayOutcome | None:
    """All that is under way is answered at once, in one order or the other."""
    lookup = GatewayLookup(BOB, in_order, with_keys, records=records)
    return converse(lookup, answers, backwards)


def converse(lookup, answers: Sequence[Answer], backwards: bool = False):  # type: ignore[no-untyped-def]
    known = {answer.question: answer for answer in answers}
    asked: list[Question] = []
    while lookup.result is None:
        fresh: list[Question] = []
        while (question := lookup.next_question()) is not None:
            fresh.append(question)
        assert fresh, "it neither asks nor has a result"
        asked += fresh
        for question in reversed(fresh) if backwards else fresh:
            lookup.receive_answer(known[question])
    assert len(set(asked)) == len(asked), "nothing is asked twice"
    return lookup.result


def txt(gateway: IPAddress, precedence: int, key=KEY_1024) -> bytes:  # type: ignore[no-untyped-def]
    return Delegation(precedence, gateway, None, key).serialize()


def ipseckey(gateway: IPAddress | str | None, precedence: int, key=KEY_2048) -> bytes:  # type: ignore[no-untyped-def]
    if isinstance(gateway, str):
        return IpsecKey.of(precedence, None, gateway, key).serialize()
    return IpsecKey.of(precedence, gateway, None, key).serialize()


@pytest.mark.parametrize("backwards", [False, True])
def test_gateways_of_both_kinds_go_by_precedence(backwards: bool) -> None:
    answers = [
        found(TXT, txt(SG_B, 20), ttl=100.0),
        found(IPSECKEY, ipseckey(SG_D, 10), trust=Trust.INSECURE),
    ]
    outcome = look(answers, backwards=backwards)
    assert outcome == GatewaysFound(
        (Gateway(10, SG_D, None, (KEY_2048,)), Gateway(20, SG_B, None, (KEY_1024,))),
        100.0,
        Trust.INSECURE,
    )


def test_one_gateway_in_both_kinds_has_the_keys_of_both() -> None:
    outcome = look([found(TXT, txt(SG_B, 20)), found(IPSECKEY, ipseckey(SG_B, 10))])
    assert isinstance(outcome, GatewaysFound)
    assert outcome.gateways == (Gateway(10, SG_B, None, (KEY_2048, KEY_1024)),)


@pytest.mark.parametrize("other", [nothing, silent])
def test_one_kind_is_enough(other) -> None:  # type: ignore[no-untyped-def]
    for answers in (
        [found(TXT, txt(SG_B, 20)), other(IPSECKEY)],
        [other(TXT), found(IPSECKEY, ipseckey(SG_B, 20))],
    ):
        assert isinstance(look(answers), GatewaysFound)


def test_neither_kind() -> None:
    assert isinstance(look([nothing(TXT), nothing(IPSECKEY)]), NothingFound)
    assert isinstance(look([nothing(TXT), silent(IPSECKEY)]), Unanswered)
    assert isinstance(look([silent(TXT), nothing(IPSECKEY)]), Unanswered)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        found(IPSECKEY, BAD),
        found(IPSECKEY, ipseckey(SG_D, 10), BAD),
        found(IPSECKEY, ipseckey(SG_D, 10), trust=Trust.BOGUS),
        Answer(IPSECKEY, Status.UNANSWERED, trust=Trust.BOGUS),
    ],
)
def test_what_is_ours_and_unreadable_or_bogus_denies_all(bad: Answer, backwards: bool) -> None:
    assert isinstance(look([found(TXT, txt(SG_B, 1)), bad], backwards=backwards), Malformed)


def test_a_key_that_must_not_be_believed_denies() -> None:
    record = IpsecKey(10, SG_B, None, 2, b"\x01\x03\x51").serialize()
    outcome = look([found(IPSECKEY, record)], records=("IPSECKEY",))
    assert isinstance(outcome, Malformed)
    assert "modulus of 7 bits" in outcome.detail


def test_foreign_records_are_no_delegations() -> None:
    dsa = bytes([10, 1, 1, 192, 1, 1, 5]) + b"DSA"
    lookup = GatewayLookup(BOB, in_order, records=("IPSECKEY",))
    outcome = converse(lookup, [found(IPSECKEY, dsa)])
    assert outcome == NothingFound(300.0, f"{IPSECKEY.name} IPSECKEY: no record is a delegation")
    assert lookup.notes == [("ipseckey_foreign", IPSECKEY.name)]


def test_no_gateway_means_the_host_itself() -> None:
    outcome = look([found(IPSECKEY, ipseckey(None, 10))], records=("IPSECKEY",))
    assert isinstance(outcome, GatewaysFound)
    assert outcome.gateways == (Gateway(10, BOB, None, (KEY_2048,)),)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_gateway_by_name_is_looked_up_in_both_families(backwards: bool) -> None:
    six = ip_address("2001:db8::5")
    answers = [
        found(IPSECKEY, ipseckey("sg-b.example", 10), ttl=200.0),
        found(A, SG_B.packed, SG_D.packed, ttl=90.0, trust=Trust.INSECURE),
        found(AAAA, six.packed),
    ]
    outcome = look(answers, ("IPSECKEY",), backwards=backwards)
    assert isinstance(outcome, GatewaysFound)
    assert outcome.gateways == tuple(
        Gateway(10, address, "sg-b.example", (KEY_2048,), trust=Trust.INSECURE)
        for address in (SG_B, SG_D, six)
    )
    assert (outcome.ttl, outcome.trust) == (90.0, Trust.SECURE)


def test_a_name_without_addresses_is_known_by_name_only() -> None:
    for failed in (nothing, silent):
        answers = [found(IPSECKEY, ipseckey("sg-b.example", 10)), failed(A), failed(AAAA)]
        outcome = look(answers, ("IPSECKEY",))
        assert isinstance(outcome, GatewaysFound)
        assert outcome.gateways == (Gateway(10, None, "sg-b.example", (KEY_2048,)),)


def test_a_bogus_address_denies() -> None:
    bogus = Answer(A, Status.UNANSWERED, trust=Trust.BOGUS)
    answers = [found(IPSECKEY, ipseckey("sg-b.example", 10)), bogus, nothing(AAAA)]
    assert isinstance(look(answers, ("IPSECKEY",)), Malformed)


def test_only_so_many_names_and_addresses() -> None:
    names = [f"sg{i}.example" for i in range(MAX_NAMES + 3)]
    many = [bytes([192, 1, 1, i]) for i in range(1, 30)]
    answers = [found(IPSECKEY, *(ipseckey(each, 10 + i) for i, each in enumerate(names)))]
    for each in names[:MAX_NAMES]:
        answers += [found(Question(each + ".", "A"), *many), nothing(Question(each + ".", "AAAA"))]
    outcome = look(answers, ("IPSECKEY",))
    assert isinstance(outcome, GatewaysFound)
    addressed = [each for each in outcome.gateways if each.address is not None]
    assert len(addressed) == MAX_NAMES * MAX_ADDRESSES
    assert len(outcome.gateways) == len(addressed) + 3


def test_a_gateway_without_a_key_has_one_of_either_kind() -> None:
    key, other = (Question(reverse_name(SG_B), kind) for kind in ("KEY", "IPSECKEY"))
    record = found(IPSECKEY, ipseckey(SG_B, 10, None))
    own = IpsecKey.of(10, None, None, KEY_4096).serialize()
    outcome = look([nothing(TXT), record, nothing(key), found(other, own)])
    assert isinstance(outcome, GatewaysFound)
    assert outcome.gateways == (Gateway(10, SG_B, None, (KEY_4096,), True),)
    outcome = look([nothing(TXT), record, found(key, key_rdata(KEY_1024)), found(other, own)])
    assert isinstance(outcome, GatewaysFound)
    assert outcome.gateways[0].keys == (KEY_1024, KEY_4096)
    outcome = look([nothing(TXT), record, nothing(key), silent(other)])
    assert isinstance(outcome, Unanswered)


AT_SG_B = [Question(reverse_name(SG_B), kind) for kind in ("KEY", "IPSECKEY")]


def keys_of(
    identity: IPAddress | str, *answers: Answer, records: Sequence[str] = BOTH
) -> KeyOutcome:
    outcome: KeyOutcome = converse(KeyLookup(identity, records), answers)
    return outcome


def test_keys_of_an_identity_of_either_kind() -> None:
    own = IpsecKey.of(10, SG_B, None, KEY_2048).serialize()
    key = found(AT_SG_B[0], key_rdata(KEY_1024), ttl=90.0)
    outcome = keys_of(SG_B, key, found(AT_SG_B[1], own, trust=Trust.INSECURE))
    assert outcome == KeysFound((KEY_1024, KEY_2048), 90.0, Trust.INSECURE)
    assert keys_of(SG_B, key, nothing(AT_SG_B[1])) == KeysFound((KEY_1024,), 90.0, Trust.SECURE)
    alone = keys_of(SG_B, found(AT_SG_B[1], own), records=("IPSECKEY",))
    assert alone == KeysFound((KEY_2048,), 300.0, Trust.SECURE)


def test_the_key_of_another_gateway_is_not_the_owners() -> None:
    """At SG-B's own name somebody may delegate SG-B to SG-D: that key is SG-D's."""
    others = [ipseckey(SG_D, 10), ipseckey("sg-d.example", 10)]
    outcome = keys_of(SG_B, found(AT_SG_B[1], *others), records=("IPSECKEY",))
    assert isinstance(outcome, NothingFound)
    at_name = Question("sg-b.example.", "IPSECKEY")
    itself = found(at_name, ipseckey("sg-b.example", 10), ipseckey(SG_D, 10, KEY_1024))
    outcome = keys_of("SG-B.example.", itself, records=("IPSECKEY",))
    assert outcome == KeysFound((KEY_2048,), 300.0, Trust.SECURE)


def test_an_unreadable_ipseckey_does_not_spoil_a_key() -> None:
    key = found(AT_SG_B[0], key_rdata(KEY_1024))
    assert isinstance(keys_of(SG_B, key, found(AT_SG_B[1], BAD)), KeysFound)
    assert isinstance(keys_of(SG_B, nothing(AT_SG_B[0]), found(AT_SG_B[1], BAD)), Malformed)


def test_a_bogus_answer_spoils_every_key() -> None:
    key = found(AT_SG_B[0], key_rdata(KEY_1024))
    bogus = Answer(AT_SG_B[1], Status.UNANSWERED, trust=Trust.BOGUS, detail="SERVFAIL")
    for backwards in (False, True):
        outcome = converse(KeyLookup(SG_B, BOTH), [key, bogus], backwards)
        assert isinstance(outcome, Malformed)
        assert "bogus (SERVFAIL)" in outcome.detail


def test_a_peer_by_name_may_have_an_ipseckey() -> None:
    questions = [Question("sg-b.example.", kind) for kind in ("A", "AAAA", "KEY", "IPSECKEY")]
    answers = [
        found(questions[0], SG_B.packed),
        nothing(questions[1]),
        nothing(questions[2]),
        found(questions[3], ipseckey(None, 10)),
    ]
    outcome = converse(PeerLookup("sg-b.example", "sg-b.example", BOTH), answers)
    assert (outcome.addresses, outcome.keys, outcome.trust) == ((SG_B,), (KEY_2048,), Trust.SECURE)

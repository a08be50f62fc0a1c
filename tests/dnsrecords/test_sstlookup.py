"""Look-ups of SST keys as conversations, and against a server on the loopback address."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from dnsrecords.delegation import Delegation
from dnsrecords.outcome import (
    Malformed,
    NothingFound,
    SstKeyOutcome,
    SstKeysFound,
    Unanswered,
)
from dnsrecords.question import Answer, Question, Status
from dnsrecords.resolver import Resolver
from dnsrecords.sstkey import QUESTIONS, SstKey
from dnsrecords.sstlookup import MAX_SST_KEYS, NOT_ASKED_TTL, SstKeyLookup
from dnsrecords.trust import Trust
from tests.support.dns_keys import KEY_1024, txt
from tests.support.dns_server import LOOPBACK, DnsServer, Drop, Fail, Truncate
from tests.support.sst_keys import sst_key

BOB, BOB6 = ip_address("192.2.0.66"), ip_address("2001:db8:2::66")
SG_B, SG_D = ip_address("192.1.1.5"), ip_address("192.1.1.6")
AT_BOB = Question("66.0.2.192.in-addr.arpa.", "TXT")
AT_NAME = Question("_sst.bob.example.", "TXT")


def asked(lookup: SstKeyLookup, *records: bytes, ttl: float = 300.0, trust: Trust) -> SstKeyOutcome:
    question = lookup.next_question()
    assert question is not None
    assert lookup.next_question() is None
    lookup.receive_answer(Answer(question, Status.ANSWERED, records, ttl, trust))
    assert lookup.result is not None
    return lookup.result


def found(*records: bytes, trust: Trust = Trust.INSECURE) -> SstKeyOutcome:
    return asked(SstKeyLookup(BOB), *records, trust=trust)


def test_sst32_by_address_in_the_reverse_zone() -> None:
    lookup = SstKeyLookup(BOB)
    key = sst_key(SG_B)
    assert asked(lookup, key.serialize(), trust=Trust.SECURE) == SstKeysFound(
        (key,), 300.0, Trust.SECURE
    )
    assert lookup.next_question() is None
    question = SstKeyLookup(BOB6).next_question()
    assert question is not None
    assert question.name.endswith("0.2.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.")


def test_sst32_by_name_below_sst() -> None:
    for name in ("bob.example", "BOB.Example."):
        lookup = SstKeyLookup(name)
        assert lookup.next_question() == AT_NAME
    key = sst_key(BOB)
    result = asked(SstKeyLookup("bob.example"), key.serialize(), trust=Trust.INSECURE)
    assert result == SstKeysFound((key,), 300.0, Trust.INSECURE)


def test_a_key_for_questions_only_is_nobodys_who_encrypts_ports() -> None:
    for_questions = SstKey(0, BOB, QUESTIONS, sst_key(BOB).public_key)
    for_ports = sst_key(SG_B)
    both = for_questions.serialize(), for_ports.serialize()
    assert found(*both) == SstKeysFound((for_ports,), 300.0, Trust.INSECURE)
    assert isinstance(found(both[0]), NothingFound)
    wanted = asked(SstKeyLookup(BOB, questions=True), *both, trust=Trust.INSECURE)
    assert wanted == SstKeysFound((for_questions, for_ports), 300.0, Trust.INSECURE)


@pytest.mark.parametrize("name", ["", "a..b", "a b.example", "1.2.3.4", "x" * 64, "a." * 126 + "a"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    lookup = SstKeyLookup(name)
    assert isinstance(lookup.result, Malformed)
    assert lookup.next_question() is None
    assert [trigger for trigger, _ in lookup.notes] == ["domain_name_malformed"]


def test_private_reverse_names_are_not_asked_for() -> None:
    lookup = SstKeyLookup(ip_address("10.1.2.3"), lambda address: not address.is_private)
    assert lookup.next_question() is None
    assert lookup.result == NothingFound(
        NOT_ASKED_TTL, "10.1.2.3 is in a private or reserved range: not looked up"
    )
    assert SstKeyLookup(BOB, lambda address: True).next_question() == AT_BOB


@pytest.mark.parametrize("trust", [Trust.SECURE, Trust.INSECURE, Trust.INDETERMINATE])
def test_sst33_what_dnssec_says_is_kept(trust: Trust) -> None:
    result = found(sst_key(SG_B).serialize(), trust=trust)
    assert isinstance(result, SstKeysFound)
    assert result.trust is trust


def test_sst33_bogus_is_a_failure() -> None:
    result = found(sst_key(SG_B).serialize(), trust=Trust.BOGUS)
    assert isinstance(result, Malformed)
    assert "bogus" in result.detail


def test_keys_come_by_precedence_whatever_the_order_of_the_answer() -> None:
    keys = [
        sst_key(SG_B, 1),
        sst_key(SG_B, 1, algorithm=2),
        sst_key(SG_B, 2),
        sst_key(SG_D, 3, precedence=5),
        sst_key(SG_D, 3, precedence=20),
    ]
    records = [key.serialize() for key in keys]
    results = [found(*records), found(*reversed(records)), found(*records, records[0])]
    assert results[0] == results[1] == results[2]
    assert isinstance(results[0], SstKeysFound)
    assert set(results[0].keys) == set(keys)
    assert [key.precedence for key in results[0].keys] == [5, 10, 10, 10, 20]


def test_one_that_can_not_be_read_spoils_them_all() -> None:
    lookup = SstKeyLookup(BOB)
    broken = txt("X-SST-Key(10)=nonsense")
    result = asked(lookup, sst_key(SG_B).serialize(), broken, trust=Trust.INSECURE)
    assert isinstance(result, Malformed)
    assert result.ttl == 300.0
    assert [trigger for trigger, _ in lookup.notes] == ["sst_key_malformed"]


def test_foreign_records_beside_it_do_not_matter() -> None:
    key = sst_key(SG_B)
    result = found(
        txt("v=spf1 -all"), Delegation(10, SG_B, None, KEY_1024).serialize(), key.serialize()
    )
    assert result == SstKeysFound((key,), 300.0, Trust.INSECURE)
    assert isinstance(found(txt("v=spf1 -all")), NothingFound)


def test_sst37_keys_of_other_algorithms_are_skipped() -> None:
    lookup = SstKeyLookup(BOB)
    key = sst_key(SG_B)
    other = txt("X-SST-Key(1)=192.1.1.5 9 of:another:form")
    assert asked(lookup, other, key.serialize(), trust=Trust.INSECURE) == SstKeysFound(
        (key,), 300.0, Trust.INSECURE
    )
    assert [trigger for trigger, _ in lookup.notes] == ["sst_algorithm_unknown"]
    assert isinstance(found(other), NothingFound)


def test_too_many_are_cut_in_an_order_of_our_own() -> None:
    records = [sst_key(SG_B, number).serialize() for number in range(1, MAX_SST_KEYS + 5)]
    first, second = found(*records), found(*reversed(records))
    assert isinstance(first, SstKeysFound)
    assert first == second
    assert len(first.keys) == MAX_SST_KEYS


@pytest.mark.parametrize("status", [Status.NO_DATA, Status.NO_NAME])
def test_nothing_holds_for_the_negative_ttl(status: Status) -> None:
    lookup = SstKeyLookup(BOB)
    lookup.next_question()
    lookup.receive_answer(Answer(AT_BOB, status, (), 60.0))
    assert isinstance(lookup.result, NothingFound)
    assert lookup.result.ttl == 60.0


def test_silence_is_no_denial() -> None:
    lookup = SstKeyLookup(BOB)
    lookup.next_question()
    lookup.receive_answer(Answer(AT_BOB, Status.UNANSWERED))
    assert isinstance(lookup.result, Unanswered)
    lookup.receive_answer(Answer(AT_BOB, Status.NO_DATA))  # too late to matter
    assert isinstance(lookup.result, Unanswered)


def test_an_answer_that_nobody_asked_for() -> None:
    with pytest.raises(RuntimeError, match="not under way"):
        SstKeyLookup(BOB).receive_answer(Answer(AT_NAME, Status.NO_DATA))


# ---------------------------------------------------------------------- on the wire

KEY_B, KEY_NAME = sst_key(SG_B), sst_key(BOB, 2)
RECORDS = {
    AT_BOB.name: {"TXT": [KEY_B.presentation(), Delegation(10, SG_B).presentation()]},
    AT_NAME.name: {"TXT": [KEY_NAME.presentation()]},
    "67.0.2.192.in-addr.arpa.": {"CNAME": ["67.64/26.0.2.192.in-addr.arpa."]},
    "67.64/26.0.2.192.in-addr.arpa.": {"TXT": [KEY_B.presentation()]},
    "68.0.2.192.in-addr.arpa.": {"TXT": ['"X-SST-Key(10)=nonsense"']},
}


def resolved(owner: Any, *behaviours: object, **options: Any) -> SstKeyOutcome:
    async def run() -> SstKeyOutcome:
        async with DnsServer(RECORDS, **options) as server:
            for question in (AT_BOB, AT_NAME):
                server.next(question.name, *behaviours)
            resolver = Resolver(
                [ip_address(LOOPBACK)],
                trusted=[ip_address(LOOPBACK)],
                port=server.port,
                timeout=0.1,
                deadline=1.0,
            )
            return await resolver.run(SstKeyLookup(owner))

    return asyncio.run(run())


def test_sst32_from_a_server() -> None:
    assert resolved(BOB) == SstKeysFound((KEY_B,), 300.0, Trust.INSECURE)
    assert resolved("bob.example") == SstKeysFound((KEY_NAME,), 300.0, Trust.INSECURE)
    assert resolved(ip_address("192.2.0.67")) == SstKeysFound((KEY_B,), 300.0, Trust.INSECURE)
    assert resolved(BOB, Truncate()) == SstKeysFound((KEY_B,), 300.0, Trust.INSECURE)
    assert isinstance(resolved(ip_address("192.2.0.68")), Malformed)
    assert isinstance(resolved(ip_address("192.2.0.69")), NothingFound)


def test_sst33_from_a_server_that_validates() -> None:
    assert resolved(BOB, authentic=True) == SstKeysFound((KEY_B,), 300.0, Trust.SECURE)
    result = resolved(BOB, Fail())  # it does not validate; asked again unchecked, it is there
    assert isinstance(result, Malformed)
    assert "bogus" in result.detail


def test_sst36_no_answer_from_a_server() -> None:
    assert isinstance(resolved(BOB, *[Drop()] * 10), Unanswered)
    assert isinstance(resolved("bob.example", *[Drop()] * 10), Unanswered)


def test_a_key_is_a_value() -> None:
    assert len({KEY_B, SstKey.parse_text(KEY_B.text())}) == 1

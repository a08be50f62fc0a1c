"""Look-ups as conversations: a question, an answer, and what they come to."""

import random
from ipaddress import ip_address

import pytest

from dnsrecords.delegation import Delegation
from dnsrecords.key import HostKey
from dnsrecords.lookup import MAX_DELEGATIONS, MAX_KEY_QUESTIONS, MAX_KEYS, GatewayLookup, KeyLookup
from dnsrecords.outcome import (
    Gateway,
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.question import Answer, Question, Status
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust, weakest
from tests.support.dns_keys import KEY_1024, KEY_2048, KEY_4096, key_rdata, many_keys, txt

BOB = ip_address("192.2.0.66")
SG_B = ip_address("192.1.1.5")
SG_D = ip_address("192.1.1.6")
AT_BOB = Question("66.0.2.192.in-addr.arpa.", "TXT")
AT_SG_B = Question("5.1.1.192.in-addr.arpa.", "KEY")
AT_SG_D = Question("6.1.1.192.in-addr.arpa.", "KEY")


def in_order(_: list[Gateway]) -> None:
    """The shuffle that leaves things as they are."""


def found(question: Question, *records: bytes, ttl: float = 300.0, trust=Trust.INSECURE) -> Answer:  # type: ignore[no-untyped-def]
    return Answer(question, Status.ANSWERED, records, ttl, trust)


def nothing(question: Question, ttl: float = 60.0, status: Status = Status.NO_NAME) -> Answer:
    return Answer(question, status, (), ttl)


def silent(question: Question) -> Answer:
    return Answer(question, Status.UNANSWERED, detail="no answer in time")


def converse(lookup: GatewayLookup | KeyLookup, *answers: Answer):  # type: ignore[no-untyped-def]
    """All that is asked is answered, in the order of the answers; after the last is a result."""
    asked: list[Question] = []
    for answer in answers:
        assert lookup.result is None
        while (question := lookup.next_question()) is not None:
            asked.append(question)
        assert answer.question in asked, "what nobody asked is not answered"
        asked.remove(answer.question)
        lookup.receive_answer(answer)
    assert lookup.next_question() is None
    assert lookup.result is not None
    return lookup.result


def to(gateway, precedence: int = 10, key=None) -> bytes:  # type: ignore[no-untyped-def]
    if isinstance(gateway, str):
        return Delegation(precedence, None, gateway, key).serialize()
    return Delegation(precedence, gateway, None, key).serialize()


def sizes(keys) -> list[int]:  # type: ignore[no-untyped-def]
    return sorted(key.key_size for key in keys)


def test_one_record_with_a_key() -> None:
    lookup = GatewayLookup(BOB, in_order)
    result = converse(lookup, found(AT_BOB, txt("v=spf1"), to(SG_B, key=KEY_2048)))
    assert result == GatewaysFound((Gateway(10, SG_B, None, (KEY_2048,)),), 300.0, Trust.INSECURE)
    assert lookup.notes == [("txt_joined_without_blanks", AT_BOB.name)]


def test_a_record_without_a_key_leads_to_the_gateways_key_record() -> None:
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B), ttl=300.0),
        found(AT_SG_B, HostKey(KEY_1024).serialize(), HostKey(KEY_2048).serialize(), ttl=100.0),
    )
    assert isinstance(result, GatewaysFound)
    assert sizes(result.gateways[0].keys) == [1024, 2048]
    assert result.ttl == 100.0


def test_ipv6() -> None:
    bob6, sg6 = ip_address("2001:db8:2::42"), ip_address("2001:db8:1:1::5")
    result = converse(
        GatewayLookup(bob6, in_order),
        found(Question(reverse_name(bob6), "TXT"), to(sg6)),
        found(Question(reverse_name(sg6), "KEY"), key_rdata(KEY_2048)),
    )
    assert result.gateways == (Gateway(10, sg6, None, (KEY_2048,), True, Trust.INSECURE),)


def test_precedence_orders_and_ties_are_shuffled() -> None:
    seen: list[list[int]] = []

    def backwards(gateways: list[Gateway]) -> None:
        seen.append([each.precedence for each in gateways])
        gateways.reverse()

    gateways = [ip_address(f"192.1.1.{i}") for i in range(10, 15)]
    records = [
        to(gateway, precedence, KEY_1024)
        for gateway, precedence in zip(gateways, (20, 10, 10, 5, 10), strict=True)
    ]
    result = converse(GatewayLookup(BOB, backwards), found(AT_BOB, *records))
    assert [str(each.address)[-2:] for each in result.gateways] == ["13", "14", "12", "11", "10"]
    assert seen == [[10, 10, 10]]


def test_each_of_two_equal_gateways_comes_first_half_of_the_time() -> None:
    rng = random.Random(4322)
    first = 0
    for _ in range(1000):
        result = converse(
            GatewayLookup(BOB, rng.shuffle),
            found(AT_BOB, to(SG_B, key=KEY_1024), to(SG_D, key=KEY_1024)),
        )
        first += result.gateways[0].address == SG_B
    assert 400 < first < 600


def test_delegations_to_the_same_gateway_give_it_all_their_keys() -> None:
    """RFC 4322 section 5.4: during a roll-over there is a record for each key."""
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B, 20, KEY_1024), to(SG_B, 10, KEY_2048), to(SG_B, 20, KEY_2048)),
    )
    assert result.gateways == (Gateway(10, SG_B, None, (KEY_2048, KEY_1024)),)


def test_a_gateway_with_and_without_a_key_in_its_records_is_looked_up_too() -> None:
    records = (to(SG_B, 10, KEY_1024), to(SG_B, 20))
    result = converse(
        GatewayLookup(BOB, in_order), found(AT_BOB, *records), found(AT_SG_B, key_rdata(KEY_2048))
    )
    assert result.gateways == (Gateway(10, SG_B, None, (KEY_1024, KEY_2048), True, Trust.INSECURE),)
    result = converse(GatewayLookup(BOB, in_order), found(AT_BOB, *records), silent(AT_SG_B))
    assert result.gateways == (Gateway(10, SG_B, None, (KEY_1024,), True),)


def test_a_gateway_known_by_name_only() -> None:
    result = converse(GatewayLookup(BOB, in_order), found(AT_BOB, to("sg-a.example", key=KEY_1024)))
    assert result.gateways == (Gateway(10, None, "sg-a.example", (KEY_1024,)),)
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to("sg-a.example")),
        found(Question("sg-a.example.", "KEY"), key_rdata(KEY_1024)),
    )
    assert result.gateways == (
        Gateway(10, None, "sg-a.example", (KEY_1024,), True, Trust.INSECURE),
    )


def test_without_keys_nothing_more_is_asked() -> None:
    lookup = GatewayLookup(BOB, in_order, with_keys=False)
    result = converse(lookup, found(AT_BOB, to(SG_B), to("sg-a.example", 20, KEY_1024)))
    assert result.gateways == (
        Gateway(10, SG_B, None, (), True),
        Gateway(20, None, "sg-a.example", (KEY_1024,)),
    )


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (nothing(AT_BOB, 60.0), NothingFound(60.0, f"{AT_BOB.name} TXT: no_name")),
        (
            nothing(AT_BOB, 30.0, Status.NO_DATA),
            NothingFound(30.0, f"{AT_BOB.name} TXT: no_data"),
        ),
        (silent(AT_BOB), Unanswered(f"{AT_BOB.name} TXT: no answer in time")),
        (
            found(AT_BOB, txt("v=spf1"), ttl=20.0),
            NothingFound(20.0, f"{AT_BOB.name} TXT: no record is a delegation"),
        ),
        (found(AT_BOB), NothingFound(300.0, f"{AT_BOB.name} TXT: answered")),
        (
            found(AT_BOB, to(SG_B, key=KEY_1024), trust=Trust.BOGUS, ttl=7.0),
            Malformed(f"{AT_BOB.name} TXT: DNSSEC calls the answer bogus", 7.0),
        ),
        (
            Answer(AT_BOB, Status.UNANSWERED, trust=Trust.BOGUS),
            Malformed(f"{AT_BOB.name} TXT: DNSSEC calls the answer bogus", 0.0),
        ),
    ],
)
def test_the_ways_to_fail(answer: Answer, outcome: object) -> None:
    assert converse(GatewayLookup(BOB, in_order), answer) == outcome


@pytest.mark.parametrize(
    ("bad", "trigger"),
    [
        ("X-IPsec-Server(10)=192.1.1", "txt_record_malformed"),
        ("X-IPsec-Server(10)=192.1.1.5 0sAQN", "txt_record_near_miss"),
        ("X-IPsec-Gateway(10)=192.1.1.5", "txt_record_near_miss"),
    ],
)
def test_one_malformed_record_spoils_the_good_ones(bad: str, trigger: str) -> None:
    lookup = GatewayLookup(BOB, in_order)
    result = converse(lookup, found(AT_BOB, to(SG_B, key=KEY_1024), txt(bad), ttl=50.0))
    assert isinstance(result, Malformed)
    assert result.ttl == 50.0
    assert AT_BOB.name in result.detail
    assert [each[0] for each in lookup.notes] == [trigger]


def test_the_older_way_of_joining_is_noted() -> None:
    lookup = GatewayLookup(BOB, in_order, with_keys=False)
    converse(lookup, found(AT_BOB, txt("X-IPsec-Server", "(10)=@a", "")))
    assert lookup.notes == [("txt_joined_without_blanks", AT_BOB.name)]
    lookup = GatewayLookup(BOB, in_order)
    converse(
        lookup,
        found(
            AT_BOB, txt("X-IPsec-Server(10)=192.1.1.5", *to(SG_B, key=KEY_1024)[30:].split(b" "))
        ),
    )
    assert lookup.notes == [("txt_joined_with_blanks", AT_BOB.name)]


BROKEN = bytes.fromhex("42000401 0101") + b"\xff" * 128
FOREIGN = key_rdata(KEY_1024, "42000301")


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (nothing(AT_SG_B, 60.0), nothing(AT_SG_D, 50.0), NothingFound),
        (found(AT_SG_B, FOREIGN), nothing(AT_SG_D, 50.0), NothingFound),
        (silent(AT_SG_B), nothing(AT_SG_D), Unanswered),
        (nothing(AT_SG_B), silent(AT_SG_D), Unanswered),
        (silent(AT_SG_B), found(AT_SG_D, BROKEN), Malformed),
        (found(AT_SG_B, BROKEN), nothing(AT_SG_D), Malformed),
    ],
)
def test_when_no_gateway_has_a_key(first: Answer, second: Answer, outcome: type) -> None:
    answers = found(AT_BOB, to(SG_B), to(SG_D)), first, second
    result = converse(GatewayLookup(BOB, in_order), *answers)
    assert isinstance(result, outcome)
    if isinstance(result, NothingFound):
        assert result.ttl == 50.0


@pytest.mark.parametrize("failed", [nothing, silent, lambda asked: found(asked, BROKEN)])
def test_a_gateway_without_a_key_leaves_the_others(failed) -> None:  # type: ignore[no-untyped-def]
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B), to(SG_D)),
        failed(AT_SG_B),
        found(AT_SG_D, key_rdata(KEY_2048)),
    )
    assert result.gateways == (Gateway(10, SG_D, None, (KEY_2048,), True, Trust.INSECURE),)


def test_a_bogus_key_record_denies_everything() -> None:
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B), to(SG_D, key=KEY_1024)),
        found(AT_SG_B, key_rdata(KEY_2048), trust=Trust.BOGUS),
    )
    assert result == Malformed(f"{AT_SG_B.name} KEY: DNSSEC calls the answer bogus", 300.0)


def test_keys_of_all_gateways_are_asked_for_at_once_and_answered_in_any_order() -> None:
    outcomes = []
    for turned in (False, True):
        lookup = GatewayLookup(BOB, in_order)
        assert lookup.next_question() == AT_BOB
        lookup.receive_answer(found(AT_BOB, to(SG_B, 10), to(SG_D, 20)))
        asked = [lookup.next_question(), lookup.next_question()]
        assert asked == [AT_SG_B, AT_SG_D]
        assert lookup.next_question() is None
        answers = [
            found(AT_SG_B, key_rdata(KEY_1024), ttl=70.0),
            found(AT_SG_D, key_rdata(KEY_2048), ttl=80.0, trust=Trust.SECURE),
        ]
        for answer in reversed(answers) if turned else answers:
            assert lookup.result is None
            lookup.receive_answer(answer)
        outcomes.append(lookup.result)
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], GatewaysFound)
    assert [each.address for each in outcomes[0].gateways] == [SG_B, SG_D]
    assert outcomes[0].ttl == 70.0


@pytest.mark.parametrize(
    ("of_txt", "of_key", "together"),
    [
        (Trust.SECURE, Trust.SECURE, Trust.SECURE),
        (Trust.SECURE, Trust.INSECURE, Trust.INSECURE),
        (Trust.INSECURE, Trust.SECURE, Trust.INSECURE),
    ],
)
def test_trust_of_a_gateway_is_that_of_the_weakest_answer(
    of_txt: Trust, of_key: Trust, together: Trust
) -> None:
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B), trust=of_txt),
        found(AT_SG_B, key_rdata(KEY_2048), trust=of_key),
    )
    assert (result.trust, result.gateways[0].trust) == (of_txt, of_key)
    assert weakest(result.trust, result.gateways[0].trust) is together


def test_one_gateways_unsigned_key_is_not_the_others_concern() -> None:
    result = converse(
        GatewayLookup(BOB, in_order),
        found(AT_BOB, to(SG_B), to(SG_D, key=KEY_1024), trust=Trust.SECURE),
        found(AT_SG_B, key_rdata(KEY_2048)),
    )
    trusts = {each.address: each.trust for each in result.gateways}
    assert trusts == {SG_B: Trust.INSECURE, SG_D: Trust.SECURE}


def test_too_many_delegations_are_cut_the_same_way_each_time() -> None:
    records = [to(ip_address(f"192.1.{i // 200}.{i % 200 + 1}"), i, KEY_1024) for i in range(500)]
    rng = random.Random(1)
    results = []
    for _ in range(3):
        rng.shuffle(records)
        lookup = GatewayLookup(BOB, in_order)
        results.append(converse(lookup, found(AT_BOB, *records)))
        assert lookup.notes == [
            ("records_over_limit", f"{AT_BOB.name}: 500 delegations, 32 are used")
        ]
    assert results[0] == results[1] == results[2]
    assert [each.precedence for each in results[0].gateways] == list(range(MAX_DELEGATIONS))


def test_only_so_many_gateways_are_asked_for_keys() -> None:
    gateways = [ip_address(f"192.1.1.{i}") for i in range(10, 40)]
    lookup = GatewayLookup(BOB, in_order)
    result = converse(
        lookup,
        found(AT_BOB, *[to(each, i) for i, each in enumerate(gateways)]),
        *[
            found(Question(reverse_name(each), "KEY"), key_rdata(KEY_1024))
            for each in gateways[:MAX_KEY_QUESTIONS]
        ],
    )
    assert [each.address for each in result.gateways] == gateways[:MAX_KEY_QUESTIONS]
    assert lookup.notes[0][0] == "records_over_limit"


def test_too_many_keys_in_the_records_of_one_gateway() -> None:
    records = [to(SG_B, 10, key) for key in many_keys(MAX_KEYS + 5)]
    result = converse(GatewayLookup(BOB, in_order), found(AT_BOB, *records))
    assert len(result.gateways[0].keys) == MAX_KEYS


def test_keys_of_an_address() -> None:
    lookup = KeyLookup(SG_B)
    records = [key_rdata(KEY_4096), key_rdata(KEY_1024), key_rdata(KEY_1024, "02000401"), FOREIGN]
    result = converse(lookup, found(AT_SG_B, *records, trust=Trust.SECURE, ttl=9.0))
    assert isinstance(result, KeysFound)
    assert sizes(result.keys) == [1024, 4096]
    assert (result.ttl, result.trust) == (9.0, Trust.SECURE)


def test_keys_of_a_domain_name() -> None:
    asked = Question("sg-a.example.", "KEY")
    for name in ("SG-A.example", "sg-a.EXAMPLE."):
        result = converse(KeyLookup(name), found(asked, key_rdata(KEY_1024)))
        assert result == KeysFound((KEY_1024,), 300.0, Trust.INSECURE)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (nothing(AT_SG_B), NothingFound(60.0, f"{AT_SG_B.name} KEY: no_name")),
        (silent(AT_SG_B), Unanswered(f"{AT_SG_B.name} KEY: no answer in time")),
        (
            found(AT_SG_B, FOREIGN),
            NothingFound(300.0, f"{AT_SG_B.name} KEY: no record is for IPsec"),
        ),
        (
            found(AT_SG_B, key_rdata(KEY_1024), trust=Trust.BOGUS),
            Malformed(f"{AT_SG_B.name} KEY: DNSSEC calls the answer bogus", 300.0),
        ),
        (
            found(AT_SG_B, BROKEN, FOREIGN),
            Malformed(
                f"{AT_SG_B.name} KEY: KEY record: exponent 1 is not an odd number from 3 on", 300.0
            ),
        ),
    ],
)
def test_no_keys(answer: Answer, outcome: object) -> None:
    assert converse(KeyLookup(SG_B), answer) == outcome


def test_a_broken_key_beside_a_good_one_is_noted() -> None:
    lookup = KeyLookup(SG_B)
    result = converse(lookup, found(AT_SG_B, BROKEN, key_rdata(KEY_1024)))
    assert result.keys == (KEY_1024,)
    assert [each[0] for each in lookup.notes] == ["key_record_malformed"]


def test_too_many_keys_are_cut_the_same_way_each_time() -> None:
    records = [key_rdata(key) for key in many_keys(100)]
    rng = random.Random(2)
    results = []
    for _ in range(3):
        rng.shuffle(records)
        lookup = KeyLookup(SG_B)
        results.append(converse(lookup, found(AT_SG_B, *records)))
        assert lookup.notes == [("records_over_limit", f"{AT_SG_B.name}: more than 16 keys")]
    assert results[0] == results[1] == results[2]
    assert len(results[0].keys) == MAX_KEYS


@pytest.mark.parametrize("identity", ["", "a b", "\x00", "192.1.1.5", "x" * 1000])
def test_an_identity_that_is_no_name_asks_nothing(identity: str) -> None:
    lookup = KeyLookup(identity)
    assert isinstance(converse(lookup), Malformed)
    assert lookup.notes[0][0] == "domain_name_malformed"


@pytest.mark.parametrize("lookup", [GatewayLookup(BOB, in_order), KeyLookup(SG_B)])
def test_an_answer_that_was_not_asked_for_changes_nothing(lookup) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RuntimeError, match="not under way"):
        lookup.receive_answer(found(AT_BOB, to(SG_B, key=KEY_1024)))
    question = lookup.next_question()
    with pytest.raises(RuntimeError, match="not under way"):
        lookup.receive_answer(found(AT_SG_D, key_rdata(KEY_1024)))
    assert lookup.result is None
    lookup.receive_answer(nothing(question))
    before = lookup.result
    lookup.receive_answer(found(question, to(SG_B, key=KEY_1024)))  # too late to matter
    assert lookup.result is before


def test_a_gateway_that_may_not_be_asked_for_is_one_without_a_key() -> None:
    """A stranger's TXT record must not make us ask the public DNS for private names."""
    asked = GatewayLookup(BOB, lambda tied: None, may_ask=lambda address: not address.is_private)
    question = asked.next_question()
    assert question is not None
    record = Delegation(10, ip_address("10.0.0.1")).serialize()
    asked.receive_answer(Answer(question, Status.ANSWERED, (record,), 300.0))
    assert asked.next_question() is None
    assert isinstance(asked.result, NothingFound)

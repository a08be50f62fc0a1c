"""The resolver against a server on the loopback address that drops, lies and delays."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from dnsrecords import exchange as exchange_module
from dnsrecords.budget import Budget
from dnsrecords.delegation import Delegation
from dnsrecords.key import HostKey
from dnsrecords.lookup import GatewayLookup, KeyLookup
from dnsrecords.outcome import GatewaysFound, KeysFound, Malformed, NothingFound, Unanswered
from dnsrecords.question import Answer, Question, Status
from dnsrecords.resolver import Resolver, system_resolvers
from dnsrecords.trust import Trust
from dnsrecords.upstream import Standing, Upstream, in_order
from tests.support.dns_keys import KEY_2048, KEY_4096, base64_key
from tests.support.dns_server import (
    LOOPBACK,
    CutShort,
    Delay,
    DnsServer,
    Drop,
    Fail,
    Garble,
    Truncate,
    cut_in_half,
    not_a_response,
    too_many_records,
    wrong_id,
    wrong_question,
)

BOB = "66.0.2.192.in-addr.arpa."
AT_BOB = Question(BOB, "TXT")
SG_B = ip_address("192.1.1.5")
RECORDS: dict[str, dict[str, list[str]]] = {
    BOB: {"TXT": [Delegation(10, SG_B, None, KEY_2048).presentation()]},
    "5.1.1.192.in-addr.arpa.": {"KEY": [f"16896 4 1 {base64_key(4096)}"]},
    "67.0.2.192.in-addr.arpa.": {"CNAME": ["67.64/26.0.2.192.in-addr.arpa."]},
    "67.64/26.0.2.192.in-addr.arpa.": {"TXT": [Delegation(5, SG_B).presentation()]},
    "loop.example.": {"CNAME": ["pool.example."]},
    "pool.example.": {"CNAME": ["loop.example."]},
    "dangling.example.": {"CNAME": ["nowhere.example."]},
    "bad.example.": {"TXT": ['"X-IPsec-Server(10)=nonsense"']},
    **{f"c{i}.example.": {"CNAME": [f"c{i + 1}.example."]} for i in range(12)},
    "c12.example.": {"TXT": ['"end"']},
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Trace:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.events.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    def triggers(self) -> list[str]:
        return [fields["trigger"] for fields in self.named("dropped")]


Scene = Callable[[DnsServer, Resolver, Trace], Awaitable[None]]


def play(scene: Scene, server_options: dict[str, Any] | None = None, **options: Any) -> None:
    """Run ``scene`` with a server and a resolver that asks it."""

    async def run() -> None:
        trace = Trace()
        async with DnsServer(RECORDS, **(server_options or {})) as server:
            settings = {"timeout": 0.4, "port": server.port, "listener": trace, **options}
            settings["trusted"] = [ip_address(LOOPBACK)] if settings.get("trusted") else []
            resolver = Resolver([ip_address(LOOPBACK)], **settings)
            try:
                await scene(server, resolver, trace)
            finally:
                resolver.close()

    asyncio.run(run())


def transports(server: DnsServer) -> list[str]:
    return [transport for transport, _ in server.queries]


def open_sockets() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor is gone
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith("socket:")}


def test_an_answer_and_what_the_listener_hears() -> None:
    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        answer = await resolver.ask(AT_BOB)
        assert answer == Answer(
            AT_BOB,
            Status.ANSWERED,
            (Delegation(10, SG_B, None, KEY_2048).serialize(),),
            300.0,
            Trust.INSECURE,
        )
        assert [name for name, _ in trace.events] == ["query", "answer"]
        assert trace.events[0][1] == {
            "name": BOB,
            "rdtype": "TXT",
            "server": LOOPBACK,
            "transport": "udp",
        }
        heard = trace.events[1][1]
        assert 0 <= heard.pop("seconds") < 1
        assert heard == {
            "name": BOB,
            "rdtype": "TXT",
            "status": "answered",
            "records": 1,
            "ttl": 300.0,
            "cached": False,
            "trust": "insecure",
            "detail": "",
        }
        assert server.queries[0][1].edns == 0

    play(scene)


def test_a_key_record_comes_as_raw_octets() -> None:
    async def scene(_: DnsServer, resolver: Resolver, __: Trace) -> None:
        answer = await resolver.ask(Question("5.1.1.192.in-addr.arpa.", "KEY"))
        assert answer.records == (HostKey(KEY_4096).serialize(),)

    play(scene)


def test_queries_differ_in_id() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        for _ in range(20):
            await resolver.ask(AT_BOB)
            resolver.forget()
        assert len({query.id for _, query in server.queries}) > 15

    play(scene)


def test_a_lookup_of_a_gateway_through_an_alias_and_its_key() -> None:
    async def scene(_: DnsServer, resolver: Resolver, __: Trace) -> None:
        outcome = await resolver.run(GatewayLookup(ip_address("192.2.0.67"), lambda _: None))
        assert isinstance(outcome, GatewaysFound)
        assert outcome.gateways[0].address == SG_B
        assert outcome.gateways[0].keys == (KEY_4096,)
        keys = await resolver.run(KeyLookup(SG_B))
        assert isinstance(keys, KeysFound)

    play(scene)
    play(scene, {"chase": False})


def test_lookups_that_end_without_a_gateway() -> None:
    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        outcome = await resolver.run(KeyLookup("nowhere.example"))
        assert outcome == NothingFound(120.0, "nowhere.example. KEY: no such name")
        server.next("sg-q.example.", Drop(), Drop(), Drop())
        silence = await resolver.run(KeyLookup("sg-q.example"))
        assert silence == Unanswered("sg-q.example. KEY: no answer in time")
        assert trace.triggers() == []
        assert isinstance(await resolver.run(KeyLookup("no name")), Malformed)
        assert trace.triggers() == ["dns_record_malformed"]
        assert [each["trigger"] for each in trace.named("note")] == ["domain_name_malformed"]

    play(scene)


def test_a_lookup_that_neither_asks_nor_knows_is_our_mistake() -> None:
    async def scene(_: DnsServer, resolver: Resolver, __: Trace) -> None:
        lookup = KeyLookup(SG_B)
        lookup.next_question()
        with pytest.raises(RuntimeError, match="neither asks"):
            await resolver.run(lookup)

    play(scene)


@pytest.mark.parametrize(
    ("name", "status", "ttl"),
    [
        ("nowhere.example.", Status.NO_NAME, 120.0),
        ("c12.example.", Status.NO_DATA, 120.0),
        ("dangling.example.", Status.NO_NAME, 120.0),
    ],
)
def test_negative_answers_are_remembered(name: str, status: Status, ttl: float) -> None:
    clock = Clock()

    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        question = Question(name, "KEY")
        for passed, left in ((0.0, ttl), (100.0, ttl - 100.0)):
            clock.now = 1000.0 + passed
            answer = await resolver.ask(question)
            assert (answer.status, answer.ttl) == (status, left)
        assert len(server.queries) == 1
        assert [each["cached"] for each in trace.named("answer")] == [False, True]
        clock.now = 1000.0 + ttl
        await resolver.ask(question)
        assert len(server.queries) == 2

    play(scene, clock=clock)


def test_answers_are_remembered_for_their_ttl_and_within_bounds() -> None:
    clock = Clock()

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        await resolver.ask(AT_BOB)
        clock.now += 299
        assert (await resolver.ask(AT_BOB)).ttl == 1.0
        assert len(server.queries) == 1
        await resolver.ask(Question("a.example.", "TXT"))
        await resolver.ask(Question("b.example.", "TXT"))  # the third entry pushes the first out
        await resolver.ask(AT_BOB)
        assert len(server.queries) == 4

    play(scene, clock=clock, cache_entries=2)


@pytest.mark.parametrize("behaviour", [Drop(), Fail(), Fail(dns.rcode.REFUSED)])
def test_a_second_try_helps(behaviour: object) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, behaviour, behaviour)
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert len(server.queries) == 3

    play(scene)


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [(Drop(), "no answer in time"), (Fail(), "SERVFAIL"), (Fail(dns.rcode.NOTIMP), "NOTIMP")],
)
def test_tries_end_and_failure_is_not_remembered(behaviour: object, detail: str) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, behaviour, behaviour, behaviour)
        answer = await resolver.ask(AT_BOB)
        assert (answer.status, answer.ttl, answer.detail) == (Status.UNANSWERED, 0.0, detail)
        assert len(server.queries) == 3
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED

    play(scene)


def test_a_slow_server_is_listened_to_while_it_is_asked_again() -> None:
    """Three tries of 0.1, 0.2 and 0.4 s; the answer to the first of them comes after 0.35 s."""

    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        server.next(BOB, Delay(0.35), Delay(0.35), Delay(0.35))
        started = time.monotonic()
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert 0.3 < time.monotonic() - started < 0.7
        assert len(server.queries) == 3
        (slow,) = resolver.servers()
        assert slow.standing is Standing.SLOW
        assert slow.timeouts == 0
        assert slow.smoothed is not None
        assert 0.3 < slow.smoothed < 0.7
        assert trace.named("server")[0]["new"] == "slow"

    play(scene, timeout=0.1)


def test_the_deadline_holds_over_all_tries() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, *[Drop()] * 10)
        started = time.monotonic()
        answer = await resolver.ask(AT_BOB)
        assert answer.detail == "no answer within 1.25 s"
        assert 1.2 < time.monotonic() - started < 5.0
        assert len(server.queries) == 2  # at 0 and 0.5 s; that at 1.5 s would be too late

    play(scene, timeout=0.5, tries=10, deadline=1.25)


def test_a_dead_server_is_followed_by_the_next() -> None:
    async def run() -> None:
        async with DnsServer(RECORDS) as server:
            dead = ip_address("127.0.0.9")  # nobody listens there: refused at once
            resolver = Resolver([dead, ip_address(LOOPBACK)], port=server.port, timeout=0.5)
            assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
            alone = Resolver([dead], port=server.port, timeout=0.5)
            answer = await alone.ask(AT_BOB)
            assert answer.status is Status.UNANSWERED
            assert "127.0.0.9: [Errno 111]" in answer.detail

    asyncio.run(run())


@pytest.mark.parametrize(
    ("forge", "trigger"),
    [
        (wrong_id, "dns_response_mismatched"),
        (not_a_response, "dns_response_mismatched"),
        (wrong_question, "dns_response_mismatched"),
        (lambda _: b"garbage", "dns_response_mismatched"),
        (cut_in_half, "dns_response_malformed"),
        (too_many_records, "dns_response_malformed"),
    ],
)
def test_a_forged_datagram_does_not_hide_the_true_one(forge: Any, trigger: str) -> None:
    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        server.next(BOB, Garble(forge))
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert len(server.queries) == 1
        assert trace.triggers() == [trigger]
        assert trace.named("dropped")[0]["server"] == LOOPBACK

    play(scene)


def test_a_truncated_answer_is_fetched_by_tcp() -> None:
    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        server.next(BOB, Truncate())
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert transports(server) == ["udp", "tcp"]
        assert [each["transport"] for each in trace.named("query")] == ["udp", "tcp"]

    play(scene)


def test_a_large_answer_comes_whole_by_tcp() -> None:
    records = [Delegation(i, SG_B, None, KEY_4096).presentation() for i in range(60)]

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        name = "large.example."
        server.records[dns.name.from_text(name)] = {"TXT": records}
        server.next(name, Truncate())
        answer = await resolver.ask(Question(name, "TXT"))
        assert len(answer.records) == 60
        assert sum(map(len, answer.records)) > 40000

    play(scene)


@pytest.mark.parametrize("by_tcp", [CutShort(), Drop(), Fail(), Garble(wrong_id)])
def test_tcp_that_fails_is_one_failed_try(by_tcp: object) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Truncate(), by_tcp)
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert transports(server) == ["udp", "tcp", "udp"]

    play(scene)


def test_truncated_by_tcp_too_is_no_answer() -> None:
    class AlwaysTruncating(DnsServer):
        def respond(self, query: Any) -> Any:
            response = super().respond(query)
            response.flags |= dns.flags.TC
            return response

    async def run() -> None:
        async with AlwaysTruncating(RECORDS) as server:
            resolver = Resolver([ip_address(LOOPBACK)], port=server.port, timeout=0.5, tries=2)
            assert (await resolver.ask(AT_BOB)).status is Status.UNANSWERED
            assert transports(server) == ["udp", "tcp"] * 2

    asyncio.run(run())


def test_a_server_that_does_not_know_edns() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Fail(dns.rcode.FORMERR))
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        assert [query.edns for _, query in server.queries] == [0, -1]

    play(scene)


@pytest.mark.parametrize("chase", [True, False])
def test_aliases_end_after_eight(chase: bool) -> None:
    async def scene(_: DnsServer, resolver: Resolver, __: Trace) -> None:
        for name in ("loop.example.", "c3.example."):
            answer = await resolver.ask(Question(name, "TXT"))
            assert (answer.status, answer.detail) == (Status.UNANSWERED, "more than 8 CNAMEs")
        assert (await resolver.ask(Question("c4.example.", "TXT"))).records == (b"\x03end",)

    play(scene, {"chase": chase, "soa": None})


@pytest.mark.parametrize(
    ("authentic", "trusted", "trust"),
    [
        (True, True, Trust.SECURE),
        (True, False, Trust.INSECURE),
        (False, True, Trust.INSECURE),
    ],
)
def test_trust(authentic: bool, trusted: bool, trust: Trust) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        assert (await resolver.ask(AT_BOB)).trust is trust
        assert bool(server.queries[0][1].flags & dns.flags.AD) is trusted

    play(scene, {"authentic": authentic}, trusted=trusted)


@pytest.mark.parametrize(
    ("codes", "queries", "words"),
    [
        ([6], 1, "DNSSEC bogus (6)"),  # it has seen what is wrong: no need to ask again
        ([7], 1, "signature expired (7)"),
        ([7, 9], 1, "signature expired (7), DNSKEY missing (9)"),
        ([9], 2, "DNSKEY missing (9)"),  # perhaps a server of the zone is down: with CD it is not
        ([13], 2, "cached error (13)"),
        ([], 2, "SERVFAIL"),
    ],
)
def test_what_a_validating_server_refuses_and_has_is_bogus(
    codes: list[int], queries: int, words: str
) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Fail(extended=codes))
        outcome = await resolver.run(GatewayLookup(ip_address("192.2.0.66"), lambda _: None))
        assert isinstance(outcome, Malformed)
        assert outcome.detail.startswith(f"{BOB} TXT: DNSSEC calls the answer bogus (SERVFAIL")
        assert words in outcome.detail
        flags = [bool(query.flags & dns.flags.CD) for _, query in server.queries]
        assert flags == [False, True][:queries]

    play(scene, trusted=True)


@pytest.mark.parametrize(
    ("behaviours", "detail"),
    [
        # Neither with nor without validation: nobody can say what is there.
        ([Fail(), Fail()], "SERVFAIL"),
        ([Fail(extended=9), Fail(extended=22)], "SERVFAIL: DNSKEY missing (9)"),
        # A reason that has nothing to do with signatures: not asked again without validation.
        ([Fail(extended=22)], "SERVFAIL: no reachable authority (22)"),
        ([Fail(extended=[9, 23])], "SERVFAIL: DNSKEY missing (9), network error (23)"),
    ],
)
def test_what_a_validating_server_does_not_have_either_is_a_failed_lookup(
    behaviours: list[object], detail: str
) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, *behaviours)
        outcome = await resolver.run(GatewayLookup(ip_address("192.2.0.66"), lambda _: None))
        assert outcome == Unanswered(f"{BOB} TXT: {detail}")

    play(scene, trusted=True, tries=1)


def test_an_answer_without_validation_may_be_slow_to_come_too() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Fail(), Drop())
        answer = await resolver.ask(AT_BOB)
        assert (answer.status, answer.trust) == (Status.UNANSWERED, Trust.INSECURE)

    play(scene, trusted=True, tries=1, timeout=0.1)


def test_indeterminate_is_neither_secure_nor_bogus() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Fail(extended=5))
        answer = await resolver.ask(AT_BOB)
        assert (answer.status, answer.trust) == (Status.ANSWERED, Trust.INDETERMINATE)
        assert "DNSSEC indeterminate (5)" in answer.detail

    play(scene, {"authentic": True}, trusted=True)


def test_the_cache_keeps_the_trust() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        assert (await resolver.ask(AT_BOB)).trust is Trust.SECURE
        assert (await resolver.ask(Question("nowhere.example.", "TXT"))).trust is Trust.SECURE
        server.authentic = False
        assert (await resolver.ask(AT_BOB)).trust is Trust.SECURE
        nothing = await resolver.ask(Question("nowhere.example.", "TXT"))
        assert (nothing.status, nothing.trust) == (Status.NO_NAME, Trust.SECURE)
        assert len(server.queries) == 2

    play(scene, {"authentic": True}, trusted=True)


def test_a_chain_of_aliases_is_as_strong_as_its_weakest_link() -> None:
    class HalfSigned(DnsServer):
        def respond(self, query: dns.message.Message) -> dns.message.Message:
            self.authentic = str(query.question[0].name) != "67.64/26.0.2.192.in-addr.arpa."
            return super().respond(query)

    async def run() -> None:
        async with HalfSigned(RECORDS, chase=False) as server:
            loopback = ip_address(LOOPBACK)
            resolver = Resolver([loopback], trusted=[loopback], port=server.port)
            answer = await resolver.ask(Question("67.0.2.192.in-addr.arpa.", "TXT"))
            assert (answer.status, answer.trust) == (Status.ANSWERED, Trust.INSECURE)
            assert len(server.queries) == 2
            resolver.close()

    asyncio.run(run())


def test_without_trust_nobody_is_told_bogus() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, *[Fail(extended=6)] * 3)
        answer = await resolver.ask(AT_BOB)
        assert (answer.status, answer.trust) == (Status.UNANSWERED, Trust.INSECURE)

    play(scene)


def test_identical_questions_share_a_query() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Delay(0.05))
        answers = await asyncio.gather(*[resolver.ask(AT_BOB) for _ in range(50)])
        assert {answer.status for answer in answers} == {Status.ANSWERED}
        assert len(server.queries) == 1

    play(scene)


def test_one_who_gives_up_does_not_spoil_it_for_the_others() -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Delay(0.05))
        first, second = (asyncio.create_task(resolver.ask(AT_BOB)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).status is Status.ANSWERED
        assert len(server.queries) == 1

    play(scene)


@pytest.mark.parametrize("behaviours", [[Drop()], [Truncate(), Delay(3)]])
def test_the_last_to_give_up_ends_the_query(behaviours: list[object]) -> None:
    before = open_sockets()

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, *behaviours)
        task = asyncio.create_task(resolver.ask(AT_BOB))
        deadline = time.monotonic() + 5
        while len(server.queries) < len(behaviours) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0)
        # Asked again at once, it is not joined to what is being given up.
        again = await resolver.ask(AT_BOB)
        assert again.status is Status.ANSWERED
        assert task.cancelled()
        assert not [each for each in asyncio.all_tasks() if "Resolver" in repr(each.get_coro())]

    play(scene, timeout=2.0, deadline=5.0)
    assert open_sockets() == before


def test_closing_answers_those_who_wait() -> None:
    before = open_sockets()

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Drop())
        task = asyncio.create_task(resolver.ask(AT_BOB))
        await asyncio.sleep(0.02)
        resolver.close()
        assert (await task).detail == "resolver is closed"
        assert (await resolver.ask(AT_BOB)).detail == "resolver is closed"

    play(scene, timeout=2.0)
    assert open_sockets() == before


def test_too_many_questions_are_turned_away() -> None:
    async def scene(_: DnsServer, resolver: Resolver, trace: Trace) -> None:
        questions = [Question(f"n{i}.example.", "TXT") for i in range(10)]
        answers = await asyncio.gather(*map(resolver.ask, questions))
        assert [each.status for each in answers[:4]] == [Status.NO_NAME] * 4
        assert {each.detail for each in answers[4:]} == {"too many look-ups"}
        assert trace.triggers() == ["dns_too_many_lookups"] * 6
        assert (await resolver.ask(questions[9])).status is Status.NO_NAME

    play(scene, budget=Budget(under_way=4, kept=0.0))


def test_fifty_thousand_forged_sources_stay_within_the_budget() -> None:
    """And a question of our own is asked in the middle of them."""

    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        server.next("ours.example.", Delay(0.1))
        forged = [
            asyncio.create_task(resolver.ask(Question(f"n{i}.example.", "TXT")))
            for i in range(50_000)
        ]
        await asyncio.sleep(0)
        mine = await resolver.ask(Question("ours.example.", "KEY"), ours=True)
        assert mine.status is Status.NO_NAME
        answers = await asyncio.gather(*forged)
        asked = sum(each.status is Status.NO_NAME for each in answers)
        shed = sum(each.detail == "too many look-ups" for each in answers)
        assert asked == 192  # three quarters of 256
        assert asked + shed == 50_000
        assert trace.triggers().count("dns_too_many_lookups") == shed
        assert len(server.queries) <= asked + 1 + 3 * asked  # tries, where the box is slow

    play(scene, timeout=5.0, deadline=20.0)


def test_questions_per_second_are_bounded_too() -> None:
    clock = Clock()

    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        for number in range(30):
            await resolver.ask(Question(f"n{number}.example.", "TXT"))
        assert len(server.queries) == 15  # of 20 in two seconds; five are kept
        assert trace.triggers() == ["dns_too_many_per_second"] * 15
        answer = await resolver.ask(Question("ours.example.", "TXT"), ours=True)
        assert answer.status is Status.NO_NAME
        clock.now += 0.25
        assert (await resolver.ask(Question("n29.example.", "TXT"))).status is Status.NO_NAME

    play(scene, clock=clock, budget=Budget(per_second=10.0))


def test_a_dead_server_is_tried_once_and_found_again() -> None:
    async def scene(server: DnsServer, resolver: Resolver, trace: Trace) -> None:
        server.next(BOB, *[Drop()] * 4)
        assert (await resolver.ask(AT_BOB)).status is Status.UNANSWERED  # 0.7 s
        (report,) = resolver.servers()
        assert (report.standing, report.timeouts, report.last_answer) == (Standing.DEAD, 3, None)
        started = time.monotonic()
        assert (await resolver.ask(AT_BOB)).status is Status.UNANSWERED
        assert time.monotonic() - started < 0.3, "nobody waits long for one that is dead"
        assert len(server.queries) == 4
        assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        told = [(each["old"], each["new"]) for each in trace.named("server")]
        assert told == [("good", "dead"), ("dead", "good")]

    play(scene, timeout=0.1)


def test_dead_servers_are_asked_last_and_probed_now_and_then() -> None:
    async def run() -> None:
        trace = Trace()
        async with (
            DnsServer(RECORDS) as dying,
            DnsServer(RECORDS, host="127.0.0.2", port=dying.port) as well,
        ):
            resolver = Resolver(
                [ip_address(LOOPBACK), ip_address("127.0.0.2")],
                port=dying.port, timeout=0.05, listener=trace,
            )  # fmt: skip
            resolver._upstreams[0]._dead = True
            resolver._upstreams[0]._next_probe = time.monotonic() + 0.3
            assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
            assert (len(dying.queries), len(well.queries)) == (0, 1)
            await asyncio.sleep(0.35)
            resolver.forget()
            assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
            await asyncio.sleep(0.05)
            assert (len(dying.queries), len(well.queries)) == (1, 2)
            assert resolver.servers()[0].standing is Standing.GOOD
            resolver.close()

    asyncio.run(run())


def test_trusted_servers_are_asked_before_others() -> None:
    """Else who can slow the first one down chooses our answers."""
    one, other = (
        Upstream(ip_address(f"192.1.1.{n}"), trusted=n == 54, timeout=1.0) for n in (53, 54)
    )
    assert in_order([one, other]) == [other, one]
    other.answered(1.0, 3.0)
    assert other.standing is Standing.SLOW
    assert in_order([one, other]) == [other, one]
    other.asked(2.0)
    for now in (3.0, 5.0, 7.0):
        other.timed_out(now)
    assert other.standing is Standing.DEAD
    assert in_order([one, other]) == [one, other]


@pytest.mark.parametrize(
    "question",
    [Question("a" * 64 + ".example.", "TXT"), Question("a..b.", "TXT"), Question("a.", "NOPE")],
)
def test_questions_that_can_not_be_asked(question: Question) -> None:
    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        answer = await resolver.ask(question)
        assert answer.status is Status.UNANSWERED
        assert answer.detail.startswith("can't be asked")
        assert server.queries == []

    play(scene)


def test_the_mark_is_on_every_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int, int]] = []  # kind, mark, port of the peer

    class Spy(socket.socket):
        def close(self) -> None:
            if self.fileno() >= 0:
                mark = self.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
                opened.append((self.type, mark, self.getpeername()[1]))
            super().close()

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        server.next(BOB, Truncate())
        with monkeypatch.context() as patched:
            patched.setattr(exchange_module.socket, "socket", Spy)
            assert (await resolver.ask(AT_BOB)).status is Status.ANSWERED
        ours = [(kind, mark) for kind, mark, port in opened if port == server.port]
        assert ours == [(socket.SOCK_DGRAM, 0x4F45), (socket.SOCK_STREAM, 0x4F45)]

    play(scene, mark=0x4F45)


def test_a_mark_that_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMark(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

    async def scene(server: DnsServer, resolver: Resolver, _: Trace) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(exchange_module.socket, "socket", NoMark)
            answer = await resolver.ask(AT_BOB)
        assert (answer.status, server.queries) == (Status.UNANSWERED, [])
        assert "Operation not permitted" in answer.detail

    play(scene, mark=1)


def test_a_resolver_needs_a_server() -> None:
    with pytest.raises(ValueError, match="at least one server"):
        Resolver([])


def test_ipv6_servers_are_asked_by_ipv6() -> None:
    async def run() -> None:
        resolver = Resolver([ip_address("::1")], port=9, timeout=0.05, tries=1)
        answer = await resolver.ask(AT_BOB)
        assert answer.status is Status.UNANSWERED

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 192.1.1.53\n", ["192.1.1.53"]),
        ("# x\nsearch a\n nameserver\t::1 \nnameserver fe80::1%eth0\n", ["::1", "fe80::1%eth0"]),
        ("nameserver\nnameserver nonsense\nnameserver 192.1.1.53 # x\n", ["192.1.1.53"]),
        (
            "".join(f"nameserver 192.0.2.{i}\n" for i in range(1, 6)),
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ),
        ("", ["127.0.0.1"]),
        ("\udcff\udcfe", ["127.0.0.1"]),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str, servers: list[str]) -> None:
    file = tmp_path / "resolv.conf"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert system_resolvers(str(file)) == [ip_address(each) for each in servers]


def test_without_resolv_conf_it_is_the_host_itself(tmp_path: Path) -> None:
    assert system_resolvers(str(tmp_path / "missing")) == [ip_address("127.0.0.1")]

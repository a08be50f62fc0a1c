"""From a question's octets to the answer's, with nothing in between but the registry."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from oegw.moniker import answering, sealedquery, wire
from oegw.moniker.answering import Answering
from oegw.moniker.cookies import Cookies
from oegw.moniker.interface import Lease, LeaseRefused, Opening, Owner, Service
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.registry import Limits, Registry
from oegw.moniker.settings import HostSettings, MonikerSettings, ServiceRule
from oegw.moniker.steps import AskHost, HandOver, OpenPort, Reply, Silence, Source, Step
from oegw.moniker.wire import (
    NO_NONCE,
    QUESTION_OCTETS,
    Answer,
    Code,
    Message,
    Query,
    Refusal,
    Retry,
    padded,
    parse,
)
from oegw.sst.statickey import StaticKey

ROOT = Owner(1, 0, 0, "root")
KEY = StaticKey(bytes(range(32)))
NONCE = "0123456789abcdef"
ALICE, BOB = ip_address("192.0.2.1"), ip_address("198.51.100.2")
ALICE6, BOB6 = ip_address("2001:db8:1::1"), ip_address("2001:db8:2::2")
TCP, UDP = Source(ALICE, BOB), Source(ALICE, BOB, datagram=True)
TCP6, LOCAL = Source(ALICE6, BOB6), Source(ip_address("127.0.0.1"), ip_address("127.0.0.1"))
QUESTION = f"MON/1 Q {NONCE} tcp - starwars *"


def service(
    name: str = "starwars",
    port: int = 40000,
    families: str = "46",
    *,
    namespace: str = "",
    tcpmux: bool = False,
    version: str = "1",
    transport: str = "tcp",
    sst: bool = False,
) -> Service:
    return Service(
        name, Version.parse(version), transport, port, families, namespace, sst=sst, tcpmux=tcpmux
    )


def daemon(
    *services: Service,
    leases: bool = False,
    key: StaticKey | None = KEY,
    settings: MonikerSettings | None = None,
) -> Answering:
    """A daemon's core with ``services``; ``leases``: there is a firewall."""
    registry = Registry(Limits(all=100_000))
    for each in services or (service(),):
        registry.register(each, ROOT, 0.0)
    rng = random.Random(33)
    return Answering(
        settings or MonikerSettings(queries=1e9),
        registry,
        Cookies(b"s" * 32),
        key=key,
        random=rng.randbytes,
        choose=rng.randrange,
        leases=leases,
    )


def line(question: str) -> bytes:
    return question.encode() + b"\r\n"


def datagram(question: str, octets: int = QUESTION_OCTETS) -> bytes:
    return padded(question, octets).encode()


def said(step: object) -> Message:
    """What a reply says."""
    assert isinstance(step, Reply), step
    return parse(wire.decoded(step.octets))


def code_of(step: object) -> Code:
    message = said(step)
    assert isinstance(message, Refusal), message
    return message.code


def opened(core: Answering, step: Step, port: int | None = None, seconds: int = 60) -> Message:
    """What is said once the port that ``step`` wants is open."""
    assert isinstance(step, OpenPort), step
    return said(core.opened(step, Opening(port or step.lease.port, seconds)))


# ---------------------------------------------------------------- the usual question


def test_mk_6_one_question_one_lease_one_answer() -> None:
    core = daemon(service(sst=True))
    step = core.asked(line(QUESTION), TCP, 0.0)
    assert isinstance(step, OpenPort)
    assert step.lease == Lease(ALICE, BOB, "tcp", 40000, 60, "starwars")
    reply = core.opened(step, Opening(40000, 60))
    assert reply == Reply(f"MON/1 + {NONCE} 40000 tcp 1 46 60 sst\r\n".encode(), "moniker_answered")


def test_mk_11_a_clean_refusal() -> None:
    core = daemon()
    for question, code in (
        ("tcp - jedi *", Code.UNKNOWN),
        ("tcp alice starwars *", Code.UNKNOWN),
        ("udp - starwars *", Code.TRANSPORT),
        ("tcp - starwars >1", Code.VERSION),
    ):
        reply = core.asked(line(f"MON/1 Q {NONCE} {question}"), TCP, 0.0)
        assert code_of(reply) is code
        assert isinstance(reply, Reply)
        assert reply.trigger == f"moniker_{code.value}"


def test_mk_33_the_answer_carries_the_question_s_nonce() -> None:
    core = daemon()
    for nonce in ("0" * 16, "F" * 32, "aB" * 10):
        for name in ("starwars", "jedi"):
            step = core.asked(line(f"MON/1 Q {nonce} tcp - {name} *"), LOCAL, 0.0)
            message = said(step)
            assert isinstance(message, Answer | Refusal)
            assert message.nonce == nonce


def test_mk_29_the_lease_is_of_the_client_s_family() -> None:
    core = daemon()
    step = core.asked(line(QUESTION), TCP6, 0.0)
    assert isinstance(step, OpenPort)
    assert (step.lease.client, step.lease.host) == (ALICE6, BOB6)
    mapped = Source(ip_address(f"::ffff:{ALICE}"), ip_address(f"::ffff:{BOB}"))
    step = core.asked(line(QUESTION), mapped, 0.0)
    assert isinstance(step, OpenPort)
    assert (step.lease.client, step.lease.host) == (ALICE, BOB)


def test_mk_29_where_the_other_family_is_needed_the_answer_says_so_without_a_lease() -> None:
    core = daemon(service(families="6"))
    message = said(core.asked(line(QUESTION), TCP, 0.0))
    assert isinstance(message, Answer)
    assert message.families == "6"


def test_who_asks_on_this_host_needs_no_lease() -> None:
    core = daemon(leases=True)
    for source in (LOCAL, replace(LOCAL, datagram=True), Source(BOB, BOB)):
        octets = datagram(QUESTION) if source.datagram else line(QUESTION)
        assert isinstance(said(core.asked(octets, source, 0.0)), Answer)


def test_a_lease_s_time_and_port_are_the_answer_s() -> None:
    core = daemon()
    step = core.asked(line(QUESTION), TCP, 0.0)
    answer = opened(core, step, port=5000, seconds=7)
    assert isinstance(answer, Answer)
    assert (answer.port, answer.ttl) == (5000, 7)
    longer = opened(core, step, seconds=999)
    assert isinstance(longer, Answer)
    assert longer.ttl == 60  # no longer than our own settings say


@pytest.mark.parametrize(
    ("code", "told"),
    [("gateway", Code.GATEWAY), ("busy", Code.BUSY), ("denied", Code.DENIED), ("x", Code.OTHER)],
)
def test_a_port_that_is_not_opened_is_not_told(code: str, told: Code) -> None:
    core = daemon()
    step = core.asked(line(QUESTION), TCP, 0.0)
    assert isinstance(step, OpenPort)
    reply = core.not_opened(step, LeaseRefused(code, "it would not"))
    assert said(reply) == Refusal(NONCE, told, "it would not")


# ----------------------------------------------------------------------------- UDP


def test_mk_33_a_datagram_s_source_proves_itself_where_a_lease_is_to_be_had() -> None:
    core = daemon(leases=True)
    retry = said(core.asked(datagram(QUESTION), UDP, 0.0))
    assert isinstance(retry, Retry)
    again = datagram(f"{QUESTION} {retry.cookie}")
    assert isinstance(core.asked(again, UDP, 10.0), OpenPort)
    forged = replace(UDP, address=ip_address("192.0.2.99"))
    assert isinstance(said(core.asked(again, forged, 10.0)), Retry)
    assert isinstance(said(core.asked(again, UDP, 100.0)), Retry)  # it was good for a while


def test_mk_33_without_a_firewall_a_datagram_is_answered_unless_we_are_busy() -> None:
    core = daemon()
    assert isinstance(core.asked(datagram(QUESTION), UDP, 0.0), OpenPort)
    retry = said(core.asked(datagram(QUESTION), UDP, 0.0, busy=True))
    assert isinstance(retry, Retry)
    again = core.asked(datagram(f"{QUESTION} {retry.cookie}"), UDP, 0.0, busy=True)
    assert isinstance(again, OpenPort)
    assert isinstance(core.asked(line(QUESTION), TCP, 0.0, busy=True), OpenPort)


def test_mk_27_no_datagram_is_answered_with_a_longer_one() -> None:
    core, dry = daemon(leases=True), 0
    cookie = Cookies(b"s" * 32).cookie(ALICE, 0.0)
    questions = [
        QUESTION,
        f"{QUESTION} {cookie}",
        f"MON/1 Q {NONCE} tcp - jedi *",
        f"MON/1 Q {NONCE} tcp - a:b *",
        f"MON/1 Q {NONCE}",
        "MON/1 E AAAA",
        "MON/1 Q",
        "starwars",
        "HELP",
        "",
    ]
    for question in questions:
        for octets in (0, 60, 90, QUESTION_OCTETS):
            asked = datagram(question, octets)
            step = core.asked(asked, UDP, 0.0)
            if isinstance(step, OpenPort):
                step = core.opened(step, Opening(40000, 60))  # type: ignore[assignment]
            if isinstance(step, Reply):
                assert len(step.octets) <= len(asked)
                assert not step.octets.endswith(b"\n")
            else:
                assert isinstance(step, Silence)
                dry += step.trigger == "moniker_question_too_short"
    assert dry > 0


def test_mk_27_a_refusal_loses_its_text_before_it_is_not_sent() -> None:
    core = daemon()
    question = f"MON/1 Q {NONCE} tcp - jedi *"
    short = core.asked(question.encode(), UDP, 0.0)
    assert isinstance(short, Reply)
    assert short.octets == f"MON/1 - {NONCE} unknown".encode()
    assert said(core.asked(datagram(question), UDP, 0.0)) == Refusal(
        NONCE, Code.UNKNOWN, "no such service"
    )


def test_two_daemons_don_t_answer_each_other_for_ever() -> None:
    """A forged datagram from port 1 of one daemon to port 1 of another: RFC 5358's kind of loop."""
    cores = daemon(leases=True), daemon(key=StaticKey(b"k" * 32))
    ends = replace(UDP, address=BOB, asked=ALICE), UDP
    first = [datagram(QUESTION), datagram(f"MON/1 Q {NONCE} tcp - a:b *"), sealed().text.encode()]
    first += [datagram(f"MON/1 {kind} {NONCE} x") for kind in "+-?"]
    for octets in first:
        rounds = 0
        while octets:
            step = cores[rounds % 2].asked(octets, ends[rounds % 2], 0.0)
            if isinstance(step, OpenPort):
                step = cores[rounds % 2].opened(step, Opening(40000, 60))  # type: ignore[assignment]
            octets = step.octets if isinstance(step, Reply) else b""
            rounds += 1
        assert rounds <= 3


# -------------------------------------------------------------------------- sealed


def sealed(question: str = QUESTION, key: StaticKey = KEY) -> sealedquery.SealedQuery:
    return sealedquery.seal(question, key.public, random.Random(question).randbytes)


def unsealed(step: object, answer_key: bytes) -> Message:
    assert isinstance(step, Reply), step
    return parse(sealedquery.unseal_answer(wire.decoded(step.octets), answer_key))


def test_mk_16_a_sealed_question_has_a_sealed_answer() -> None:
    core, asked = daemon(), sealed()
    step = core.asked(line(asked.text), TCP, 0.0)
    assert isinstance(step, OpenPort)
    assert step.lease.encrypted
    reply = core.opened(step, Opening(40000, 60))
    assert isinstance(reply, Reply)
    assert b"40000" not in reply.octets
    answer = unsealed(reply, asked.answer_key)
    assert answer == Answer(NONCE, 40000, "tcp", Version.parse("1"), "46", 60)


def test_mk_16_a_refusal_looks_like_an_answer() -> None:
    core = daemon()
    step = core.asked(line(sealed().text), LOCAL, 0.0)
    other = sealed(f"MON/1 Q {NONCE} tcp - jedi *")
    refused = core.asked(line(other.text), LOCAL, 0.0)
    assert isinstance(step, Reply)
    assert isinstance(refused, Reply)
    assert len(step.octets) == len(refused.octets)
    assert unsealed(refused, other.answer_key) == Refusal(NONCE, Code.UNKNOWN, "no such service")


def test_mk_16_sealed_datagrams_are_proven_in_secret() -> None:
    core, first = daemon(leases=True), sealed(f"{QUESTION} whatever")
    retry = unsealed(core.asked(first.text.encode(), UDP, 0.0), first.answer_key)
    assert isinstance(retry, Retry)
    again = sealed(f"{QUESTION} {retry.cookie}")
    step = core.asked(again.text.encode(), UDP, 0.0)
    assert isinstance(step, OpenPort)
    assert len(core.opened(step, Opening(40000, 60)).octets) <= len(again.text)  # type: ignore[union-attr]


def test_mk_16_a_copy_of_a_datagram_opens_nothing_over_tcp() -> None:
    """There it would need no cookie, and nobody has remembered what was not answered yet."""
    core, eve = daemon(leases=True), ip_address("203.0.113.66")
    without = sealed()
    refused = unsealed(core.asked(without.text.encode(), UDP, 0.0), without.answer_key)
    assert isinstance(refused, Refusal)  # so that no client sends such a one
    assert refused.code is Code.MALFORMED
    first = sealed(f"{QUESTION} whatever")
    retry = unsealed(core.asked(first.text.encode(), UDP, 0.0), first.answer_key)
    assert isinstance(retry, Retry)
    again = sealed(f"{QUESTION} {retry.cookie}")
    for copy in (first.text, again.text):
        over_tcp, over_udp = replace(TCP, address=eve), replace(UDP, address=eve)
        assert core.asked(line(copy), over_tcp, 0.0) == Silence("moniker_replayed")
        assert not isinstance(core.asked(copy.encode(), over_udp, 0.0), OpenPort)
    assert isinstance(core.asked(again.text.encode(), UDP, 0.0), OpenPort)


def test_mk_16_another_key_is_told_by_its_code() -> None:
    other = sealed(key=StaticKey(b"k" * 32))
    for core in (daemon(), daemon(key=None)):
        message = said(core.asked(line(other.text), TCP, 0.0))
        assert isinstance(message, Refusal)
        assert message.code is Code.KEY
        assert message.nonce == sealedquery.nonce_of(other.text)  # MK-33


def test_mk_16_somebody_else_s_question_opens_nothing_for_who_repeats_it() -> None:
    core, asked = daemon(), sealed()
    assert isinstance(core.asked(line(asked.text), TCP, 0.0), OpenPort)
    eve = replace(TCP, address=ip_address("203.0.113.66"))
    assert core.asked(line(asked.text), eve, 0.0) == Silence("moniker_replayed")
    assert core.asked(line(asked.text + "  "), eve, 0.0) == Silence("moniker_replayed")
    assert isinstance(core.asked(line(asked.text), TCP, 0.0), OpenPort)  # a packet may come twice


def test_mk_16_only_what_opened_a_port_is_remembered() -> None:
    """Else strangers could have a question forgotten by asking for what there is not."""
    core = daemon(leases=True)
    core.asked(line(sealed(f"MON/1 Q {NONCE} tcp - jedi *").text), TCP, 0.0)
    core.asked(sealed(f"{QUESTION} whatever").text.encode(), UDP, 0.0)
    assert not core._replays
    core.asked(line(sealed().text), TCP, 0.0)
    assert len(core._replays) == 1


@pytest.mark.parametrize(
    "inner",
    ["", "starwars", f"MON/1 ? {NONCE} aaaaaaaaaa", "MON/1 E AAAA", f"MON/1 Q {NONCE} tcp - a:b *"],
)
def test_mk_26_nonsense_in_a_sealed_question(inner: str) -> None:
    core, asked = daemon(), sealed(inner)
    step = core.asked(line(asked.text), TCP, 0.0)
    # Where nothing is in it, there is no key for an answer.
    message = unsealed(step, asked.answer_key) if inner else said(step)
    assert isinstance(message, Refusal)
    assert message.code is Code.MALFORMED


def test_mk_26_unsealing_for_sources_that_are_not_proven_is_bounded() -> None:
    core, asked = daemon(), sealed().text.encode()
    replies: Counter[str] = Counter()
    for number in range(12_000):
        source = replace(UDP, address=ip_address(number + 1))
        replies[core.asked(asked, source, 0.0).trigger] += 1
    assert replies["moniker_too_many"] >= 1900
    assert isinstance(
        core.asked(line(sealed().text), replace(TCP, address=ip_address(1)), 0.0), OpenPort
    )


# -------------------------------------------------------------------------- policy


def test_mk_17_rules_decide_before_the_registry() -> None:
    rules = (
        ServiceRule(False, "secret*"),
        ServiceRule(True, "private", encrypted=True),
        ServiceRule(True, "http", clients=(ip_network("192.0.2.0/24"),)),
        ServiceRule(False, "http"),
    )
    core = daemon(
        *(service(name) for name in ("secret1", "private", "http", "starwars")),
        settings=MonikerSettings(queries=1e9, rules=rules),
    )

    def asked(name: str, source: Source = TCP) -> Step:
        return core.asked(line(f"MON/1 Q {NONCE} tcp - {name} *"), source, 0.0)

    assert code_of(asked("secret1")) is Code.DENIED
    assert asked("secret1").trigger == asked("secret2").trigger  # there, or not: nobody learns
    assert said(asked("secret1")) == said(asked("secret2"))
    assert code_of(asked("private")) is Code.CLEAR
    assert isinstance(asked("private", replace(TCP, protected=True)), OpenPort)
    private = sealed(f"MON/1 Q {NONCE} tcp - private *")
    assert isinstance(core.asked(line(private.text), TCP, 0.0), OpenPort)
    assert isinstance(asked("http"), OpenPort)
    assert code_of(asked("http", replace(TCP, address=ip_address("203.0.113.1")))) is Code.DENIED
    assert isinstance(asked("starwars"), OpenPort)
    core.reload(MonikerSettings(queries=1e9), KEY)
    assert isinstance(asked("secret1"), OpenPort)


def test_mk_16_where_clear_is_for_local_users_strangers_must_encrypt() -> None:
    core = daemon(settings=MonikerSettings(queries=1e9, clear="local"))
    assert code_of(core.asked(line(QUESTION), TCP, 0.0)) is Code.CLEAR
    assert isinstance(said(core.asked(line(QUESTION), LOCAL, 0.0)), Answer)
    assert isinstance(core.asked(line(sealed().text), TCP, 0.0), OpenPort)
    assert isinstance(core.asked(line(QUESTION), replace(TCP, protected=True), 0.0), OpenPort)
    assert core.asked(b"starwars\r\n", TCP, 0.0).trigger == "moniker_denied"


# --------------------------------------------------------------------------- limits


def test_mk_26_a_source_that_asks_too_often_is_told_so() -> None:
    core = daemon(settings=MonikerSettings(queries=2.0))
    replies = [core.asked(line(QUESTION), TCP, 0.0) for _ in range(30)]
    assert sum(isinstance(each, OpenPort) for each in replies) == 20
    assert {code_of(each) for each in replies[20:]} == {Code.BUSY}
    asked = sealed().text
    busy = said(core.asked(line(asked), TCP, 0.0))
    assert busy == Refusal(sealedquery.nonce_of(asked), Code.BUSY, "too many questions")
    assert core.asked(b"starwars\r\n", TCP, 0.0).trigger == "moniker_busy"
    assert isinstance(core.asked(line(QUESTION), TCP6, 0.0), OpenPort)
    assert isinstance(core.asked(line(QUESTION), TCP, 1.0), OpenPort)


def test_mk_26_forged_datagrams_take_nothing_from_their_source() -> None:
    core = daemon(settings=MonikerSettings(queries=2.0), leases=True)
    triggers = [core.asked(datagram(QUESTION), UDP, 0.0).trigger for _ in range(1000)]
    assert Counter(triggers) == {"moniker_unproven": 20, "moniker_too_many": 980}
    assert isinstance(core.asked(line(QUESTION), TCP, 0.0), OpenPort)
    cookie = Cookies(b"s" * 32).cookie(ALICE, 0.0)
    assert isinstance(core.asked(datagram(f"{QUESTION} {cookie}"), UDP, 0.0), OpenPort)


# ------------------------------------------------------------------- the site directory

HOST = HostSettings("carol", (ip_address("10.0.0.3"), ip_address("fd00::3")), namespaces=("carol",))


def directory(**settings: object) -> Answering:
    return daemon(
        service(),
        service("http", namespace="carol"),  # a user of the gateway's who is called like the host's
        settings=MonikerSettings(queries=1e9, hosts=(HOST,), **settings),  # type: ignore[arg-type]
        leases=True,
    )


def test_mk_14_a_namespace_of_a_host_behind_is_asked_of_that_host() -> None:
    core = directory()
    step = core.asked(line(f"MON/1 Q {NONCE} tcp carol http >=2"), TCP, 0.0)
    assert isinstance(step, AskHost)
    assert (str(step.name), step.transport) == ("carol::http@>=2", "tcp")
    assert (step.host, step.port) == (ip_address("10.0.0.3"), 1)
    answer = Answer("9" * 16, 33333, "tcp", Version.parse("2"), "46", 30)
    lease = step.lease(answer, 60)
    assert lease == Lease(ALICE, step.host, "tcp", 33333, 30, "http", "carol")
    assert said(core.forwarded(step, answer, Opening(50505, 30))) == Answer(
        NONCE, 50505, "tcp", Version.parse("2"), "4", 30
    )
    six = core.asked(line(f"MON/1 Q {NONCE} tcp carol http *"), TCP6, 0.0)
    assert isinstance(six, AskHost)
    assert six.host == ip_address("fd00::3")


def test_mk_14_what_the_host_or_the_firewall_refuses_is_refused() -> None:
    core = directory()
    step = core.asked(line(f"MON/1 Q {NONCE} tcp carol http *"), TCP, 0.0)
    assert isinstance(step, AskHost)
    refusal = Refusal("9" * 16, Code.VERSION, "not that one")
    assert said(core.forwarded(step, refusal, None)) == replace(refusal, nonce=NONCE)
    answer = Answer("9" * 16, 33333, "tcp", Version.parse("2"), "46", 30)
    assert code_of(core.forwarded(step, answer, None)) is Code.GATEWAY
    refused = LeaseRefused("busy", "too many")
    assert said(core.not_opened(step, refused)) == Refusal(NONCE, Code.BUSY, "too many")


def test_mk_14_nobody_is_asked_in_vain() -> None:
    core = directory(rules=(ServiceRule(False, hosts=(ip_network("10.0.0.0/8"),)),))
    question = f"MON/1 Q {NONCE} tcp carol http *"
    assert code_of(core.asked(line(question), TCP, 0.0)) is Code.DENIED
    core = directory()
    assert isinstance(said(core.asked(datagram(question), UDP, 0.0)), Retry)
    back = Source(ip_address("10.0.0.3"), ip_address("10.0.0.1"))
    assert code_of(core.asked(line(question), back, 0.0)) is Code.UNKNOWN  # it would go in circles
    only4 = replace(HOST, addresses=HOST.addresses[:1])
    core.reload(MonikerSettings(queries=1e9, hosts=(only4,)), KEY)
    assert code_of(core.asked(line(question), TCP6, 0.0)) is Code.UNKNOWN
    core.reload(MonikerSettings(queries=1e9), KEY)
    assert isinstance(core.asked(line(question), TCP, 0.0), OpenPort)


# -------------------------------------------------------------------------- TCPMUX


def test_mk_2_tcpmux_hands_the_connection_to_who_wants_it() -> None:
    core = daemon(service(tcpmux=True, version="1"), service(version="2"))
    for request in (b"starwars\r\n", b"StarWars\n", b"starwars@1\r\n"):
        step = core.asked(request, TCP, 0.0)
        assert isinstance(step, HandOver)
        assert step.entry.service.version == Version.parse("1")
        assert step.accepted == b"+\r\n"
        assert step.failed.startswith(b"-")


@pytest.mark.parametrize(
    ("request_line", "trigger"),
    [
        (b"jedi\r\n", "moniker_unknown"),
        (b"plain\r\n", "moniker_transport"),
        (b"starwars@2\r\n", "moniker_version"),
        (b"denied\r\n", "moniker_denied"),
        (b"HELP\r\n", "moniker_denied"),
    ],
)
def test_tcpmux_refuses_with_a_minus(request_line: bytes, trigger: str) -> None:
    core = daemon(
        service(tcpmux=True),
        service("plain"),
        settings=MonikerSettings(queries=1e9, rules=(ServiceRule(False, "denied"),)),
    )
    step = core.asked(request_line, TCP, 0.0)
    assert isinstance(step, Reply)
    assert step.trigger == trigger
    assert step.octets.startswith(b"-")
    assert step.octets.endswith(b"\r\n")


def test_tcpmux_knows_no_user_of_ours_where_a_host_has_the_namespace() -> None:
    ours = service(namespace="carol", tcpmux=True)
    for hosts, expected in (((), HandOver), ((HOST,), Reply)):
        core = daemon(ours, settings=MonikerSettings(queries=1e9, hosts=hosts))
        assert isinstance(core.asked(b"carol::starwars\r\n", TCP, 0.0), expected)


def test_mk_28_only_who_may_list_gets_a_list() -> None:
    services = (service("b"), service("a", namespace="u"), service("b", version="2"), service("x"))
    rules = (ServiceRule(False, "x"),)
    core = daemon(*services, settings=MonikerSettings(queries=1e9, rules=rules))
    assert core.asked(b"HELP\r\n", LOCAL, 0.0) == Reply(b"b\r\nu::a\r\n", "moniker_listed")
    refused = core.asked(b"help\r\n", TCP, 0.0)
    assert isinstance(refused, Reply)
    assert b"b\r\n" not in refused.octets
    core.reload(MonikerSettings(queries=1e9, rules=rules, listing="all"), KEY)
    assert core.asked(b"help\r\n", TCP, 0.0) == Reply(b"b\r\nu::a\r\n", "moniker_listed")


def test_mk_28_a_list_is_bounded() -> None:
    core = daemon(*(service(f"s{number}") for number in range(3000)))
    listed = core.asked(b"HELP\r\n", LOCAL, 0.0)
    assert isinstance(listed, Reply)
    assert listed.octets.count(b"\r\n") == 1000


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "octets",
    [
        *(b"", b"\r\n", b"MON/1\r\n", b"MON/2 Q x\r\n", b"MON/1 + x\r\n", b"\xff\xfe\r\n"),
        *(b"MON/1 E\r\n", b"MON/1 E !!!\r\n", b"x" * 5000, b"GET / HTTP/1.1\r\n", b"\0" * 100),
        f"MON/1 + {NONCE} 80 tcp 1 46 60\r\n".encode(),
        f"MON/1 ? {NONCE} aaaaaaaaaa\r\n".encode(),
    ],
)
def test_mk_26_what_is_no_question_is_refused_over_tcp_and_ignored_over_udp(octets: bytes) -> None:
    core = daemon()
    assert core.asked(octets, TCP, 0.0).trigger == "moniker_malformed"
    step = core.asked(octets, UDP, 0.0)
    assert step == Silence("moniker_malformed") or said(step).nonce != NO_NONCE  # type: ignore[union-attr]


def hostile(rounds: int, seed: int) -> Counter[str]:
    """What became of ``rounds`` questions of which something was changed."""
    rng = random.Random(seed)
    core = daemon(
        service(tcpmux=True),
        service("http", namespace="alice"),
        settings=MonikerSettings(queries=1e9, hosts=(HOST,), clear="all"),
        leases=True,
    )
    good = [
        line(QUESTION),
        datagram(QUESTION),
        datagram(f"{QUESTION} {Cookies(b's' * 32).cookie(ALICE, 0.0)}"),
        line(f"MON/1 Q {NONCE} * alice http >=1,<2"),
        line(f"MON/1 Q {NONCE} * carol http *"),
        b"starwars\r\n",
        b"HELP\r\n",
        line(sealed().text),
    ]
    triggers: Counter[str] = Counter()
    for _ in range(rounds):
        octets = bytearray(rng.choice(good))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(octets) + 1)
            octets[at : at + rng.randrange(3)] = rng.choice((rng.randbytes(1), b" ", b"-", b"::"))
        asked = bytes(octets)
        source = rng.choice((TCP, UDP, TCP6, LOCAL))
        step = core.asked(asked, source, 0.0, busy=rng.random() < 0.1)
        triggers[step.trigger] += 1
        reply: object = step
        if isinstance(step, OpenPort):
            reply = core.opened(step, Opening(1, 1))
        elif isinstance(step, AskHost):
            reply = core.not_opened(step, LeaseRefused("gateway", "silent"))
        if source.datagram and isinstance(reply, Reply):
            assert len(reply.octets) <= len(asked)
    return triggers


def test_mk_26_hostile_questions_end_in_a_step() -> None:
    triggers = hostile(2000, 26)
    assert len(triggers) >= 8, triggers
    assert min(triggers[each] for each in ("moniker_open", "moniker_malformed")) > 100


@pytest.mark.fuzz
def test_mk_26_a_hundred_thousand_hostile_questions_end_in_a_step() -> None:
    assert sum(hostile(100_000, 2600).values()) == 100_000


def test_mk_26_what_is_remembered_of_strangers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MAX_REPLAYS", 50)
    core = daemon(settings=MonikerSettings(queries=20.0))
    for number in range(5000):
        source = ip_address(number + 1)
        core.asked(datagram(QUESTION), replace(UDP, address=source), 0.0)
        if number < 200:
            core.asked(line(sealed().text), replace(TCP, address=source), 0.0)
    assert len(core._replays) == 50
    assert len(core._sources) == 4096


def test_secrets_are_silent() -> None:
    core, asked = daemon(), sealed()
    step = core.asked(line(asked.text), TCP, 0.0)
    assert isinstance(step, OpenPort)
    assert repr(asked.answer_key) not in repr(step)
    assert "answer_key" not in repr(step)


def test_a_client_s_query_is_what_is_read() -> None:
    """The library's side of the wire and ours agree."""
    query = Query(NONCE, ServiceName.parse("starwars@>=1"), "tcp")
    step = daemon().asked(line(wire.text(query)), TCP, 0.0)
    assert isinstance(step, OpenPort)
    assert step.question.name == query.name

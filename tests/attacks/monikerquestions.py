"""Attacks on Moniker by whoever sends questions, forges their source, or listens to them."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

from oegw.moniker import sealedquery
from oegw.moniker.answering import Answering
from oegw.moniker.cookies import COOKIE_OCTETS, Cookies
from oegw.moniker.daemon.limits import CONNECTIONS, Crowd
from oegw.moniker.interface import IPAddress, Opening, Owner, Service
from oegw.moniker.names import Version
from oegw.moniker.registry import NotFound, Registry
from oegw.moniker.settings import MonikerSettings, ServiceRule
from oegw.moniker.sources import MAX_SOURCES
from oegw.moniker.steps import OpenPort, Question, Reply, Silence, Source, Step
from oegw.sst.statickey import StaticKey
from tests.attacks.frame import MONIKER, attack, replaced, survived

ALICE, BOB, MALLET = map(ip_address, ("192.0.2.1", "198.51.100.7", "203.0.113.66"))
ROOT = Owner(1, 0, 0, "root")
KEY = StaticKey(bytes(range(32)))
NONCE = "0123456789abcdef"

_say = Answering._say
_refused_by_policy = Answering._refused_by_policy


def daemon(
    *names: str, leases: bool = True, settings: MonikerSettings | None = None
) -> tuple[Answering, Registry]:
    """A daemon's core with these services."""
    registry = Registry()
    for number, name in enumerate(names or ("starwars",)):
        service = Service(name, Version.parse("1"), "tcp", 40000 + number, "46", tcpmux=True)
        registry.register(service, ROOT, 0.0)
    rng = random.Random(7)
    core = Answering(
        settings or MonikerSettings(), registry, Cookies(b"s" * 32), key=KEY,
        random=rng.randbytes, choose=rng.randrange, leases=leases,
    )  # fmt: skip
    return core, registry


def question(service: str, *cookie: str, nonce: str = NONCE) -> bytes:
    return " ".join(["MON/1 Q", nonce, "*", "-", service, "*", *cookie]).encode()


def by_udp(source: IPAddress) -> Source:
    return Source(source, BOB, datagram=True)


def by_tcp(source: IPAddress) -> Source:
    return Source(source, BOB)


def opens(step: Step, client: IPAddress) -> bool:
    """Whether a port is opened for somebody."""
    return isinstance(step, OpenPort) and step.lease.client == client


@attack(
    MONIKER,
    "Short questions are sent in the name of a victim, who gets what is longer",
    source="rpcbind, CVE-2017-8779 and the floods reflected by it, 7 to 28 times as large",
    defence="oegw/moniker/answering.py Answering._say",
    otherwise="the daemon is a weapon against whoever the attacker likes",
    without=replaced(
        (
            "oegw.moniker.answering.Answering._say",
            lambda self, asked, message, trigger: _say(
                self, replace(asked, room=9999), message, ""
            ),
        )
    ),
)
def reflected_answers() -> None:
    core, _ = daemon(leases=False)
    for number, name in enumerate(("starwars", "x", "q" * 255, "s", "")):
        whole = question(name)
        for octets in (whole, whole + b" " * number, whole[: 30 + number]):
            step = core.asked(octets, by_udp(ALICE), float(number))
            if isinstance(step, Reply):
                assert len(step.octets) <= len(octets), f"{len(step.octets)} for {len(octets)}"


@attack(
    MONIKER,
    "A datagram with a forged source asks for a port, which the firewall then opens for the victim",
    source="MK-33; that UDP proves no source",
    defence="oegw/moniker/cookies.py Cookies.holds",
    otherwise="strangers open holes for others, and fill the firewall with them",
    without=replaced(
        ("oegw.moniker.cookies.Cookies.holds", lambda self, cookie, source, now: True)
    ),
)
def ports_for_forged_sources() -> None:
    core, _ = daemon()
    for guess in ((), ("0" * 2 * COOKIE_OCTETS,), ("f" * 2 * COOKIE_OCTETS,)):
        step = core.asked(question("starwars", *guess) + b" " * 90, by_udp(ALICE), 1.0)
        assert not opens(step, ALICE), "a port is open for one who never asked"


@attack(
    MONIKER,
    "The cookie that the attacker was given himself, with a forged source",
    source="design: stateless cookies",
    defence="oegw/moniker/cookies.py Cookies._of_step",
    otherwise="one honest question is enough to ask in the name of everybody",
    without=replaced(
        (
            "oegw.moniker.cookies.Cookies._of_step",
            lambda self, source, step: (step.to_bytes(16, "big", signed=True) + b"s").hex()[:32],
        )
    ),
)
def cookies_of_others() -> None:
    core, _ = daemon()
    step = core.asked(question("starwars") + b" " * 90, by_udp(MALLET), 1.0)
    assert isinstance(step, Reply)
    cookie = step.octets.split()[3].decode()
    mine = core.asked(question("starwars", cookie) + b" " * 90, by_udp(MALLET), 1.0)
    assert opens(mine, MALLET), "the cookie is good for nobody"
    step = core.asked(question("starwars", cookie) + b" " * 90, by_udp(ALICE), 1.0)
    assert not opens(step, ALICE), "a cookie of Mallet's proves that it is Alice"
    late = core.asked(question("starwars", cookie) + b" " * 90, by_udp(MALLET), 100.0)
    assert not opens(late, MALLET), "a cookie is good for ever"


@attack(
    MONIKER,
    "Thousands of questions in the name of a client, so that it is told that it asks too often",
    source="response rate limiting of name servers, turned against the victim",
    defence="oegw/moniker/sources.py _key",
    otherwise="whoever can forge a source shuts its owner out",
    without=replaced(("oegw.moniker.sources._key", lambda source, proven: (4, int(source), True))),
)
def allowance_of_another() -> None:
    core, _ = daemon()
    cookie = Cookies(b"s" * 32).cookie(ALICE, 0.0)
    for number in range(3000):
        core.asked(question("starwars") + b" " * 90, by_udp(ALICE), number / 3000)
    assert opens(core.asked(question("starwars"), by_tcp(ALICE), 1.0), ALICE)
    assert opens(core.asked(question("starwars", cookie) + b" " * 90, by_udp(ALICE), 1.0), ALICE)


@attack(
    MONIKER,
    "A question from each of 20,000 forged sources",
    source="design: every table bounded",
    defence="oegw/moniker/sources.py MAX_SOURCES",
    otherwise="memory grows with every address that somebody makes up",
    without=replaced(("oegw.moniker.sources.MAX_SOURCES", 10**9)),
)
def sources_without_end() -> None:
    core, _ = daemon()
    with survived():
        for number in range(20_000):
            source = IPv4Address(0x0A000000 + number)
            core.asked(question("starwars") + b" " * 90, by_udp(source), number / 20_000)
    assert len(core._sources) <= MAX_SOURCES < 5000
    assert opens(core.asked(question("starwars"), by_tcp(ALICE), 1.0), ALICE)


@attack(
    MONIKER,
    "A sealed question is recorded and sent again, from the attacker's address",
    source="MK-16: HPKE does not keep off replays (RFC 9180 section 9.7.3)",
    defence=("oegw/moniker/sealedquery.py nonce_of", "oegw/moniker/answering.py MAX_REPLAYS"),
    otherwise="who can't read the question has its port opened for himself",
    without=replaced(
        ("oegw.moniker.sealedquery.nonce_of", lambda line: f"{random.getrandbits(128):032x}")
    ),
)
def replayed_sealed_questions() -> None:
    core, _ = daemon()
    recorded = sealedquery.seal(
        question("starwars").decode(), KEY.public, random.Random(1).randbytes
    )
    line = recorded.text.encode()
    assert opens(core.asked(line, by_tcp(ALICE), 1.0), ALICE)
    for octets in (line, line + b"  ", line + b"\r\n", line.rstrip(b"A") + b"\n"):
        step = core.asked(octets, by_tcp(MALLET), 1.0)
        assert not opens(step, MALLET), "a recorded question opens the port for who sends it again"


@attack(
    MONIKER,
    "An observer measures sealed questions and answers: how long is the name, and was it a yes?",
    source="MK-16; lengths in encrypted DNS (RFC 8467)",
    defence=(
        "oegw/moniker/sealedquery.py QUESTION_STEP",
        "oegw/moniker/sealedquery.py ANSWER_OCTETS",
    ),
    otherwise="the length tells which of the known services it is",
    without=replaced(
        ("oegw.moniker.sealedquery.QUESTION_STEP", 1), ("oegw.moniker.sealedquery.ANSWER_OCTETS", 0)
    ),
)
def lengths_of_sealed_messages() -> None:
    core, _ = daemon(leases=False)
    asked, answered = set(), set()
    chance = random.Random(2).randbytes
    for name in ("x", "starwars", "a-service-with-quite-a-long-name", "starwars@2"):
        service, _, versions = name.partition("@")
        line = f"MON/1 Q {NONCE} * - {service} {versions or '*'}"
        sealed = sealedquery.seal(line, KEY.public, chance)
        asked.add(len(sealed.text))
        step = core.asked(sealed.text.encode(), by_tcp(ALICE), 1.0)
        if isinstance(step, OpenPort):
            step = core.opened(step, Opening(step.lease.port, 60))
        assert isinstance(step, Reply)
        answered.add(len(step.octets))
    assert len(asked) == 1, f"names are told apart by the length of a question: {asked}"
    assert len(answered) == 1, f"answers are told apart by their length: {answered}"


def _open_list(self: Answering, question: Question) -> Reply:
    names = [entry.service.service for entry in self._registry.entries()]
    return Reply("\r\n".join(names).encode(), "moniker_listed")


@attack(
    MONIKER,
    "A stranger asks for the list of all services, as TCPMUX's HELP gives it",
    source="RFC 1078; rpcinfo -p",
    defence="oegw/moniker/answering.py Answering._help",
    otherwise="ports at random hide nothing from who need not guess names",
    without=replaced(("oegw.moniker.answering.Answering._help", _open_list)),
)
def list_for_strangers() -> None:
    core, _ = daemon("starwars", "reynolds-http")
    for octets in (b"HELP", b"help\r\n", b"Help \n", b"MON/1 L", b"*", b"MON/1 Q *"):
        step = core.asked(octets, by_tcp(MALLET), 1.0)
        if isinstance(step, Reply):
            assert b"starwars" not in step.octets
            assert b"reynolds" not in step.octets


def _if_it_is_there(self: Answering, question: Question) -> Reply | Silence | None:
    try:
        self._registry.find(question.name, question.transport, self._choose)
    except NotFound:
        return None
    return _refused_by_policy(self, question)


@attack(
    MONIKER,
    "Who is denied a service tries names, to learn from the refusal which there are",
    source="design: decided by the name alone",
    defence="oegw/moniker/answering.py Answering._refused_by_policy",
    otherwise="a policy that denies tells what there is to be denied",
    without=replaced(("oegw.moniker.answering.Answering._refused_by_policy", _if_it_is_there)),
)
def refusals_that_tell() -> None:
    rules = (ServiceRule(False, "*", "*"),)
    core, _ = daemon("secret", settings=MonikerSettings(rules=rules))
    there = core.asked(question("secret"), by_tcp(MALLET), 1.0)
    nowhere = core.asked(question("sesame"), by_tcp(MALLET), 1.0)
    assert there == nowhere


@attack(
    MONIKER,
    "Datagrams with sealed nonsense: each costs the daemon an X25519, and the attacker nothing",
    source="design; a question in clear costs a tenth of it",
    defence="oegw/moniker/answering.py UNSEALED_PER_SECOND",
    otherwise="a small stream of forged datagrams takes a whole CPU",
    without=replaced(("oegw.moniker.answering.UNSEALED_PER_SECOND", 1e9)),
)
def floods_of_sealed_nonsense() -> None:
    core, _ = daemon()
    tried = 0
    line = b"MON/1 E " + b"A" * 300  # to another key, so that the test itself costs little
    for number in range(16_000):
        step = core.asked(line, by_udp(IPv4Address(0x0A000000 + number)), number / 16_000)
        tried += step != Silence("moniker_too_many")
    assert tried <= 11_000, f"{tried} of 16000 in one second"
    assert opens(core.asked(question("starwars"), by_tcp(ALICE), 1.0), ALICE)


def _first_come(self: Crowd, source: IPAddress, leave: Any) -> int | None:
    if len(self._open) >= self._in_all:
        return None
    self._last += 1
    self._open[self._last] = (4, int(source)), leave
    return self._last


@attack(
    MONIKER,
    "Connections from many addresses that never finish their line, until no more are taken",
    source="slowloris",
    defence="oegw/moniker/daemon/limits.py Crowd.enter",
    otherwise="nobody else is served, at no cost to the attacker",
    without=replaced(("oegw.moniker.daemon.limits.Crowd.enter", _first_come)),
)
def crowd_of_slow_clients() -> None:
    crowd, gone = Crowd(), []
    for number in range(2 * CONNECTIONS):
        source = IPv4Address(0x0A000000 + number % 40)
        crowd.enter(source, lambda number=number: gone.append(number))  # type: ignore[misc]
        assert len(crowd) <= CONNECTIONS
    honest = crowd.enter(ALICE, lambda: gone.append(-1))
    assert honest is not None, "the crowd keeps others out"
    for number in range(CONNECTIONS):
        source = IPv4Address(0x0A000000 + number % 40)
        crowd.enter(source, lambda: None)
    assert -1 not in gone, "the crowd pushes others out"


@attack(
    MONIKER,
    "The service ends, and somebody else's takes the port, while the question is under way",
    source="stale ports after a restart",
    defence="oegw/moniker/registry.py Registry.process_ended",
    otherwise="clients are sent to whatever has the port now",
    without=replaced(("oegw.moniker.registry.Registry.process_ended", lambda self, pid: [])),
)
def ports_of_the_dead() -> None:
    core, registry = daemon()
    step = core.asked(question("starwars"), by_tcp(ALICE), 1.0)
    assert isinstance(step, OpenPort)
    assert core.opened(step, Opening(40000, 60)) is not None
    registry.process_ended(ROOT.pid)
    step = core.asked(question("starwars"), by_tcp(ALICE), 1.0)
    assert isinstance(step, Reply)
    assert b" unknown" in step.octets, "the port of a process that is gone"

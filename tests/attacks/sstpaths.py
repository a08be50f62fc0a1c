"""Attacks on the probes of the path: who makes us believe that it works, or that it does not?"""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from oegw.sst import paths as paths_module
from oegw.sst.interface import Algorithm, IPAddress, PathState
from oegw.sst.orders import SendProbe
from oegw.sst.paths import Path, Paths
from oegw.sst.probe import Kind, Probe, ProbeError, payload_of
from oegw.sst.relations import PeerKey
from oegw.sst.signal import Signal
from oegw.sst.statickey import StaticKey
from tests.attacks.frame import SST, attack, replaced, survived

A, B = map(ip_address, ("192.0.2.1", "198.51.100.7"))
KEYS = {A: StaticKey(bytes([1] * 32)), B: StaticKey(bytes([2] * 32))}
SIGNAL = Signal()
NOON = 20_000 * 86400 + 43200.0
INTERVAL = 60.0


@dataclass
class End:
    """One gateway's paths; what it sends is picked up by `Link`."""

    address: IPAddress
    peer: IPAddress
    sent: list[bytes] = field(default_factory=list)
    wall: float = NOON

    def __post_init__(self) -> None:
        chance = random.Random(str(self.address))
        self.paths = Paths(
            [KEYS[self.address]], [self.address], [Algorithm.FF1_AES_128], SIGNAL,
            chance.randbytes, self._send, patience=3.0, interval=INTERVAL, lifespan=600.0,
            daily=True,
        )  # fmt: skip
        self.drops: list[str] = []

    def _send(self, order: SendProbe) -> None:
        self.sent.append(order.packet)

    @property
    def path(self) -> Path:
        key = PeerKey(self.peer, Algorithm.FF1_AES_128, KEYS[self.peer].public)
        return self.paths.of(key, 0.0)

    def receive(self, packet: bytes, now: float) -> None:
        flagged = SIGNAL.flagged(packet)
        with survived():
            try:
                payload, ports = payload_of(packet)
                probe = Probe.parse(payload)
                source, destination = map(ip_address, (packet[12:16], packet[16:20]))
                if probe.kind is Kind.ANSWER:
                    self.paths.receive_answer(
                        probe, payload, source, destination, flagged=flagged, now=now
                    )
                else:
                    self.paths.receive_question(
                        self.path, probe, payload, source, destination, ports, flagged=flagged,
                        now=now, wall=self.wall + now,
                    )  # fmt: skip
            except ProbeError as error:
                self.drops.append(error.trigger)


Middle = Callable[[bytes], list[bytes]]


@dataclass
class Link:
    """Both ends.  ``middle`` says what arrives of each packet; ``seen`` is all that was sent."""

    middle: Middle = field(default=lambda packet: [packet])
    seen: list[bytes] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.a, self.b = End(A, B), End(B, A)

    def carry(self) -> None:
        while self.a.sent or self.b.sent:
            for end, other in ((self.a, self.b), (self.b, self.a)):
                waiting, end.sent[:] = list(end.sent), []
                for packet in waiting:
                    self.seen.append(packet)
                    for arriving in self.middle(packet):
                        other.receive(arriving, self.now)

    def use(self, end: End | None = None) -> PathState:
        """A flow wants the path: what is known of it when the round is over?"""
        end = end or self.a
        end.paths.use(end.path, self.now, end.wall + self.now)
        self.carry()
        until = self.now + 5.0
        while end.path.round is not None and self.now < until:
            self.now += 0.1
            end.paths.handle_timer(self.now, end.wall + self.now)
            self.carry()
        return end.path.state

    def later(self) -> PathState:
        self.now += INTERVAL + 1
        return self.use()


def _stripped(packet: bytes) -> bytes:
    return SIGNAL.cleared(packet)


def _read(packet: bytes) -> Probe:
    return Probe.parse(payload_of(packet)[0])


@attack(
    SST,
    "Forged answers to our questions, on a path that drops what is flagged",
    source="design, flag stripped in transit",
    defence="oegw/sst/probe.py verify",
    otherwise="a path that drops everything sealed is said to work: whoever forges one answer cuts "
    "two hosts off from each other",
    without=replaced(("oegw.sst.paths.verify", lambda *anything: None)),
)
def forged_answers() -> None:
    link = Link()

    def middle(packet: bytes) -> list[bytes]:
        if not SIGNAL.flagged(packet) or _read(packet).kind is not Kind.QUESTION:
            return [packet]
        answer = _read(packet).answered(arrived_flagged=True)
        forged = answer.serialize(bytes(32), B, A)
        ports = payload_of(packet)[1]
        back = paths_module.packet_with(forged, B, A, ports[::-1], SIGNAL, flagged=True)
        link.a.receive(back, link.now)
        return []

    link.middle = middle
    assert link.use() is PathState.DROPPED
    assert "probe_forged" in link.a.drops


_ask = Paths._ask


def _same_nonce(self: Paths, *rest: Any, **named: Any) -> None:
    chance, self._random = self._random, bytes
    try:
        _ask(self, *rest, **named)
    finally:
        self._random = chance


@attack(
    SST,
    "Answers that were recorded while the path worked, played again when it strips the flag",
    source="design, replay",
    defence="oegw/sst/paths.py Paths._ask",
    otherwise="the path is said to work for ever, and sealed packets come to ports of chance",
    without=replaced(("oegw.sst.paths.Paths._ask", _same_nonce)),
)
def recorded_answers() -> None:
    link = Link()
    assert link.use() is PathState.WORKS
    recorded = [packet for packet in link.seen if _read(packet).kind is Kind.ANSWER]

    def middle(packet: bytes) -> list[bytes]:
        if _read(packet).kind is Kind.QUESTION and SIGNAL.flagged(packet):
            for old in recorded:
                link.a.receive(old, link.now)
        return [_stripped(packet)]

    link.middle = middle
    assert link.later() is PathState.STRIPPED


_question = Paths.receive_question


def _old_or_not(self: Paths, path: Path, *rest: Any, **named: Any) -> bool:
    path.announced_sent = -1
    return _question(self, path, *rest, **named)


@attack(
    SST,
    "Yesterday's announcement of a key, played again after midnight",
    source="design, section 7",
    defence="oegw/sst/paths.py Paths.receive_question",
    otherwise="we open new flows with yesterday's key, each to a port of chance",
    without=replaced(("oegw.sst.paths.Paths.receive_question", _old_or_not)),
)
def announcement_again() -> None:
    link = Link()
    link.use()
    old = [packet for packet in link.seen if _read(packet).kind is Kind.QUESTION]
    link.a.wall += 86400
    link.b.wall += 86400
    assert link.later() is PathState.WORKS
    announced = link.b.path.announced
    assert announced is not None
    for packet in old * 3:
        link.b.receive(packet, link.now)
    assert link.b.path.announced == announced, "an old announcement came back"


@attack(
    SST,
    "A recorded question a week later: the gateway that answered it has been started again",
    source="design, section 7",
    defence="oegw/sst/paths.py Paths.receive_question",
    otherwise="we take last week's key for what the peer seals with now",
    without=replaced(("oegw.sst.paths.day_of", lambda wall: _read_day())),
)
def announcement_of_last_week() -> None:
    link = Link()
    link.use()
    old = [packet for packet in link.seen if _read(packet).kind is Kind.QUESTION]
    again = End(B, A)
    again.wall = NOON + 7 * 86400
    for packet in old:
        again.receive(packet, link.now)
    assert again.path.announced is None
    assert set(again.drops) == {"probe_day"}
    assert again.sent == []


def _read_day() -> int:
    return int(NOON // 86400)


@attack(
    SST,
    "Our own questions come back to us as the peer's",
    source="reflection",
    defence=("oegw/sst/probe.py Probe.serialize", "oegw/sst/paths.py Paths.receive_question"),
    otherwise="we take our own words for the peer's (the MAC has the addresses "
    "in it, and the terms name both keys; both taken out)",
    without=lambda monkeypatch: _careless_of_reflections(monkeypatch),
)
def reflected_questions() -> None:
    link = Link()

    def middle(packet: bytes) -> list[bytes]:
        turned = bytearray(packet)
        turned[12:20] = packet[16:20] + packet[12:16]
        link.a.receive(bytes(turned), link.now)
        return []

    link.middle = middle
    assert link.use() is PathState.SILENT
    assert link.a.path.announced is None
    assert not [packet for packet in link.seen if _read(packet).kind is Kind.ANSWER]


def _careless_of_reflections(monkeypatch: Any) -> None:
    monkeypatch.setattr("oegw.sst.probe._mac", _without_addresses)

    def turned(self: Paths, path: Path, probe: Probe, *rest: Any, **named: Any) -> bool:
        path.announced = probe.terms
        return True

    monkeypatch.setattr("oegw.sst.paths.Paths.receive_question", turned)


def _without_addresses(key: bytes, fields: bytes, source: IPAddress, destination: IPAddress) -> Any:
    return hmac.new(key, fields, sha256).digest()


_answer = Paths.receive_answer


def _first_answer_decides(self: Paths, *rest: Any, now: float, **named: Any) -> Any:
    decided = _answer(self, *rest, now=now, **named)
    for path in self:
        if path.round is not None and path.round.stripped:
            return self._decide(path, PathState.STRIPPED, now)
    return decided


def _one_allowance(self: Paths, path: Path, *rest: Any, **named: Any) -> bool:
    path.repeats = path.answers
    return _question(self, path, *rest, **named)


@attack(
    SST,
    "A bystander, who can't stop packets, sends a copy of each without its flag ahead of it",
    source="the order in which answers come is the attacker's",
    defence="oegw/sst/paths.py Paths.receive_answer",
    otherwise="the path is said to strip the flag, and opportunistic traffic goes in clear",
    without=replaced(("oegw.sst.paths.Paths.receive_answer", _first_answer_decides)),
)
def unflagged_copies() -> None:
    link = Link(middle=lambda packet: [_stripped(packet), packet])
    assert link.use() is PathState.WORKS
    for _ in range(3):
        assert link.later() is PathState.WORKS


@attack(
    SST,
    "Ten thousand copies of one recorded question, while the peer asks us",
    source="design: probes of the path",
    defence="oegw/sst/paths.py Paths.receive_question",
    otherwise="the allowance for answers is used up by copies, the peer gets none, and falls back "
    "to clear",
    without=replaced(("oegw.sst.paths.Paths.receive_question", _one_allowance)),
)
def copies_of_a_question() -> None:
    link = Link()
    link.use()
    old = next(packet for packet in link.seen if _read(packet).kind is Kind.QUESTION)

    def flooded(packet: bytes) -> list[bytes]:
        if _read(packet).kind is Kind.QUESTION:
            for _ in range(500):
                link.b.receive(old, link.now)
            link.b.sent = [each for each in link.b.sent if _read(each).nonce != _read(old).nonce]
        return [packet]

    link.middle = flooded
    for _ in range(20):
        assert link.later() is PathState.WORKS, "no answer was left for the peer"
    # And the copies are not answered without end.
    link.b.drops.clear()
    for _ in range(1000):
        link.b.receive(old, link.now)
    assert link.b.drops.count("probe_rate") > 900

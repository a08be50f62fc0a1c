"""Attacks on the core of port encryption: floods, downgrades, other people's keys."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from oegw.sst.books import Books
from oegw.sst.holding import Holding
from oegw.sst.interface import PathState
from oegw.sst.opener import Opener
from oegw.sst.sealer import Demand, Sealer
from oegw.sst.settings import Strangers
from tests.attacks.frame import SST, attack, replaced, survived
from tests.support.sst_kernel import KernelModel, with_flag
from tests.support.sst_wire import ACK, SYN, TCP, UDP, build, icmp_error, look, quote_of
from tests.support.sst_world import OFF, REQUIRED, Gate, World, straight

ALICE, BOB, CAROL = "192.0.2.1", "198.51.100.7", "203.0.113.9"
ALWAYS = replaced(("oegw.sst.allowance.Allowance.take", lambda self, now: True))


def _pair(**settings: Any) -> tuple[World, Gate, Gate]:
    world = World()
    return world, world.gate("a", ALICE, **settings), world.gate("b", BOB, **settings)


@attack(
    SST,
    "10,000 flagged packets in a second, each with another forged source",
    source="design, strangers; oe-flood-deadlock-01",
    defence="oegw/sst/books.py Books.ask",
    otherwise="each forged source is a question to the DNS",
    without=ALWAYS,
)
def questions_about_forged_sources() -> None:
    world, a, _ = _pair(strangers=Strangers.DROP)
    with survived():
        for number in range(10_000):
            source = str(ip_address(0x0A000000 + number))
            world.inject(build(source, ALICE, UDP, 1234, 5678, flagged=True), number / 10_000)
        world.run(1.0)
    assert len(a.questions) <= 200, f"{len(a.questions)} questions"
    assert len(a.kernel.waiting) <= 256
    world.run(10.0)
    assert a.got == []
    assert a.kernel.waiting == {}


@attack(
    SST,
    "Packets that wait for keys which the DNS never gives",
    source="SST-36",
    defence="oegw/sst/holding.py Holding.hold",
    otherwise="they wait in memory, all of them",
    without=replaced(
        ("oegw.sst.holding.HELD_PER_HOST", 1 << 30),
        ("oegw.sst.books.Holding", lambda limit: Holding(1 << 30)),
    ),
)
def packets_held() -> None:
    world, a, _ = _pair(hold_packets=64, wish=REQUIRED)
    for number in range(2000):
        there = str(ip_address("198.51.100.8") + number % 200)
        world.send(a, build(ALICE, there, UDP, 1000 + number, 53))
        assert len(a.kernel.waiting) <= 64, "more waits than was allowed"


@attack(
    SST,
    "A scan of random sealed ports in a peer's name, each twice, and the answers to them",
    source="design, section 12 (a scan must not fill the map)",
    defence="oegw/sst/opener.py Opener._may_enter",
    otherwise="the fast path is full of flows that there are not, and true ones go slowly",
    without=ALWAYS,
)
def scan_of_sealed_ports() -> None:
    world, a, _ = _pair(flows=256)
    for number in range(400):
        forged = build(BOB, ALICE, TCP, 1000 + number, 2000, flags=SYN, flagged=True)
        for _ in range(2):
            world.inject(forged)
            world.run(0.05)
        if a.got:
            came = a.got[-1].ports
            assert came is not None
            world.send(a, build(ALICE, BOB, TCP, *came[::-1], flags=0x04 | ACK))
    assert len(a.got) > 300
    assert len(a.kernel._seal) <= 128, f"{len(a.kernel._seal)} of 256 places are a scanner's"


def _shrugs(self: Sealer, caught: Any, flow: Any, remote: Any, demand: Demand, *rest: Any) -> None:
    refused, now = rest
    self._books.decline(caught, flow, remote, refused, now)
    self._books.plane.waiting.pop(caught.number, None)


def _without_strength(monkeypatch: Any) -> None:
    monkeypatch.setattr("oegw.sst.sealer.Sealer._refuse", _shrugs)
    monkeypatch.setattr(
        "tests.support.sst_kernel.KernelModel._required", lambda self, wish, *, asked: False
    )


@attack(
    SST,
    "A router clears the flag, drops what has it, or all probes: what is required must not leave",
    source="design, flag stripped in transit; SST-29",
    defence="oegw/sst/sealer.py Sealer._refuse",
    otherwise="whoever is on the path decides that ports are shown (the kernel looks, too; taken "
    "out with it)",
    without=_without_strength,
)
def downgrade_of_what_is_required() -> None:
    for number, (middle, state) in enumerate(
        (
            (lambda p: [(0.01, with_flag(p, flagged=False))], PathState.STRIPPED),
            (lambda p: [] if look(p).flagged else straight(p), PathState.DROPPED),
            (lambda p: [], PathState.SILENT),
        )
    ):
        world, a, _ = _pair(wish=REQUIRED)
        world.middle = middle
        world.send(a, build(ALICE, BOB, TCP, 40000 + number, 22, flags=SYN))
        world.run(6.0)
        sent = [p for _, p in world.wire if look(p).protocol == TCP]
        assert sent == [], "it left in clear"
        [path] = a.sealing.report(world.now).paths
        assert path.state is state
        assert any(event == "path_downgraded" for _, event, _ in a.trace.lines)


def _by_address(self: Sealer, caught: Any, now: float, wall: float) -> None:
    _quote(self, replace(caught, sticky=True), now, wall)


_quote = Sealer.quote


@attack(
    SST,
    "Clear packets with a peer's address to closed ports of choice: is the port in our ICMP error "
    "sealed?",
    source="design, section 14.6",
    defence="oegw/sst/sealer.py Sealer.quote",
    otherwise="the error says what the chosen ports are sealed as: a codebook for everybody",
    without=lambda monkeypatch: _quotes_by_address(monkeypatch),
)
def codebook_by_errors() -> None:
    world, a, b = _pair()
    world.send(a, build(ALICE, BOB, TCP, 40000, 22, flags=SYN))
    world.run(4.0)
    forged = build(ALICE, BOB, UDP, 40000, 993, b"chosen")
    world.inject(forged)
    world.run(1.0)
    world.send(b, icmp_error(forged, BOB))
    world.run(4.0)
    out = next(p for name, p in reversed(world.wire) if name == "b" and look(p).protocol == 1)
    assert look(quote_of(out), quoted=True).ports == (40000, 993), "a chosen pair, sealed"


def _quotes_by_address(monkeypatch: Any) -> None:
    monkeypatch.setattr("oegw.sst.sealer.Sealer.quote", _by_address)
    monkeypatch.setattr(
        "tests.support.sst_kernel.KernelModel._find",
        lambda self, place: _sticky(_find(self, place)),
    )


def _sticky(connection: Any) -> Any:
    if connection is not None:
        connection.sticky = True
    return connection


_find = KernelModel._find


def _opens_anything(monkeypatch: Any) -> None:
    monkeypatch.setattr("oegw.sst.books.Books.tracks", lambda self, flow: True)


@attack(
    SST,
    "ICMP errors that quote sealed ports of chance, for a host that never sent such a packet",
    source="SST-19; found here",
    defence="oegw/sst/opener.py Opener.quote",
    otherwise="a host inside gets errors about flows that there are not",
    without=_opens_anything,
)
def errors_about_nothing() -> None:
    world, a, _ = _pair()
    world.send(a, build(ALICE, BOB, TCP, 40000, 22, flags=SYN))
    world.run(4.0)
    for number in range(50):
        quoted = build(ALICE, BOB, TCP, 1000 + number, 2000, flagged=True)
        world.inject(icmp_error(quoted, CAROL))
    world.run(4.0)
    assert [seen for seen in a.got if seen.protocol == 1] == []


def _first_comer(self: Any, leg: Any, local: Any, remote: Any, now: float, wall: float) -> Any:
    for relation in self._books.relations:
        if relation.known_keys:
            return self._books.keyring.opening(relation, now, wall)
    return _choices(self, leg, local, remote, now, wall)


_choices = Opener._choices


@attack(
    SST,
    "A peer with a key of its own seals packets in another peer's name, to a port of choice",
    source="design, key confusion",
    defence="oegw/sst/opener.py Opener._choices",
    otherwise="one key opens what comes from anybody: its owner reaches any port as somebody else",
    without=replaced(("oegw.sst.opener.Opener._choices", _first_comer)),
)
def key_of_another_peer() -> None:
    world, a, _ = _pair(wish=OFF)
    carol = world.gate("c", CAROL)
    world.send(carol, build(CAROL, ALICE, TCP, 1000, 80, flags=SYN))
    world.run(4.0)
    assert a.got[-1].ports == (1000, 80)
    # Carol computes with the key that she shares with Alice what Bob's packet would be.
    [choice, *_] = carol.sealing._books.keyring.opening(
        next(iter(carol.sealing._books.relations)), world.now, world.wall
    )
    hits = 0
    for port in range(2000, 2050):
        pair = choice.permutation.seal_ports(
            ip_address(BOB).packed, ip_address(ALICE).packed, TCP, port, 22
        )
        world.inject(build(BOB, ALICE, TCP, *pair, flags=SYN, flagged=True))
        world.run(0.2)
        hits += any(seen.ports == (port, 22) for seen in a.got)
    world.run(4.0)
    assert hits == 0, f"{hits} of 50 packets in Bob's name came where Carol wanted them"


def _every_line(self: Books, event: str, *, by_stranger: bool, **fields: Any) -> None:
    self.trace.event("sst", event, **fields)


@attack(
    SST,
    "1,500 flagged packets in a peer's name in a second, and the resets that answer them",
    source="SST-16 (logged with a rate limit)",
    defence="oegw/sst/books.py Books.note",
    otherwise="the disk is filled by whoever forges an address",
    without=replaced(("oegw.sst.books.Books.note", _every_line)),
)
def lines_of_the_trace() -> None:
    world, a, _ = _pair()
    world.send(a, build(ALICE, BOB, TCP, 40000, 22, flags=SYN))
    world.run(4.0)
    before = len(a.trace.lines)
    for number in range(1500):
        world.inject(build(BOB, ALICE, TCP, 1000 + number, 2000, flags=SYN, flagged=True))
        world.run(0.0002)
        if a.got and number % 2:
            came = a.got[-1].ports
            assert came is not None
            world.send(a, build(ALICE, BOB, TCP, *came[::-1], flags=0x04 | ACK))
    assert len(a.got) > 700
    assert len(a.trace.lines) - before < 700, f"{len(a.trace.lines) - before} lines"
    # What was left out is told with the next line that is written.
    world.run(2.0)
    world.inject(build(BOB, ALICE, TCP, 999, 2000, flags=SYN, flagged=True))
    world.run(1.0)
    assert sum(fields.get("left_out", 0) for _, _, fields in a.trace.lines) > 500

"""Attacks on UDP associations: used by others, used as a way in, used to wear out the server."""

from __future__ import annotations

import random
from ipaddress import ip_address

from oegw.socks5.addressids import AddressIds
from oegw.socks5.association import (
    Association,
    Dropped,
    Open,
    Place,
    SendOut,
    SendToClient,
    Step,
)
from oegw.socks5.settings import AddressIdSettings, UdpSettings
from oegw.socks5.terms import Scope
from oegw.socks5.wire import Address, AddressId, Datagram, IPAddress
from tests.attacks.frame import SOCKS, attack, replaced, survived

ALICE, BOB, MALLET = map(ip_address, ("192.0.2.1", "198.51.100.7", "203.0.113.66"))
PORT = 5000
SETTINGS = UdpSettings()

_opened = Association.opened


def association() -> Association:
    ids = AddressIds(AddressIdSettings(), random.Random(7).randbytes)
    return Association(ALICE, Scope(ALICE), SETTINGS, ids)


def thrown(
    at: Association, octets: bytes, source: IPAddress = ALICE, port: int = PORT, now: float = 0.0
) -> tuple[Step, ...]:
    """A datagram to the relay socket; a destination that is asked for is found at once."""
    with survived():
        steps = at.from_client(octets, source, port, now)
        for step in steps:
            if isinstance(step, Open):
                assert not isinstance(step.destination, str)
                place = step.place
                steps += at.opened(place, step.destination, place.port, 60.0, now)
    return steps


def to(address: Address, payload: bytes = b"hello", port: int = 53) -> bytes:
    return Datagram(address, port, payload).octets()


@attack(
    SOCKS,
    "Anybody who can reach the relay port sends datagrams through it",
    source="wireproxy #224, vproxy #193; SK-6",
    defence="oegw/socks5/association.py Association._is_stranger",
    otherwise="an open relay: attacks on others come from this gateway, encrypted as its own",
    without=replaced(
        ("oegw.socks5.association.Association._is_stranger", lambda self, source, port: None)
    ),
)
def relay_for_everybody() -> None:
    at = association()
    thrown(at, to(BOB))
    for source, port in ((MALLET, PORT), (MALLET, 9), (BOB, 53), (ALICE, PORT + 1)):
        steps = thrown(at, to(BOB, b"attack"), source, port)
        assert not any(isinstance(step, SendOut) for step in steps), f"{source} is served"


@attack(
    SOCKS,
    "A datagram that is nonsense, with the client's forged address, comes before its own",
    source="SK-6: the port is known by the first datagram",
    defence="oegw/socks5/association.py Association.from_client",
    otherwise="one octet, sent by anybody, shuts the client out of its own association",
    without=replaced(
        (
            "oegw.socks5.association.parse_datagram",
            lambda octets: Datagram(MALLET, 1, b""),
        )
    ),
)
def ports_declared_by_rubbish() -> None:
    at = association()
    for octets in (b"", b"\0", bytes(3) + b"\x02", to(AddressId(1)), to(BOB, port=0)):
        thrown(at, octets, ALICE, 666)
    assert any(isinstance(step, SendOut) for step in thrown(at, to(BOB))), "Alice is shut out"


@attack(
    SOCKS,
    "Strangers send to the outside port of an association",
    source="SK-8; RFC 4787 section 5",
    defence="oegw/socks5/association.py Association._answers",
    otherwise="whoever scans the gateway's ports reaches hosts behind it",
    without=replaced(
        (
            "oegw.socks5.association.Association._answers",
            lambda self, source, port: next(iter(self._targets.values()), None),
        )
    ),
)
def way_in_for_strangers() -> None:
    at = association()
    thrown(at, to(BOB))
    for source, port in ((MALLET, 53), (MALLET, PORT), (ALICE, PORT)):
        step = at.from_outside(b"attack", source, port, 1.0)
        assert not isinstance(step, SendToClient), f"{source} reaches Alice"


@attack(
    SOCKS,
    "A name is made to lead to another address, which then is let in without being asked",
    source="DNS rebinding; found by this project's random lives",
    defence="oegw/socks5/association.py Association._send",
    otherwise="who answers for a name says whose datagrams reach the client",
    without=replaced(
        (
            "oegw.socks5.association.Association.opened",
            lambda self, place, address, port, seconds, now: _opened_and_let_in(
                self, place, address, port, seconds, now
            ),
        )
    ),
)
def way_in_by_a_name() -> None:
    at = association()
    with survived():
        at.from_client(to("bob.example"), ALICE, PORT, 0.0)
        place = Place("bob.example", 53)
        at.opened(place, BOB, 53, 1.0, 0.0)
        at.from_client(to("bob.example"), ALICE, PORT, 60.0)
        at.opened(place, MALLET, 53, 1.0, 60.0)
        step = at.from_outside(b"attack", MALLET, 53, 60.0)
    assert not isinstance(step, SendToClient), "Mallet reaches Alice, who never sent him anything"


def _opened_and_let_in(
    self: Association, place: Place, address: IPAddress, port: int, seconds: float, now: float
) -> tuple[Step, ...]:
    steps = _opened(self, place, address, port, seconds, now)
    self._send(self._targets[place], b"")
    return steps


@attack(
    SOCKS,
    "A datagram for each of 10,000 names, none of which there is",
    source="SK-44: per-packet resolution bounded",
    defence="oegw/socks5/settings.py UdpSettings.resolutions",
    otherwise="one client's datagrams become a flood of questions to the name servers",
    without=replaced(("tests.attacks.socksdatagrams.SETTINGS", UdpSettings(resolutions=10**9))),
)
def names_without_end() -> None:
    at = association()
    asked = 0
    for number in range(10_000):
        with survived():
            steps = at.from_client(to(f"{number}.example"), ALICE, PORT, number / 10_000)
        asked += any(isinstance(step, Open) for step in steps)
    assert asked < 100, f"{asked} questions at a time"


@attack(
    SOCKS,
    "The same name that there is not, in each of 10,000 datagrams",
    source="SK-44: per-packet resolution bounded",
    defence="oegw/socks5/association.py REFUSED_SECONDS",
    otherwise="each datagram is a question to the name servers",
    without=replaced(("oegw.socks5.association.REFUSED_SECONDS", 0.0)),
)
def a_name_without_end() -> None:
    at = association()
    asked = 0
    for number in range(10_000):
        for step in at.from_client(to("nobody.example"), ALICE, PORT, number / 1000):
            if isinstance(step, Open):
                asked += 1
                at.refused(step.place, "no_such_name", number / 1000)
    assert asked < 100, f"{asked} questions for one name"


@attack(
    SOCKS,
    "Large datagrams to names that take their time",
    source="design: every queue bounded",
    defence="oegw/socks5/association.py WAITING_OCTETS",
    otherwise="one client fills the server's memory with what waits",
    without=replaced(("oegw.socks5.association.WAITING_OCTETS", 10**9)),
)
def datagrams_that_wait() -> None:
    at = association()
    for number in range(1000):
        with survived():
            at.from_client(to(f"{number % 16}.example", bytes(60_000)), ALICE, PORT, 0.0)
    waiting = sum(len(each) for target in at._targets.values() for each in target.waiting)
    assert waiting <= 65535, f"{waiting} octets wait"


@attack(
    SOCKS,
    "Datagrams to each of 5,000 addresses",
    source="design: every table bounded",
    defence="oegw/socks5/settings.py UdpSettings.destinations",
    otherwise="one client's scan fills the server's memory",
    without=replaced(("tests.attacks.socksdatagrams.SETTINGS", UdpSettings(destinations=10**9))),
)
def destinations_without_end() -> None:
    at = association()
    for number in range(5000):
        thrown(at, to(ip_address(0x0A000000 + number)))
    assert len(at) < 1000


@attack(
    SOCKS,
    "Fragments that never become whole",
    source="SK-7; RFC 1928 section 7",
    defence="oegw/socks5/association.py Association.from_client",
    otherwise="a part of a datagram is sent as if it were one",
    without=replaced(
        (
            "oegw.socks5.association.parse_datagram",
            lambda octets: Datagram(BOB, 53, b"part"),
        )
    ),
)
def fragments() -> None:
    at = association()
    for number in (1, 2, 127, 0x80, 0xFF):
        octets = Datagram(BOB, 53, b"part", number).octets()
        assert all(isinstance(step, Dropped) for step in thrown(at, octets))

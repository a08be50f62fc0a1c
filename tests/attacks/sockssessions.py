"""Attacks on the SOCKS server by who connects: silence, guesses, addresses of another form."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from oegw.socks5.codes import ReplyCode
from oegw.socks5.limits import Place, Places
from oegw.socks5.passwords import Guesses, Passwords, hashed
from oegw.socks5.rules import Asked, Rules
from oegw.socks5.session import Requested, Session
from oegw.socks5.settings import Limits, Rule, User
from oegw.socks5.terms import Refused
from oegw.socks5.wire import Credentials, IPAddress
from tests.attacks.frame import SOCKS, attack, replaced, survived

ALICE, MALLET = ip_address("192.0.2.1"), ip_address("192.0.2.66")
OWN = ip_address("203.0.113.1")
REQUEST = b"\x05\x01\x00" + b"\x05\x01\x00\x01\xc6\x33\x64\x07\x00\x50"


@attack(
    SOCKS,
    "A client sends on and on before its request is answered",
    source="design: every queue bounded; SK-9",
    defence="oegw/socks5/session.py EARLY_OCTETS",
    otherwise="each connection may take as much memory as it likes",
    without=replaced(("oegw.socks5.session.EARLY_OCTETS", 10**9)),
)
def octets_ahead() -> None:
    session = Session()
    session.receive(REQUEST)
    taken = 0
    while (room := session.room()) and taken < 10_000_000:
        with survived():
            session.receive(bytes(min(room, 65536)))
        taken += min(room, 65536)
    assert isinstance(session.next_event(), Requested)
    assert taken < 100_000, f"{taken} octets are kept"


@attack(
    SOCKS,
    "Many connections that say nothing",
    source="slow-loris; design: bad input",
    defence="oegw/socks5/limits.py Places._oldest",
    otherwise="a few strangers with patience keep out everybody",
    without=replaced(("oegw.socks5.limits.Places._oldest", lambda self, reason: _full(reason))),
)
def silent_crowd() -> None:
    places = Places(Limits(negotiating=100))
    for number in range(500):
        with suppress(Refused):
            places.take(IPv4Address(0x0A000000 + number % 20))
    assert enters(places, ALICE) is not None, "Alice finds no place"


def _full(reason: str) -> Place:
    raise Refused(ReplyCode.FAILURE, reason)


def enters(places: Places, client: IPAddress) -> Place | None:
    with survived():
        try:
            place, _ = places.take(client)
        except Refused:
            return None
    return place


@attack(
    SOCKS,
    "One client makes connections so fast that others' are pushed out before they say anything",
    source="slow-loris, against a server that closes the oldest",
    defence="oegw/socks5/limits.py NEGOTIATING_SHARE",
    otherwise="the remedy against the silent is a weapon of the hasty",
    without=replaced(("oegw.socks5.limits.NEGOTIATING_SHARE", 1)),
)
def hasty_crowd() -> None:
    places = Places(Limits(negotiating=200))
    place = enters(places, ALICE)
    pushed_out = set()
    for _ in range(1000):
        with suppress(Refused):
            pushed_out.add(places.take(MALLET)[1])
    assert place not in pushed_out, "Alice is pushed out by Mallet alone"


@attack(
    SOCKS,
    "Passwords are guessed, thousands of them",
    source="RFC 1929; any list of passwords",
    defence="oegw/socks5/passwords.py Guesses.may_try",
    otherwise="a list of passwords is tried in an hour, and the server computes hashes meanwhile",
    without=replaced(("oegw.socks5.passwords.Guesses.may_try", lambda self, client, now: True)),
)
def passwords_guessed() -> None:
    guesses = Guesses()
    tried = 0
    for number in range(3600):
        if guesses.may_try(MALLET, float(number)):
            tried += 1
            guesses.failed(MALLET, float(number))
    assert tried < 600, f"{tried} guesses in an hour"
    assert guesses.may_try(ALICE, 3600.0), "Alice waits for Mallet's guesses"


@attack(
    SOCKS,
    "Names of users are found out by how long the answer takes",
    source="CVE-2018-15473 and its kind",
    defence="oegw/socks5/passwords.py Passwords.verify",
    otherwise="an attacker knows for whom to guess",
    without=replaced(
        (
            "oegw.socks5.passwords.Passwords.verify",
            lambda self, credentials: (
                credentials.user in self._hashes and _verify(self, credentials)
            ),
        )
    ),
)
def users_found_out() -> None:
    passwords = Passwords([User("alice", hashed(b"secret", bytes(16)))], bytes(32))
    assert hashes_for(passwords, b"alice") == hashes_for(passwords, b"nobody") == 1


_verify = Passwords.verify


def hashes_for(passwords: Passwords, user: bytes) -> int:
    """How many slow hashes a wrong password of this user costs."""
    scrypt, made = hashlib.scrypt, []

    def counted(*arguments: Any, **more: Any) -> bytes:
        made.append(1)
        return scrypt(*arguments, **more)

    hashlib.scrypt = counted  # type: ignore[assignment]
    try:
        assert not passwords.verify(Credentials(user, b"wrong"))
    finally:
        hashlib.scrypt = scrypt
    return len(made)


# ------------------------------------------------------------------------- rules


def allowed(rules: list[Rule], destination: str, name: str | None = None) -> bool:
    decides = Rules(rules, lambda address: address == OWN)
    with survived():
        asked = Asked("connect", MALLET, "", ip_address(destination), 8080, name)
        return decides.decide(asked).allowed


EVERYTHING = Rule(True, destinations=(ip_network("0.0.0.0/0"), ip_network("::/0")))


@attack(
    SOCKS,
    "A client asks for the gateway's own loopback, in all its notations",
    source="server-side request forgery; services that trust who is on the same host",
    defence="oegw/socks5/rules.py Rules.decide",
    otherwise="every host of the site has the rights of the gateway's own programs",
    without=replaced(("oegw.socks5.rules._kind", lambda address, networks: None)),
)
def loopback_reached() -> None:
    for destination in (
        "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0",
        "169.254.169.254", "fe80::1", "224.0.0.1", "255.255.255.255",
    ):  # fmt: skip
        for rules in ([], [EVERYTHING], [Rule(True)]):
            assert not allowed(rules, destination), destination


@attack(
    SOCKS,
    "A name that is allowed leads to the gateway itself",
    source="DNS rebinding; SK-23",
    defence="oegw/socks5/rules.py _Reading.names_special",
    otherwise="whoever answers for a name opens what he likes",
    without=replaced(
        ("oegw.socks5.rules._Reading.names_special", lambda self, destination, special: True)
    ),
)
def names_that_lead_home() -> None:
    rules = [Rule(True, names=("*.example",))]
    assert allowed(rules, "198.51.100.7", "bob.example")
    for destination in ("127.0.0.1", "::1", "169.254.169.254", str(OWN)):
        assert not allowed(rules, destination, "mallet.example"), destination


@attack(
    SOCKS,
    "An address that is refused is written as another family's",
    source="filters that compare texts",
    defence="oegw/socks5/wire.py plain",
    otherwise="rules for IPv4 are passed by in IPv6's notation",
    without=replaced(("oegw.socks5.rules.plain", lambda address: address)),
)
def rules_passed_by_in_other_notation() -> None:
    rules = [Rule(False, destinations=(ip_network("198.51.100.0/24"),))]
    assert not allowed(rules, "198.51.100.7")
    assert not allowed(rules, "::ffff:198.51.100.7")


@attack(
    SOCKS,
    "A name that is refused is written in other letters",
    source="RFC 4343; RFC 3490 section 3.1",
    defence="oegw/socks5/rules.py canonical",
    otherwise="rules for names are passed by with a capital letter, or a dot",
    without=replaced(("oegw.socks5.rules.canonical", lambda name: name)),
)
def rules_passed_by_in_other_letters() -> None:
    rules = [Rule(False, names=("*.example",))]
    for name in (
        "bob.example",
        "BOB.Example",
        "bob.example.",
        "bob\u3002example",
        "bob.exa\uff4dple",
    ):
        assert not allowed(rules, "198.51.100.7", name), name

"""Who may be connected to whom (SK-5, SK-23)."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest

from oegw.socks5.rules import ASSOCIATE, BIND, CONNECT, UDP, Asked, Rules, Verdict, canonical
from oegw.socks5.settings import Rule
from oegw.socks5.terms import Demand

CLIENT = ip_address("192.168.1.10")
SERVER = ip_address("192.0.2.80")
OURS = frozenset(ip_address(each) for each in ("192.168.1.1", "198.51.100.1", "2001:db8::1"))
UNRULED = Verdict(True, "unruled", Demand())


def rules(*written: Rule) -> Rules:
    return Rules(written, OURS.__contains__)


def allow(origin: str = "allowing", **keys: Any) -> Rule:
    return Rule(True, origin=origin, **made(keys))


def deny(origin: str = "denying", **keys: Any) -> Rule:
    return Rule(False, origin=origin, **made(keys))


def made(keys: dict[str, Any]) -> dict[str, Any]:
    for key in ("clients", "destinations"):
        if key in keys:
            keys[key] = tuple(ip_network(prefix) for prefix in keys[key])
    return keys


def asked(destination: str | None = "192.0.2.80", **keys: Any) -> Asked:
    keys = {"command": CONNECT, "client": CLIENT, "port": 80} | keys
    return Asked(destination=None if destination is None else ip_address(destination), **keys)


def test_without_rules_clients_reach_the_world() -> None:
    for destination in ("192.0.2.80", "2001:db8:7::7", "192.168.1.20", "fd00::5"):
        for command in (CONNECT, BIND, UDP, ASSOCIATE):
            assert rules().decide(asked(destination, command=command)) == UNRULED


def test_the_first_that_matches_decides() -> None:
    ordered = rules(
        deny("first", ports=((25, 25),)), allow("second"), deny("third", ports=((80, 80),))
    )
    assert ordered.decide(asked(port=25)) == Verdict(False, "first")
    assert ordered.decide(asked(port=80)) == Verdict(True, "second", Demand())


@pytest.mark.parametrize(
    ("keys", "matching", "other"),
    [
        ({"commands": (CONNECT, UDP)}, {"command": UDP}, {"command": BIND}),
        ({"users": ("alice",)}, {"user": "alice"}, {"user": "bob"}),
        ({"users": ("alice",)}, {"user": "alice"}, {"user": ""}),
        ({"clients": ("192.168.1.0/28",)}, {}, {"client": ip_address("192.168.1.77")}),
        ({"clients": ("192.168.1.0/28",)}, {"client": ip_address("::ffff:192.168.1.10")},
         {"client": ip_address("fd00::1")}),
        ({"destinations": ("192.0.2.0/24",)}, {}, {"destination": "192.0.3.80"}),
        ({"destinations": ("2001:db8::/32",)}, {"destination": "2001:db8:7::7"}, {}),
        ({"ports": ((1, 79), (81, 90))}, {"port": 81}, {"port": 80}),
        ({"ports": ((80, 80),)}, {"port": 80}, {"port": 81}),
        ({"names": ("*.example.org",)}, {"name": "www.example.org"}, {"name": None}),
        ({"names": ("*.example.org",)}, {"name": "WWW.Example.ORG."}, {"name": "example.org"}),
        ({"names": ("*.example.org",)}, {"name": "a.b.example.org"}, {"name": "wexample.org"}),
        ({"names": ("a[b].example",)}, {"name": "a[b].example"}, {"name": "ab.example"}),
        # all keys must match
        ({"names": ("a.example",), "destinations": ("192.0.2.0/24",)}, {"name": "a.example"},
         {"name": "a.example", "destination": "10.0.0.1"}),
        ({"users": ("alice",), "ports": ((80, 80),)}, {"user": "alice"},
         {"user": "alice", "port": 81}),
    ],
)  # fmt: skip
def test_a_rule_matches(
    keys: dict[str, Any], matching: dict[str, Any], other: dict[str, Any]
) -> None:
    one = rules(deny(**keys))
    assert one.decide(asked(**matching)) == Verdict(False, "denying")
    assert one.decide(asked(**other)).reason == "unruled"


def test_an_address_is_judged_whichever_way_it_was_asked_for() -> None:
    """SK-23: a name or an ID that leads to what is forbidden is forbidden."""
    one = rules(deny(destinations=("192.0.2.0/24",)))
    for name in (None, "innocent.example", "192.0.2.80"):
        assert not one.decide(asked(name=name)).allowed
    assert not one.decide(asked("::ffff:192.0.2.80")).allowed


# ---------------------------------------------------------------- what is ours


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.99.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link_local"),
        ("fe80::1", "link_local"),
        ("fe80::1%eth0", "link_local"),
        ("192.168.1.1", "own"),
        ("198.51.100.1", "own"),
        ("2001:db8::1", "own"),
        ("::ffff:198.51.100.1", "own"),
    ],
)
def test_what_is_ours_is_opened_by_a_rule_that_names_it_only(destination: str, reason: str) -> None:
    wanted = asked(destination)
    assert rules().decide(wanted) == Verdict(False, reason)
    assert rules(allow()).decide(wanted) == Verdict(False, reason)
    everything = allow(destinations=("0.0.0.0/0", "::/0"))
    assert rules(everything).decide(wanted) == Verdict(False, reason)
    plain = ip_address(destination.removeprefix("::ffff:").partition("%")[0])
    named = allow(destinations=(str(plain),), users=("alice",))
    assert rules(named).decide(wanted) == Verdict(False, reason)
    verdict = rules(allow(), named).decide(asked(destination, user="alice"))
    assert verdict == Verdict(True, "allowing", Demand())
    assert rules(deny(), named).decide(asked(destination, user="alice")).reason == "denying"


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("0.0.0.0", "unspecified"),  # Linux connects to itself
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.251", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "multicast"),
    ],
)
def test_what_is_nobodys_is_never_reached(destination: str, reason: str) -> None:
    wanted = asked(destination)
    assert rules().decide(wanted) == Verdict(False, reason)
    named = allow(destinations=(destination,))
    assert rules(named).decide(wanted) == Verdict(False, reason)


# ---------------------------------------------------------------- before the peer is known


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ((), True),
        ((deny(),), False),
        ((deny(commands=(UDP,)),), False),
        ((deny(commands=(CONNECT,)),), True),
        ((deny(destinations=("10.0.0.0/8",)),), True),  # others may be reached
        ((deny(ports=((25, 25),)), deny()), False),
        ((allow(destinations=("10.0.0.0/8",)), deny()), True),  # they may be reached
        ((allow(destinations=("10.0.0.0/8",), users=("bob",)), deny()), False),
    ],
)
def test_an_association_is_refused_if_nothing_could_ever_be_sent(
    written: tuple[Rule, ...], allowed: bool
) -> None:
    assert rules(*written).decide(asked(None, command=UDP)).allowed is allowed


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ((allow(ports=((80, 80),)), deny()), True),
        ((deny(ports=((80, 80),)),), True),
        ((deny(ports=((80, 80),)), deny()), False),
        ((allow(ports=((80, 80),), destinations=("10.0.0.0/8",)), deny()), False),
    ],
)
def test_an_id_is_made_if_it_could_ever_be_used(written: tuple[Rule, ...], allowed: bool) -> None:
    """Its destination is known, and not the port."""
    assert rules(*written).decide(asked(command=ASSOCIATE, port=None)).allowed is allowed


def test_what_is_ours_is_not_opened_by_a_rule_for_a_port() -> None:
    one = rules(allow(ports=((80, 80),)))
    for port in (80, None):
        assert one.decide(asked("127.0.0.1", port=port)) == Verdict(False, "loopback")


# ---------------------------------------------------------------- what must be encrypted


@pytest.mark.parametrize(
    ("written", "wanted", "demanded"),
    [
        ((), {}, False),
        ((), {"encrypted": True}, True),
        ((allow(),), {}, False),
        ((allow(encrypted=True),), {}, True),
        ((allow(),), {"encrypted": True}, True),
        ((allow(encrypted=True, ports=((443, 443),)), allow()), {}, False),
        ((allow(encrypted=True),), {"destination": None}, True),
    ],
)
def test_what_is_demanded_of_a_flow(
    written: tuple[Rule, ...], wanted: dict[str, Any], demanded: bool
) -> None:
    assert rules(*written).decide(asked(**wanted)).demand == Demand(demanded)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Example.ORG.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ．org", "example.org"),
        ("starwars://TheForce.net", "starwars://theforce.net"),
        ("x" * 64 + ".Example", "x" * 64 + ".example"),
        ("a..B", "a..b"),
    ],
)
def test_a_name_has_one_form(name: str, same: str) -> None:
    assert canonical(name) == same


def test_any_name_has_a_form() -> None:
    dice = random.Random(3490)
    letters = "aZ9-._*%:/ éßçΣ漢。．\u200b\u0301\U0001f600"
    for _ in range(500):
        name = "".join(dice.choices(letters, k=dice.randint(1, 40)))
        rules(deny(names=(name,))).decide(asked(name=name[::-1]))
        assert canonical(canonical(name)) == canonical(name)


def test_an_address_that_is_both_families_is_one() -> None:
    """Whoever writes a rule for IPv4 has the same destination within IPv6 in mind."""
    one = rules(allow(destinations=("127.0.0.1",)))
    mapped = Asked(CONNECT, CLIENT, destination=IPv6Address("::ffff:127.0.0.1"))
    plain = Asked(CONNECT, CLIENT, destination=IPv4Address("127.0.0.1"))
    assert one.decide(mapped) == one.decide(plain)
    assert one.decide(plain).allowed

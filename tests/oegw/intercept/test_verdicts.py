"""Which element of which map stands for a scope."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from oegw.commands import Verdict
from oegw.intercept.verdicts import (
    Installed,
    creations,
    deletions,
    keyed_elements,
    verdict_elements,
)
from policy.rule import PortRange, Scope


def scope(source: str, destination: str, *more) -> Scope:
    return Scope(ip_network(source), ip_network(destination), *more)


@pytest.mark.parametrize(
    ("scope", "map_name", "key"),
    [
        (scope("10.1.0.2", "10.9.0.2"), "pair4", "10.1.0.2 . 10.9.0.2"),
        (scope("fd00::1", "fd00::2"), "pair6", "fd00::1 . fd00::2"),
        (scope("10.1.0.0/24", "10.9.0.2"), "wide4", "10.1.0.0/24 . 10.9.0.2"),
        (scope("fd00::/64", "::/0"), "wide6", "fd00::/64 . ::/0"),
        (scope("10.1.0.2", "10.9.0.2", 50), "protocol4", "10.1.0.2 . 10.9.0.2 . 50"),
        (
            scope("10.1.0.2", "10.9.0.2", 17, PortRange(), PortRange(53, 53)),
            "port4",
            "10.1.0.2 . 10.9.0.2 . 17 . 0-65535 . 53",
        ),
    ],
)
def test_the_shape_follows_from_the_scope(scope, map_name, key):
    assert verdict_elements(scope, Verdict.CLEAR) == [(map_name, key)]
    assert verdict_elements(scope, Verdict.DENY) == [(f"deny_{map_name}", key)]


def test_ports_of_any_protocol_are_five_elements():
    wanted = scope("10.1.0.2", "10.9.0.2", None, PortRange(1, 2))
    keys = [key for _, key in verdict_elements(wanted, Verdict.TUNNEL)]
    assert keys == [f"10.1.0.2 . 10.9.0.2 . {p} . 1-2 . 0-65535" for p in (6, 17, 33, 132, 136)]


def test_the_way_back_has_sides_and_ports_exchanged():
    wanted = scope("10.1.0.2", "10.9.0.0/24", 6, PortRange(1, 2), PortRange(80, 80))
    assert keyed_elements(wanted) == [
        ("keyed_port4", "10.9.0.0/24 . 10.1.0.2 . 6 . 80 . 1-2"),
    ]


def test_commands():
    wanted = scope("10.1.0.2", "10.9.0.2")
    both = Installed(Verdict.TUNNEL, True, None)
    assert creations("t", wanted, both, 1.5) == [
        "create element inet t pair4 { 10.1.0.2 . 10.9.0.2 timeout 1500ms : return }",
        "create element inet t keyed_pair4 { 10.9.0.2 . 10.1.0.2 timeout 1500ms }",
    ]
    assert creations("t", wanted, Installed(Verdict.CLEAR, False, None), None) == [
        "create element inet t pair4 { 10.1.0.2 . 10.9.0.2 : accept }",
    ]
    assert creations("t", wanted, Installed(Verdict.DENY, False, None), 60) == [
        "create element inet t deny_pair4 { 10.1.0.2 . 10.9.0.2 timeout 60000ms }",
    ]
    assert deletions("t", wanted, both) == [
        "delete element inet t pair4 { 10.1.0.2 . 10.9.0.2 }",
        "delete element inet t keyed_pair4 { 10.9.0.2 . 10.1.0.2 }",
    ]
    assert deletions("t", wanted, Installed(None, True, None)) == [
        "delete element inet t keyed_pair4 { 10.9.0.2 . 10.1.0.2 }",
    ]

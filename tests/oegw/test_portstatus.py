"""What `oegw status` says of the ports of a connection's flows."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from oegw.connection import State, Tunnel
from oegw.portstatus import Section, ports_of, section
from oegw.sst.books import Fate
from oegw.sst.interface import Leg
from oegw.status import render
from policy.rule import Category, Rule, Sst

ALICE, BOB = ip_address("192.1.0.65"), ip_address("192.2.0.66")
RULE = Rule("r", Category.OPPORTUNISTIC, sst=Sst.ONLY)


def connection(
    state: State = State.CLEAR, tunnel: Tunnel | None = None, rule: Rule = RULE,
    local: str = "192.1.0.65/32", remote: str = "192.2.0.66/32",
) -> Any:  # fmt: skip
    selectors = SimpleNamespace(local=ip_network(local), remote=ip_network(remote))
    return SimpleNamespace(state=state, live_tunnel=tunnel, rule=rule, selectors=selectors)


def found(*fates: tuple[Any, Fate]) -> Section:
    return Section({}, dict(fates), {remote: fate for (_, remote), fate in fates})


SEALED = Fate(Leg.OUTSIDE, True, "", 1.0)
REFUSED = Fate(Leg.OUTSIDE, False, "path stripped", 1.0)


def test_where_port_encryption_does_not_run_nothing_is_said() -> None:
    assert section(None) is None
    assert ports_of(connection(), None) is None
    assert ports_of(connection(State.POTENTIAL), found()) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "tunnel"),
        ({"sealed": True}, "tunnel with ports sealed inside"),
        ({"shielded": True}, "tunnel with ports sealed around"),
        ({"sealed": True, "shielded": True}, "tunnel with ports sealed inside and around"),
        ({"unsealed": "the peer declined"}, "tunnel, ports not sealed: the peer declined"),
    ],
)
def test_what_a_tunnel_has(fields: dict[str, Any], words: str) -> None:
    tunnel = Tunnel(1, BOB, True, **fields)
    assert ports_of(connection(State.KEYED, tunnel), found()) == words


def test_what_a_clear_connection_has_and_why_it_has_not() -> None:
    pair = ALICE, BOB
    assert ports_of(connection(), found((pair, SEALED))) == "clear with ports sealed"
    assert ports_of(connection(), found((pair, REFUSED))) == (
        "clear, ports not sealed: path stripped"
    )
    blocked = Fate(Leg.OUTSIDE, False, "no key", 1.0, dropped=True)
    assert ports_of(connection(), found((pair, blocked))) == (
        "dropped, ports can't be sealed: no key"
    )
    assert ports_of(connection(), found()) == "clear; no flow has asked for its ports to be sealed"
    off = Rule("off", Category.PERMIT)
    assert ports_of(connection(rule=off), found()) == "clear"


def test_behind_nat_and_for_networks_the_host_outside_tells() -> None:
    inside = ip_address("10.0.0.5"), BOB
    assert ports_of(connection(), found((inside, SEALED))) == "clear with ports sealed"
    whole = connection(local="0.0.0.0/0", remote="192.2.0.0/24")
    assert ports_of(whole, found((inside, SEALED))) == "clear with ports sealed"
    other = connection(remote="192.3.0.0/24")
    assert ports_of(other, found((inside, SEALED))) != "clear with ports sealed"


def test_the_text_of_it() -> None:
    row = {"state": "clear", "ports": "clear, ports not sealed: path\x1b[2J"}
    assert "clear, ports not sealed: path?[2J" in render({"connections": [row]})
    peer = {
        "gateway": "192.1.1.5", "state": "works", "since": 3.0, "last_probe": 2.0, "epoch": 20778,
        "source": "dns-address", "trust": "secure",
    }  # fmt: skip
    rows = {
        "own_keys": ["00ff"], "held": 2, "peers": [peer],
        "tunnels": [{"local": "192.1.0.0/24", "remote": "192.2.0.66/32", "sending": False}],
        "shielded": [["192.1.1.4", "192.1.1.5"]],
        "pairs": [
            {"local": "192.1.0.65", "remote": "192.2.0.66", "sealed": False, "reason": "no key"},
            {"local": "192.1.0.66", "remote": "192.2.0.66", "sealed": True, "reason": ""},
        ],
    }  # fmt: skip
    text = render({"sst": rows})
    assert "Port encryption: own keys 00ff; 2 packets held\n" in text
    assert "  192.1.1.5  works   3.0s    2.0s  20778  dns-address  secure\n" in text
    assert "  inside the tunnel 192.1.0.0/24 -> 192.2.0.66: only what comes, key from IKE\n" in text
    assert "  around IKE and ESP: 192.1.1.4 -> 192.1.1.5\n" in text
    assert "  192.1.0.65 -> 192.2.0.66: ports not sealed: no key\n" in text
    assert "192.1.0.66" not in text

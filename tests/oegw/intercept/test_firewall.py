"""Firewalls that would judge what comes out of a tunnel otherwise than clear traffic."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import oegw
from oegw.intercept.firewall import Ruleset
from oegw.intercept.interface import InterceptSettings
from oegw.intercept.nft import Nft, firewall_gaps
from tests.support.intercept_net import within

SETTINGS = InterceptSettings(outside=("eth0", "ppp0"), tunnel_interface="oegw0")
_numbers = itertools.count()

FORWARD = "type filter hook forward priority 0; policy accept;"
INPUT = "type filter hook input priority 0; policy drop;"


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"oegwf{os.getpid()}x{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def load(namespace: str, text: str) -> None:
    def body() -> None:
        nft = Nft()
        nft.run(text)
        nft.close()

    within(namespace, body)


def gaps(namespace: str) -> list[str]:
    return within(namespace, lambda: firewall_gaps(SETTINGS))


def table(hook: str, *rules: str, more: str = "") -> str:
    body = "\n".join(rules)
    return f"table inet fw {{\n{more}\nchain c {{\n{hook}\n{body}\n}}\n}}\n"


@pytest.mark.netns
@pytest.mark.parametrize(
    "text",
    [
        table(FORWARD, 'iifname "eth0" tcp dport 22 drop'),
        table(INPUT, 'iifname "eth0" tcp dport 80 accept'),
        table(FORWARD, 'iifname { "eth0", "eth7" } drop'),
        table(FORWARD, 'iifname "eth*" drop'),
        table(FORWARD, 'iifname != "eth0" accept'),
        table(FORWARD, 'meta iifname . meta l4proto { "eth0" . tcp } drop'),
        table(FORWARD, "iifname @wan drop", more='set wan { type ifname; elements = { "ppp0" }\n}'),
        table(FORWARD, 'iifname vmap { "eth0" : jump x }', more="chain x {\ntcp dport 22 drop\n}"),
        table(FORWARD, "ct state new jump x", more='chain x {\niifname "eth0" drop\n}'),
        table(FORWARD, 'iifname "eth0" drop', 'oifname "oegw0" accept'),  # the other direction
    ],
)  # fmt: skip
def test_chain_that_names_the_outside_only(namespace: str, text: str) -> None:
    load(namespace, text)
    [gap] = gaps(namespace)
    hook = "input" if "hook input" in text else "forward"
    outside = "ppp0" if "ppp0" in text else "eth0"
    assert gap == (
        f"chain c of table inet fw ({hook}) names {outside} and not the tunnel's interface"
    )


@pytest.mark.netns
@pytest.mark.parametrize(
    "text",
    [
        "",
        table(FORWARD, "tcp dport 22 drop"),
        table(FORWARD, 'iifname { "eth0", "oegw0" } drop'),
        table(FORWARD, 'iifname "eth0" drop', 'iifname "oegw*" drop'),
        table(FORWARD, 'iifname "eth0" drop', "meta mark & 0xc0000 == 0xc0000 accept"),
        table(FORWARD, 'iifname "eth1" accept'),
        table(FORWARD, 'oifname "eth0" accept'),
        table(FORWARD, 'iifname vmap { "eth1" : jump eth0 }', more="chain eth0 {\naccept\n}"),
        table("type filter hook prerouting priority 0;", 'iifname "eth0" drop'),
        table(FORWARD, 'iifname "eth0" drop').replace("inet fw", "inet oegw"),
    ],
)
def test_chain_that_is_in_order(namespace: str, text: str) -> None:
    load(namespace, text)
    assert gaps(namespace) == []


@pytest.mark.netns
def test_iptables_is_seen_too(namespace: str) -> None:
    enter = ["nsenter", f"--net=/run/netns/{namespace}"]
    rule = ["iptables-nft", "-A", "FORWARD", "-i", "eth0", "-p", "tcp", "--dport", "22"]
    subprocess.run([*enter, *rule, "-j", "DROP"], check=True)
    assert gaps(namespace) == [
        "chain FORWARD of table ip filter (forward) names eth0 and not the tunnel's interface"
    ]


@pytest.mark.netns
def test_example_of_the_documentation_loads_and_is_in_order(namespace: str) -> None:
    text = (Path(oegw.__file__).parent / "docs/firewall.md").read_text()
    [example] = re.findall(r"^    table inet filter \{\n(?:(?:    .*)?\n)*?^    \}\n", text, re.M)
    load(namespace, example)
    assert gaps(namespace) == []
    load(namespace, "flush ruleset\n" + example.replace(', "oegw0"', ""))
    # Without the tunnel's name its chains look at the mark only where they come from outside.
    assert gaps(namespace) == []
    without = re.sub(r"meta mark .*accept", "", example.replace(', "oegw0"', ""))
    load(namespace, "flush ruleset\n" + without)
    assert [gap.split()[1] for gap in gaps(namespace)] == ["forward", "input"]


@pytest.mark.parametrize(
    "listing",
    [
        None, [], {}, {"nftables": None}, {"nftables": [None, [], {"rule": 1}, {"chain": {}}]},
        {"nftables": [{"chain": {"hook": "forward"}}, {"rule": {"expr": {"match": 1}}}]},
        {"nftables": [{"rule": {"expr": [1, {"match": {"left": [], "right": {}}}]}}]},
    ],
)  # fmt: skip
def test_strange_listings_say_nothing(listing: Any) -> None:
    assert Ruleset(listing).gaps(SETTINGS) == []


def test_chains_that_jump_in_a_circle_end() -> None:
    """The kernel refuses them; a listing might have them."""
    rule = {"family": "inet", "table": "t", "chain": "c", "expr": [{"jump": {"target": "c"}}]}
    chain = {"family": "inet", "table": "t", "name": "c", "hook": "forward"}
    assert Ruleset({"nftables": [{"chain": chain}, {"rule": rule}]}).gaps(SETTINGS) == []

"""A clear packet that claims to come from a peer opens nothing (attack 19 of the design page)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from oegw.commands import Assurance, Verdict
from oegw.datapath.interface import Direction, SaKey
from policy.rule import Scope
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    PEER,
    PEER6,
    Net,
    gateway,
    wait_for,
)
from tests.support.intercept_policy import policy, protected_rule

pytestmark = pytest.mark.netns

PROTECTED6 = replace(protected_rule("fd00:9::/64"), name="protected6")
PAIRS = pytest.mark.parametrize(("inside", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def rules(net: Net) -> str:
    """All that is in the kernel, without what is only counted and what is left of a time."""
    listing = net.run(net.gateway, "nft", "list", "ruleset")
    return re.sub(r"packets \d+ bytes \d+|expires \S+", "", listing)


def forge(net: Net, peer: str, inside: str) -> None:
    """From outside, in clear: a request, and what looks like the answer to one of ours."""
    for port in (9999, 500, 53):
        sender = net.udp(net.outside, peer, port)
        for word in ("forged", "again"):
            sender.send(word, inside, 4000)
        sender.close()


@PAIRS
def test_unknown_pair_stays_unknown(net: Net, inside: str, peer: str) -> None:
    with gateway(net, policy()) as gate:
        before = rules(net)
        host = net.udp(net.inside, inside, 4000)
        forge(net, peer, inside)
        wait_for(lambda: len(host.receive(0.1)) or None)  # they came in: nothing forbids that
        assert rules(net) == before
        assert gate.trapped == []  # what comes from outside is never trapped
        host.send("answer", peer)  # and the answer is held, as any first packet
        gate.await_trapped()
        assert net.udp(net.outside, peer, 9999).receive(0.1) == []


@PAIRS
@pytest.mark.parametrize("verdict", [Verdict.TUNNEL, Verdict.DENY, Verdict.REFUSE])
def test_verdict_stays_as_it_is(net: Net, inside: str, peer: str, verdict: Verdict) -> None:
    there = net.udp(net.outside, peer, 9998)
    with gateway(net, policy(protected_rule("10.9.0.0/24"), PROTECTED6)) as gate:
        pair = Scope(ip_network(inside), ip_network(peer))
        gate.call(gate.interception.install_policy, pair, verdict, None, verdict is Verdict.TUNNEL)
        before = rules(net)
        host = net.udp(net.inside, inside, 4000)
        forge(net, peer, inside)
        if verdict is Verdict.TUNNEL:  # its clear packets don't come in at all
            wait_for(lambda: gate.counters["keyed_clear_inbound_dropped"] == 6)
            assert host.receive(0.1) == []
        assert rules(net) == before
        host.send("answer", peer, 9998)
        assert there.receive(0.2) == []
        assert gate.counters["guard_dropped"] == 0  # it did not even come that far


@PAIRS
def test_forged_packet_does_not_pass_for_one_out_of_the_tunnel(
    net: Net, inside: str, peer: str
) -> None:
    with gateway(net, policy()) as gate:
        scope = Scope(ip_network(peer), ip_network(inside))
        key = SaKey(Direction.INBOUND, 1, ip_network("10.2.0.1").network_address)
        gate.call(gate.interception.assure, key, scope, Assurance.CONFIGURED)
        forge(net, peer, inside)
        assert gate.counters["inbound_configured"] == 0

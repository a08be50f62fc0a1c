"""Where a gateway is managed from, on the wire: nothing keeps that from it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from policy.builtin import builtin_rules
from policy.rule import Category, OnFailure, Rule
from policy.table import PolicyTable
from tests.support.intercept_net import (
    INSIDE,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Net,
    gateway,
    wait_for,
)

pytestmark = pytest.mark.netns

OWN, OWN6 = "10.2.0.1", "fd00:2::1"
MANAGING = {4: (OWN, PEER), 6: (OWN6, PEER6)}


@pytest.fixture(scope="module")
def net():
    with Net() as made:
        yield made


def table(*managing: str, own: tuple[str, ...] = (OWN, OWN6)) -> PolicyTable:
    """Nothing leaves in clear, and what one of those who manage sends must come in a tunnel."""
    configured = Rule("peer", Category.CONFIGURED, None, (ip_network(PEER),))
    builtin = builtin_rules((), map(ip_address, own), map(ip_network, managing))
    default = Rule("default", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP)
    return PolicyTable((configured, *builtin), default)


def passes(net: Net, own: str, other: str, port: int = 9999) -> bool:
    """Whether a question of theirs comes in, and its answer gets back."""
    here, there = net.udp(net.gateway, own, port), net.udp(net.outside, other, port)
    try:
        there.send("question", own, port)
        if here.receive(0.3) != ["question"]:
            return False
        here.send("answer", other, port)
        return there.receive(0.3) == ["answer"]
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("family", [4, 6])
def test_it_passes_in_clear_with_the_gateway_running_and_stopped(net, family):
    own, other = MANAGING[family]
    with gateway(net, table(PEER, PEER6)) as gate:
        assert passes(net, own, other)
        assert gate.trapped == []
    assert passes(net, own, other)  # by the rules that a stop leaves
    with gateway(net, table()):
        assert not passes(net, own, other)
    assert not passes(net, own, other)


def test_what_goes_through_the_box_is_under_the_policy(net):
    host = net.udp(net.inside, INSIDE, 9999)
    with gateway(net, table(PEER)) as gate:
        host.send("a", PEER)
        assert gate.await_trapped()[0][0].destination == ip_address(PEER)
    wire = net.capture(net.outside, "out0")
    host.send("b", PEER)
    host.send("c", OTHER_PEER)
    assert passes(net, OWN, PEER)
    assert not [each for each in wire.to(PEER) if each[12:16] == ip_address(INSIDE).packed]
    assert wire.to(OTHER_PEER) == []


def test_an_address_that_the_box_got_later_counts(net):
    with gateway(net, table(PEER, own=("10.1.0.1",))):
        assert passes(net, OWN, PEER)
    assert passes(net, OWN, PEER)


def test_a_new_policy_takes_it_over(net):
    with gateway(net, table(PEER)) as gate:
        gate.wait(gate.interception.replace_policy(table(OTHER_PEER, "10.9.0.0/30")))
        assert passes(net, OWN, OTHER_PEER)
        gate.wait(gate.interception.replace_policy(table(OTHER_PEER)))
        assert not passes(net, OWN, PEER)
    assert passes(net, OWN, OTHER_PEER)
    assert not passes(net, OWN, PEER)


def test_a_socket_that_demands_encryption_has_it_all_the_same(net):
    settings = replace(SETTINGS, demanded=True)
    there = net.udp(net.outside, PEER, 9999)
    demanding = net.udp(net.gateway, OWN, mark=settings.encrypted_mark)
    with gateway(net, table(PEER), settings) as gate:
        demanding.send("a", PEER)
        wait_for(lambda: gate.trapped or gate.counters["unencrypted_refused"])
    demanding.send("b", PEER)
    assert there.receive(0.2) == []

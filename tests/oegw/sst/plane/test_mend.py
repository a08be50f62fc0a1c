"""Tables and rules of port encryption that somebody else takes away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from oegw.sst.interface import Entry, Leg, PortFlow
from oegw.sst.settings import Fragments
from tests.support.intercept_net import Net
from tests.support.sst_plane import only, running, settings

pytestmark = pytest.mark.netns

HERE, THERE = ip_address("10.2.0.1"), ip_address("10.9.0.2")
FLOW = PortFlow(HERE, THERE, 17, 1000, 2000)
ENTRY = Entry(Leg.OUTSIDE, FLOW, 3000, 4000, 1, 60.0)
DECLINED = PortFlow(HERE, THERE, 17, 1001, 2000)


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def listed(net: Net, family: str = "inet") -> str:
    """Without what counts, and what runs down."""
    text = net.run(net.gateway, "nft", "-s", "list", "table", family, "oegw_sst")
    return re.sub(r" (timeout|expires) \w+", "", text)


@pytest.mark.parametrize("taken", ["flush ruleset", "flush table inet oegw_sst"])
def test_the_table_is_put_back_with_what_was_decided(net: Net, taken: str) -> None:
    with running(net.gateway, only()) as gate:
        assert gate.call(gate.plane.enter, ENTRY)
        gate.call(gate.plane.decline, Leg.OUTSIDE, DECLINED, 60.0)
        gate.call(gate.plane.shield, HERE, THERE)
        before = listed(net)
        assert "10.2.0.1 . 10.9.0.2" in before
        assert gate.wait(gate.plane.mend()) == ()
        net.run(net.gateway, "nft", *taken.split())
        assert gate.wait(gate.plane.mend()) == ("table inet oegw_sst",)
        assert listed(net) == before
        gone = gate.wait(gate.plane.mend_jump(False))
        assert bool(gone) == (taken == "flush ruleset" and gate.plane.queue_kind == "iptables")
        assert (gate.wait(gate.plane.mend()), gate.wait(gate.plane.mend_jump(True))) == ((), ())
        assert gate.plane.counters()["flows"] == 1


def test_while_it_is_gone_flows_find_no_room_and_shields_are_remembered(net: Net) -> None:
    with running(net.gateway, only()) as gate:
        net.run(net.gateway, "nft", "delete", "table", "inet", "oegw_sst")
        assert not gate.call(gate.plane.enter, ENTRY)
        gate.call(gate.plane.decline, Leg.OUTSIDE, DECLINED, 60.0)
        gate.call(gate.plane.shield, HERE, THERE)
        gate.call(gate.plane.forget, Leg.OUTSIDE, None)
        gate.wait(gate.plane.mend())
        assert "10.2.0.1 . 10.9.0.2 }" in listed(net)
        assert gate.call(gate.plane.enter, ENTRY)


def test_the_table_of_fragments_is_looked_after_too(net: Net) -> None:
    with running(net.gateway, only(), settings(fragments=Fragments.TRY)) as gate:
        before = listed(net, "netdev")
        net.run(net.gateway, "nft", "delete", "table", "netdev", "oegw_sst")
        assert gate.wait(gate.plane.mend()) == ("table inet oegw_sst",)
        assert listed(net, "netdev") == before

"""Attacks on the rules in the kernel, in network namespaces: rows 19 and 25."""

from __future__ import annotations

from typing import Any

from oegw.intercept import ruleset
from tests.attacks.frame import attack, replaced
from tests.oegw.intercept import test_crash, test_interception
from tests.support.intercept_net import INSIDE, OTHER_PEER, PEER, Net, gateway
from tests.support.intercept_policy import configured_rule, policy


def _anything_comes_in(settings: Any, **_: bool) -> str:
    return ruleset._chain("inbound", "accept")


@attack(
    19,
    "Clear packets from outside that claim a peer's address: they come in for nobody who has a "
    "tunnel, they are no reason for a verdict, and what answers them is held",
    source="Spencer and Redelmeier 2001, section 2.5",
    defence="oegw/intercept/ruleset.py _inbound",
    otherwise="whoever can forge an address talks past the tunnel",
    without=replaced(("oegw.intercept.ruleset._inbound", _anything_comes_in)),
    marks=("netns",),
)
def clear_packets_of_a_peer() -> None:
    with Net() as net:
        inside, wire = net.udp(net.inside, INSIDE, 9999), net.capture(net.outside, "out0")
        with gateway(net, policy(configured_rule("10.9.0.2/32"))) as gate:
            net.udp(net.outside, PEER).send("forged", INSIDE)
            net.udp(net.outside, OTHER_PEER).send("clear", INSIDE)
            assert inside.receive(2) == ["clear"]
            assert gate.trapped == []
            inside.send("answer", OTHER_PEER)
            gate.await_trapped()
            assert wire.to(OTHER_PEER) == []


def _no_guard(settings: Any, **_: bool) -> str:
    return ruleset._chain("leak", "counter name guard_dropped drop") + ruleset._chain(
        "guard", "accept"
    )


@attack(
    25,
    "The daemon stops, or a verdict in the kernel is wrong, while protected traffic flows",
    source="Openswan issue 32; libreswan issue 268",
    defence=(
        "oegw/intercept/ruleset.py _guard",
        "oegw/intercept/ruleset.py _guard_behind_nat",
    ),
    otherwise="protected traffic leaves in the clear (there are two guards; both taken out)",
    without=replaced(
        ("oegw.intercept.ruleset._guard", _no_guard),
        ("oegw.intercept.ruleset._guard_behind_nat", lambda settings, **_: ""),
    ),
    marks=("netns",),
)
def no_process_and_wrong_verdicts() -> None:
    with Net() as net:
        test_crash.test_the_guard_outlives_the_process_and_the_rest_does_not(net)
    with Net() as net:
        test_interception.test_the_guard_holds_even_against_a_clear_verdict(net)

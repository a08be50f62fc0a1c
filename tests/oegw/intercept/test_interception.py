"""Interception with real packets between three namespaces."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from oegw.commands import Verdict
from oegw.intercept.interface import InterceptError, Marks
from policy.rule import Category, PortRange, Rule, Scope
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    ON_LINK,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Gateway,
    Net,
    gateway,
    wait_for,
)
from tests.support.intercept_policy import configured_rule, policy, protected_rule

pytestmark = pytest.mark.netns

MARKS = Marks(SETTINGS.mark_mask)


@pytest.fixture
def net():
    with Net() as net:
        yield net


@pytest.fixture
def gate(net):
    with gateway(net, policy()) as gate:
        yield gate


def pair(source: str, destination: str, **more) -> Scope:
    return Scope(ip_network(source), ip_network(destination), **more)


def install(gate: Gateway, scope: Scope, verdict: Verdict, lifespan=None, inbound=False) -> None:
    gate.call(gate.interception.install_policy, scope, verdict, lifespan, inbound)


def release(gate: Gateway, verdict: Verdict, *numbers: int) -> None:
    gate.call(gate.interception.release, numbers, verdict)


@pytest.mark.parametrize(("source", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_an_unknown_packet_waits_and_is_released_once(net, gate, source, peer):
    host = net.udp(net.inside, source, 4000)
    there = net.udp(net.outside, peer, 9999)
    host.send("hello", peer)
    [(flow, number, size)] = gate.await_trapped()
    assert (flow.source, flow.destination) == (ip_address(source), ip_address(peer))
    assert (flow.protocol, flow.source_port, flow.destination_port) == (17, 4000, 9999)
    assert size == (28 if "." in peer else 48) + len("hello")
    assert there.receive(0.2) == []
    release(gate, Verdict.CLEAR, number)
    assert there.receive(2) == ["hello"]
    release(gate, Verdict.CLEAR, number)  # it is gone: nothing happens
    assert there.receive(0.1) == []
    assert gate.counters["trapped"] == 1


def test_held_packets_leave_in_the_order_of_the_release(net, gate):
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    for word in "abcdef":
        host.send(word, PEER)
    numbers = [number for _, number, _ in gate.await_trapped(6)]
    release(gate, Verdict.CLEAR, *reversed(numbers))
    assert wait_for(lambda: there.receive(1)) == list("fedcba")


def test_discard_drops(net, gate):
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    host.send("a", PEER)
    host.send("b", PEER)
    (_, first, _), (_, second, _) = gate.await_trapped(2)
    gate.call(gate.interception.discard, (first,))
    release(gate, Verdict.DENY, second)
    assert there.receive(0.2) == []
    assert gate.counters["held"] == 0


def test_a_clear_verdict_keeps_packets_out_of_python(net, gate):
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR, 60)
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    for word in "abc":
        host.send(word, PEER)
    assert wait_for(lambda: there.receive(1)) == list("abc")
    assert gate.trapped == []
    assert gate.counters["trapped"] == 0


def test_deny_drops_and_counts(net, gate):
    install(gate, pair(INSIDE, PEER), Verdict.DENY, 60)
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    host.send("a", PEER)
    assert there.receive(0.2) == []
    assert gate.trapped == []
    assert gate.counters["denied"] == 1


def test_a_tunnel_verdict_routes_into_the_tunnel_device(net, gate):
    tap, wire = net.capture(net.gateway, "tap0"), net.capture(net.outside, "out0")
    host = net.udp(net.inside, INSIDE)
    install(gate, pair(INSIDE, PEER), Verdict.TUNNEL)
    host.send("secret", PEER)
    wait_for(lambda: tap.to(PEER))
    host.send("first", OTHER_PEER)  # and so does a released packet
    [(_, number, _)] = gate.await_trapped()
    release(gate, Verdict.TUNNEL, number)
    wait_for(lambda: tap.to(OTHER_PEER))
    assert wire.to(PEER) == wire.to(OTHER_PEER) == []


def test_the_gateways_own_released_packet_is_routed_again(net, gate):
    tap, wire = net.capture(net.gateway, "tap0"), net.capture(net.outside, "out0")
    own = net.udp(net.gateway, "10.2.0.1")
    own.send("a", PEER)
    [(_, number, _)] = gate.await_trapped()
    release(gate, Verdict.TUNNEL, number)
    wait_for(lambda: tap.to(PEER))
    install(gate, pair("10.2.0.1", PEER), Verdict.TUNNEL)
    own.send("b", PEER)
    wait_for(lambda: len(tap.to(PEER)) == 2)
    assert wire.to(PEER) == []


def test_a_verdict_ends_with_its_lifespan(net, gate):
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR, 0.3)
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    host.send("a", PEER)
    assert there.receive(2) == ["a"]
    wait_for(lambda: host.send("b", PEER) and time.sleep(0.02) is None and gate.trapped)


def test_an_expired_verdict_can_be_installed_anew(net, gate):
    scope = pair(INSIDE, PEER)
    install(gate, scope, Verdict.CLEAR, 0.05)
    time.sleep(0.2)
    install(gate, scope, Verdict.DENY, 60)
    net.udp(net.inside, INSIDE).send("a", PEER)
    wait_for(lambda: gate.counters["denied"] == 1)


def test_a_verdict_that_is_long_over_is_forgotten_without_the_kernel(net, gate, monkeypatch):
    over, alive = pair(INSIDE, PEER), pair(INSIDE, OTHER_PEER)
    install(gate, over, Verdict.CLEAR, 5)
    install(gate, alive, Verdict.CLEAR, 60)
    ran: list[str] = []
    monkeypatch.setattr(gate.interception, "_clock", lambda: time.monotonic() + 10)
    monkeypatch.setattr(gate.interception._leaving, "_run", ran.append)
    gate.call(gate.interception.remove_policy, over)
    assert ran == []
    gate.call(gate.interception.remove_policy, alive)
    assert len(ran) == 1
    assert not gate.interception._installed


def test_what_leaves_in_clear_is_counted_with_its_octets(net, gate):
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR)
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    before = gate.counters
    host.send("abcd", PEER)
    assert there.receive(2) == ["abcd"]
    after = gate.counters
    assert after["clear_outbound"] - before["clear_outbound"] == 1
    octets = after["clear_outbound_octets"] - before.get("clear_outbound_octets", 0)
    assert octets == 20 + 8 + 4


def test_a_verdict_replaces_another_and_is_forgotten(net, gate):
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    scope = pair(INSIDE, PEER)
    install(gate, scope, Verdict.DENY, 60, inbound=True)
    install(gate, scope, Verdict.CLEAR)
    host.send("a", PEER)
    assert there.receive(2) == ["a"]
    gate.call(gate.interception.remove_policy, scope)
    gate.call(gate.interception.remove_policy, scope)
    host.send("b", PEER)
    assert gate.await_trapped()[0][0].destination == ip_address(PEER)


@pytest.mark.parametrize(
    ("scope", "caught", "trapped"),
    [
        (pair("10.1.0.0/24", "10.9.0.0/24"), 9999, None),
        (pair("10.1.0.0/24", "10.9.0.0/24", protocol=17), 9999, None),
        (pair(INSIDE, PEER, protocol=6), None, 9999),
        (pair(INSIDE, PEER, protocol=17, destination_ports=PortRange(9000, 9999)), 9999, 8999),
        (pair(INSIDE, PEER, destination_ports=PortRange(9999, 9999)), 9999, 9998),
        (pair(INSIDE, PEER, protocol=17, source_ports=PortRange(1, 2)), None, 9999),
    ],
)
def test_verdicts_hold_for_their_scope_only(net, gate, scope, caught, trapped):
    host = net.udp(net.inside, INSIDE, 4000)
    install(gate, scope, Verdict.DENY, 60)
    if caught is not None:
        host.send("a", PEER, caught)
        wait_for(lambda: gate.counters["denied"] == 1)
        assert gate.trapped == []
    if trapped is not None:
        host.send("b", PEER, trapped)
        assert gate.await_trapped()[0][0].destination_port == trapped
    gate.call(gate.interception.remove_policy, scope)
    host.send("c", PEER, caught or 9999)
    gate.await_trapped(2 if trapped else 1)


def test_a_full_map_is_counted_and_not_fatal(net, gate):
    for number in range(4097):
        scope = pair(f"10.{number >> 8}.{number & 255}.0/24", "10.9.0.0/24")
        install(gate, scope, Verdict.CLEAR, 60)
    assert gate.counters["verdict_not_cached"] == 1
    assert gate.trace.counters["intercept.verdict_not_cached"] == 1


def test_own_traffic_is_exempt_and_others_is_not(net, gate):
    there = net.udp(net.outside, PEER, 9999)
    net.udp(net.gateway, "10.2.0.1", mark=MARKS.own).send("ike", PEER)
    assert there.receive(2) == ["ike"]
    net.udp(net.gateway, "10.2.0.1", mark=0x4).send("app", PEER)
    [(flow, number, _)] = gate.await_trapped()
    assert flow.source == ip_address("10.2.0.1")
    release(gate, Verdict.CLEAR, number)
    assert there.receive(2) == ["app"]


def test_neighbours_are_not_trapped(net, gate):
    net.run(net.gateway, "ip", "neigh", "flush", "all")
    for address in (ON_LINK, "fd00:2::2"):
        assert net.answers(net.inside, address, "4")
        assert net.answers(net.gateway, address, "4")
    assert net.answers(net.gateway, INSIDE, "4")
    assert gate.trapped == []


def test_neighbour_discovery_of_a_configured_neighbour_works(net):
    with gateway(net, policy(configured_rule("fd00:2::2/128", override=True))) as gate:
        net.run(net.gateway, "ip", "-6", "neigh", "flush", "all")
        net.udp(net.gateway, "fd00:2::1", mark=MARKS.own).send("ike", "fd00:2::2", 500)
        there = net.udp(net.outside, "fd00:2::2", 501)
        wait_for(
            lambda: (
                net.udp(net.gateway, "fd00:2::1", mark=MARKS.own).send("x", "fd00:2::2", 501)
                and there.receive(0.2)
            )
        )
        assert gate.trapped == []


def test_a_resolver_on_the_box_is_exempt_if_it_is_configured(net):
    resolver_there = net.udp(net.outside, PEER, 53)
    with gateway(net, policy(protected_rule("10.9.0.0/24"))) as gate:
        net.udp(net.gateway, "10.2.0.1").send("question", PEER, 53)
        gate.await_trapped()
        assert resolver_there.receive() == []
    with gateway(
        net, policy(configured_rule("10.9.0.0/24")), replace(SETTINGS, local_resolver=True)
    ) as gate:
        resolver_here = net.udp(net.gateway, "10.2.0.1", 5353)
        resolver_here.send("question", PEER, 53)
        assert resolver_there.receive(2) == ["question"]
        resolver_there.send("answer", "10.2.0.1", 5353)
        assert resolver_here.receive(2) == ["answer"]
        assert gate.trapped == []
        net.udp(net.inside, INSIDE).send("not the box's", PEER, 53)  # is an inside host's
        gate.await_trapped()


def test_answers_of_a_configured_resolver_come_in(net):
    settings = replace(SETTINGS, resolvers=(ip_address(PEER),))
    with gateway(net, policy(configured_rule("10.9.0.0/24")), settings):
        asker = net.udp(net.gateway, "10.2.0.1", 5353)
        net.udp(net.outside, PEER, 53).send("answer", "10.2.0.1", 5353)
        net.udp(net.outside, OTHER_PEER, 53).send("forged", "10.2.0.1", 5353)
        assert asker.receive(2) == ["answer"]
        assert asker.receive(0.1) == []


def test_a_forged_clear_packet_for_a_configured_pair_is_dropped_and_counted(net):
    inside = net.udp(net.inside, INSIDE, 9999)
    with gateway(net, policy(configured_rule("10.9.0.2/32"))) as gate:
        net.udp(net.outside, PEER).send("forged", INSIDE)
        net.udp(net.outside, OTHER_PEER).send("welcome", INSIDE)
        assert inside.receive(2) == ["welcome"]
        assert gate.counters["clear_inbound_dropped"] == 1


@pytest.mark.parametrize(("source", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_a_keyed_pair_refuses_clear_packets_if_it_is_told_to(net, gate, source, peer):
    inside, there = net.udp(net.inside, source, 9999), net.udp(net.outside, peer)
    install(gate, pair(source, peer), Verdict.TUNNEL)
    there.send("welcome", source)
    assert inside.receive(2) == ["welcome"]
    install(gate, pair(source, peer), Verdict.TUNNEL, None, inbound=True)
    there.send("forged", source)
    wait_for(lambda: gate.counters["keyed_clear_inbound_dropped"] == 1)
    install(gate, pair(source, peer), Verdict.TUNNEL)
    there.send("again", source)
    assert inside.receive(2) == ["again"]


def test_ike_and_esp_come_in_from_a_configured_peer(net):
    ours = net.udp(net.gateway, "10.2.0.1", 500)
    with gateway(net, policy(configured_rule("10.9.0.0/24"))):
        net.udp(net.outside, PEER, 500).send("ike", "10.2.0.1", 500)
        assert ours.receive(2) == ["ike"]


def test_the_guard_holds_even_against_a_clear_verdict(net):
    wire = net.capture(net.outside, "out0")
    with gateway(net, policy(protected_rule(PEER), configured_rule(PEER6))) as gate:
        for source, peer in ((INSIDE, PEER), (INSIDE6, PEER6)):
            install(gate, pair(source, peer), Verdict.CLEAR)
            net.udp(net.inside, source).send("secret", peer)
        wait_for(lambda: gate.counters["guard_dropped"] == 2)
    assert wire.to(PEER) == wire.to(PEER6) == []


OTHERS = """
table ip others {
    chain before {
        type filter hook prerouting priority -300;
        meta mark set 0x8b3000f
    }
    chain after {
        type filter hook postrouting priority 300;
        meta mark 0x8b0000f accept
        oif out0 drop
    }
}
"""


def test_other_bits_of_the_mark_survive(net, gate):
    net.run(net.gateway, "nft", OTHERS)
    there = net.udp(net.outside, PEER, 9999)
    host = net.udp(net.inside, INSIDE)
    host.send("trapped", PEER)
    [(_, number, _)] = gate.await_trapped()
    release(gate, Verdict.CLEAR, number)
    assert there.receive(2) == ["trapped"]
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR)
    host.send("cached", PEER)
    assert there.receive(2) == ["cached"]


def test_mark_bits_are_configurable(net):
    settings = replace(SETTINGS, mark_mask=0xC0000000)
    with gateway(net, policy(), settings) as gate:
        there = net.udp(net.outside, PEER, 9999)
        net.udp(net.gateway, "10.2.0.1", mark=0xC0000000).send("own", PEER)
        assert there.receive(2) == ["own"]
        net.udp(net.inside, INSIDE).send("a", PEER)
        [(_, number, _)] = gate.await_trapped()
        release(gate, Verdict.CLEAR, number)
        assert there.receive(2) == ["a"]


def test_a_new_policy_keeps_tunnels_and_empties_the_rest(net, gate):
    tap, there = net.capture(net.gateway, "tap0"), net.udp(net.outside, OTHER_PEER, 9999)
    inside, host = net.udp(net.inside, INSIDE, 9999), net.udp(net.inside, INSIDE)
    install(gate, pair(INSIDE, PEER), Verdict.TUNNEL, 60, inbound=True)
    install(gate, pair(INSIDE, OTHER_PEER), Verdict.CLEAR)
    gate.wait(gate.interception.replace_policy(policy(configured_rule("10.9.0.0/24"))))
    host.send("a", PEER)
    wait_for(lambda: tap.to(PEER))
    host.send("b", OTHER_PEER)
    assert gate.await_trapped()[0][0].destination == ip_address(OTHER_PEER)
    net.udp(net.outside, OTHER_PEER).send("forged", INSIDE)
    net.udp(net.outside, PEER).send("forged", INSIDE)
    wait_for(lambda: gate.counters["clear_inbound_dropped"] == 1)
    assert gate.counters["keyed_clear_inbound_dropped"] == 1
    assert inside.receive() == there.receive() == []
    gate.wait(gate.interception.replace_policy(policy(Rule("all", Category.PERMIT))))


def test_a_big_datagram_of_the_gateways_own_is_trapped_once(net, gate):
    """The queue shows only its first part, and the kernel fragments it later."""
    there = net.udp(net.outside, PEER, 9999)
    net.udp(net.gateway, "10.2.0.1").send("x" * 20000, PEER)
    [(_, number, size)] = gate.await_trapped()
    assert size == 20028
    release(gate, Verdict.CLEAR, number)
    assert there.receive(2) == ["x" * 20000]


def test_a_packet_that_cannot_be_read_is_dropped_and_counted(net, gate):
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6);"
        "s.sendto(b'', ('10.9.0.2', 0))"
    )
    net.run(net.inside, "python3", "-c", code)
    wait_for(lambda: any(".drop." in name for name in gate.trace.counters))
    assert gate.trapped == []
    assert gate.counters["held"] == 0


def test_start_without_a_free_queue_changes_nothing(net, gate):
    before = _rules(net)
    second = Gateway(net.gateway, replace(SETTINGS, table="second"))
    with pytest.raises(InterceptError, match="4510"):
        second.start(policy())
    second.end()
    assert _rules(net) == before


def _rules(net: Net) -> tuple[str, str]:
    listing = net.run(net.gateway, "nft", "-s", "list", "ruleset")
    saved = net.run(net.gateway, "iptables-save", "-t", "mangle").splitlines()
    # Comments say the time of day.
    return listing, "\n".join(line for line in saved if not line.startswith("#"))


def test_a_burst_is_read_in_parts_and_none_is_lost(net, gate):
    host, there = net.udp(net.inside, INSIDE), net.udp(net.outside, PEER, 9999)
    for number in range(200):
        host.send(str(number), PEER)
    numbers = [number for _, number, _ in gate.await_trapped(200)]
    release(gate, Verdict.CLEAR, *numbers)
    came: list[str] = []
    wait_for(lambda: came.extend(there.receive(0.1)) or len(came) == 200)
    assert came == [str(number) for number in range(200)]


def test_a_full_queue_drops_and_counts(net):
    with gateway(net, policy(), replace(SETTINGS, queue_length=10)) as gate:
        host = net.udp(net.inside, INSIDE)
        for number in range(30):
            host.send(str(number), PEER)
        gate.await_trapped(10)
        assert gate.counters["held"] == 10
        assert gate.counters["queue_full_dropped"] == 20


def test_a_listener_that_fails_loses_its_own_packet_only(net, gate):
    gate.loop.set_exception_handler(lambda *_: None)
    listen = gate.trapped.append
    failed = []

    def fail_once(flow, packet, size):
        if not failed:
            failed.append(packet)
            raise ValueError("a fault of ours")
        listen((flow, packet, size))

    gate.call(setattr, gate.interception._queue, "_listener", fail_once)
    host = net.udp(net.inside, INSIDE)
    for number in range(3):
        host.send(str(number), PEER)
    gate.await_trapped(2)
    assert gate.counters["held"] == 2

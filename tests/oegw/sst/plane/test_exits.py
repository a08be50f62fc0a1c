"""What leaves: who wants it sealed, and what becomes of what can't be."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from oegw.sst.interface import PROBE_MAGIC, Leg, Reason, Way
from oegw.sst.settings import LanFlag, Request
from policy.rule import Category, PortRange, Rule, Sst
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    OTHER_PEER,
    PEER,
    PEER6,
    Net,
    wait_for,
    within,
)
from tests.support.intercept_policy import policy
from tests.support.sst_packets import ICMP, UDP, ipv4, ipv6, packed, udp
from tests.support.sst_plane import (
    MARKS,
    SETTINGS,
    SIGNAL,
    Link,
    deafen,
    entry_for,
    off,
    only,
    running,
    settings,
    sst_rule,
)

pytestmark = pytest.mark.netns

GATEWAY, GATEWAY6 = "10.2.0.1", "fd00:2::1"
OWN = SETTINGS.own_mark


@pytest.fixture
def net():
    with Net() as net:
        deafen(net, net.outside)
        yield net


@pytest.fixture
def wire(net):
    return net.capture(net.outside, "out0")


def ports(packet: bytes) -> tuple[int, int]:
    at = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    return struct.unpack_from("!HH", packet, at)


def left(wire, address: str, count: int = 1) -> list[bytes]:
    return wait_for(lambda: p if len(p := wire.to(address)) >= count else None)


def test_sst_14_only_the_socket_that_asked_is_sealed(net, wire):
    """The host's own traffic, by OUTPUT; the rule says off."""
    with running(net.gateway, off()) as gate:
        for own, peer in ((GATEWAY, PEER), (GATEWAY6, PEER6)):
            asking = net.udp(net.gateway, own, 4001, mark=MARKS.request)
            other = net.udp(net.gateway, own, 4002)
            asking.send("asked", peer)
            other.send("not", peer)
            packets = left(wire, peer, 2)
            flagged = {p[-3:]: SIGNAL.flagged(p) for p in packets}
            assert flagged == {b"ked": True, b"not": False}
            assert {ports(p) for p in packets if not SIGNAL.flagged(p)} == {(4002, 9999)}
            assert 4001 not in {ports(p)[0] for p in packets}
        assert [c.asked for c in gate.listener.caught] == [True, True]
        assert {c.leg for c in gate.listener.caught} == {Leg.OUTSIDE}


@pytest.mark.parametrize("point", ["forward", "output"])
def test_a_rule_of_others_that_sets_the_whole_mark_lets_nothing_out(net, wire, point):
    """It says of each packet that it is sealed already, if anybody believes it."""
    net.run(net.gateway, "nft", "add table inet other")
    hook = f"{{ type filter hook {point} priority -150; }}"
    net.run(net.gateway, "nft", f"add chain inet other marking {hook}")
    net.run(net.gateway, "nft", f"add rule inet other marking meta mark set {MARKS.done | 1:#x}")
    source = (net.inside, INSIDE) if point == "forward" else (net.gateway, GATEWAY)
    with running(net.gateway, only(required=True)):
        net.udp(*source, 4001).send("sealed", PEER)
        [packet] = left(wire, PEER)
        assert SIGNAL.flagged(packet)
        assert ports(packet) != (4001, 9999)


def test_a_socket_s_wish_is_nothing_where_the_configuration_says_so(net, wire):
    with running(net.gateway, off(), settings(requests=(Request.DSCP,))) as gate:
        net.udp(net.gateway, GATEWAY, 4001, mark=MARKS.request).send("asked", PEER)
        assert not SIGNAL.flagged(left(wire, PEER)[0])
        assert gate.listener.caught == []


def test_a_request_code_point_from_inside_is_heeded_and_cleared(net, wire):
    with running(net.gateway, off()) as gate:
        for source, peer in ((INSIDE, PEER), (INSIDE6, PEER6)):
            host = net.udp(net.inside, source, 4000)
            asked = SETTINGS.sst.request_dscp << 2 | 2  # and ECT(0) stays
            if ":" in source:
                host.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, asked)
            else:
                host.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, asked)
            host.send("please", peer)
            [packet] = left(wire, peer)
            assert SIGNAL.flagged(packet)
            assert (packet[1] if ":" not in source else packet[1] >> 4) & 3 == 2
        assert [c.asked for c in gate.listener.caught] == [True, True]
        assert gate.counters["requested"] == 2


def test_a_policy_by_ports_is_asked_with_real_ports(net, wire):
    wanted = sst_rule(protocol=UDP, destination_ports=PortRange(53, 53))
    with running(net.gateway, policy(wanted, default=Rule("rest", Category.PERMIT))) as gate:
        host = net.udp(net.inside, INSIDE, 4000)
        host.send("sealed", PEER, 53)
        host.send("clear", OTHER_PEER, 54)
        assert SIGNAL.flagged(left(wire, PEER)[0])
        [clear] = left(wire, OTHER_PEER)
        assert not SIGNAL.flagged(clear)
        assert ports(clear) == (4000, 54)
        assert len(gate.listener.caught) == 1


def test_inner_is_sealed_in_the_tunnel_device_and_only_outside(net, wire):
    inside_tunnel = net.capture(net.gateway, "tap0")
    net.run(net.gateway, "ip", "route", "add", OTHER_PEER, "dev", "oegw0")
    rules = policy(default=sst_rule(Sst.INNER))
    with running(net.gateway, rules) as gate:
        host = net.udp(net.inside, INSIDE, 4000)
        host.send("tunnelled", OTHER_PEER)
        host.send("clear", PEER)
        assert SIGNAL.flagged(left(inside_tunnel, OTHER_PEER)[0])
        assert not SIGNAL.flagged(left(wire, PEER)[0])
        [caught] = gate.listener.caught
        assert (caught.leg, caught.way) == (Leg.TUNNEL, Way.SEAL)


def test_required_is_dropped_without_an_entry_and_opportunistic_goes_on(net, wire):
    host = net.udp(net.inside, INSIDE, 4000)
    for required in (True, False):
        with running(net.gateway, only(required=required)) as gate:
            gate.listener.silent = True
            host.send("x", PEER)
            [caught] = gate.await_caught()
            assert wire.to(PEER) == []
            gate.call(gate.plane.release, caught.number)
            name = "required_dropped" if required else "seal_missed"
            wait_for(lambda name=name, gate=gate: gate.counters[name] == 1)
            assert len(wire.to(PEER)) == (0 if required else 1)


def test_a_dropped_packet_is_gone(net, wire):
    with running(net.gateway, only()) as gate:
        gate.listener.silent = True
        net.udp(net.inside, INSIDE, 4000).send("x", PEER)
        [caught] = gate.await_caught()
        gate.call(gate.plane.drop, caught.number)
        gate.call(gate.plane.release, caught.number)  # nothing happens
        assert gate.counters["held"] == 0
        assert wire.to(PEER) == []


def test_what_is_declined_goes_on_until_another_policy_comes(net, wire):
    with running(net.gateway, only()) as gate:
        gate.listener.declines = True
        host = net.udp(net.inside, INSIDE, 4000)
        for word in "abc":
            host.send(word, PEER)
        assert not any(SIGNAL.flagged(p) for p in left(wire, PEER, 3))
        seen = len(gate.listener.caught)
        assert seen < 3 or gate.counters["seal_missed"] == 0
        gate.listener.declines = False
        gate.wait(gate.plane.replace_policy(only(required=True)))
        host.send("d", PEER)
        assert SIGNAL.flagged(left(wire, PEER, 4)[-1])
        assert len(gate.listener.caught) == seen + 1


def test_entries_stay_with_another_policy_and_are_forgotten_on_demand(net, wire):
    with running(net.gateway, only()) as gate:
        host = net.udp(net.inside, INSIDE, 4000)
        host.send("a", PEER)
        left(wire, PEER)
        gate.wait(gate.plane.replace_policy(only(required=True)))
        host.send("b", PEER)
        left(wire, PEER, 2)
        assert len(gate.listener.caught) == 1
        gate.call(gate.plane.forget, Leg.OUTSIDE, ip_address(OTHER_PEER))
        assert gate.counters["flows"] == 1
        gate.call(gate.plane.forget, Leg.OUTSIDE, ip_address(PEER))
        assert gate.counters["flows"] == 0
        host.send("c", PEER)
        assert all(SIGNAL.flagged(p) for p in left(wire, PEER, 3))
        assert [c.sticky for c in gate.listener.caught] == [False, True]
        gate.call(gate.plane.forget, Leg.OUTSIDE)
        assert gate.counters["flows"] == 0


def test_full_maps_mean_the_slow_path(net, wire):
    with running(net.gateway, only(), settings(flows=16)) as gate:
        hosts = [net.udp(net.inside, INSIDE, 4000 + n) for n in range(20)]
        for host in hosts:
            host.send("x", PEER)
        packets = left(wire, PEER, 20)
        assert all(SIGNAL.flagged(p) for p in packets)
        counted = gate.counters
        assert (counted["flows"], counted["flows_full"]) == (16, 4)
        assert counted["sealed"] + counted["sealed_slowly"] == 20
        assert counted["sealed_slowly"] == 4
        # One that is there can be replaced all the same.
        entry = entry_for(gate.listener.caught[0], epoch=3)
        assert gate.call(gate.plane.enter, entry)
        gate.call(gate.plane.forget, Leg.OUTSIDE)
        assert gate.call(gate.plane.enter, entry_for(gate.listener.caught[-1]))


def test_an_entry_ends_with_its_lifespan_and_comes_back(net, wire):
    with running(net.gateway, only()) as gate:
        gate.listener.lifespan = 0.3
        gate.listener.epoch = 2
        host = net.udp(net.inside, INSIDE, 4000)
        host.send("a", PEER)
        [first] = left(wire, PEER)

        def again():
            host.send("b", PEER)
            return len(gate.listener.caught) == 2

        wait_for(again)
        assert all(ports(p) == ports(first) for p in wire.to(PEER))
        assert (gate.listener.caught[1].sticky, gate.listener.caught[1].epoch) == (True, 2)


# ---------------------------------------------------------------------- the gateway's own


def test_the_own_mark_is_never_sealed_unless_shielded(net, wire):
    here, there = ip_address(GATEWAY), ip_address(PEER)
    with running(net.gateway, only(required=True)) as gate:
        ike = net.udp(net.gateway, GATEWAY, 500, mark=OWN)
        dns = net.udp(net.gateway, GATEWAY, 5300, mark=OWN)
        ike.send("ike", PEER, 500)
        dns.send("dns", PEER, 53)
        assert [ports(p) for p in left(wire, PEER, 2)] == [(500, 500), (5300, 53)]
        gate.call(gate.plane.shield, here, there)
        gate.call(gate.plane.shield, here, there)  # twice is no error
        nat_t = net.udp(net.gateway, GATEWAY, 4500, mark=OWN)
        ike.send("ike", PEER, 500)
        nat_t.send("esp", PEER, 4500)
        dns.send("dns", PEER, 53)
        packets = left(wire, PEER, 5)[2:]
        assert [ports(p) for p in packets if not SIGNAL.flagged(p)] == [(5300, 53)]
        assert len(gate.listener.caught) == 2
        gate.call(gate.plane.unshield, here, there)
        gate.call(gate.plane.unshield, here, there)
        assert gate.counters["flows"] == 0
        gate.listener.declines = True
        ike.send("ike", PEER, 500)
        assert ports(left(wire, PEER, 6)[-1]) == (500, 500)


def test_between_shielded_gateways_nothing_leaves_unsealed_by_accident(net, wire):
    with running(net.gateway, off()) as gate:
        gate.call(gate.plane.shield, ip_address(GATEWAY), ip_address(PEER))
        gate.listener.silent = True
        net.udp(net.gateway, GATEWAY, 500, mark=OWN).send("ike", PEER, 500)
        [caught] = gate.await_caught()
        gate.call(gate.plane.release, caught.number)
        wait_for(lambda: gate.counters["shield_missed_dropped"] == 1)
        assert wire.to(PEER) == []


def raw(net: Net, packet: bytes, address: str, mark: int = 0) -> None:
    """Sent by the gateway itself, as it is."""

    def send() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
            out.sendto(packet, (address, 0))

    within(net.gateway, send)


def test_sst_17_native_flags_of_the_gateway_itself_are_cleared_at_the_exit(net, wire):
    here, there = packed(GATEWAY), packed(PEER)
    here6, there6 = packed(GATEWAY6), packed(PEER6)
    flag6 = SETTINGS.sst.dscp << 2

    def flagged6(protocol: int, payload: bytes) -> bytes:
        return ipv6(here6, there6, protocol, payload, traffic_class=flag6 | 1)

    datagram, datagram6 = udp(here, there, 7, 9, b"x"), udp(here6, there6, 7, 9, b"x")
    probe = udp(here, there, 7, 9, PROBE_MAGIC + b"x")
    with running(net.gateway, off()) as gate:
        raw(net, ipv4(here, there, UDP, datagram, field=0x8000), PEER)
        raw(net, ipv4(here, there, ICMP, b"\x08\0\xf7\xff\0\0\0\0", field=0x8000), PEER)
        raw(net, flagged6(UDP, datagram6), PEER6)
        raw(net, flagged6(UDP, datagram6), PEER6, OWN)  # ESP in UDP, with what ESP copied
        found = [*left(wire, PEER, 2), *left(wire, PEER6, 2)]
        assert not any(SIGNAL.flagged(p) for p in found)
        assert {p[1] >> 4 & 3 for p in found[2:]} == {1}  # ECN stays
        assert gate.counters["native_flag_cleared"] == 4
        # ESP has no ports, so its code point is no flag; and a probe has one on purpose.
        raw(net, flagged6(50, bytes(32)), PEER6, OWN)
        raw(net, ipv4(here, there, UDP, probe, field=0x8000), PEER, OWN)
        assert SIGNAL.flagged(left(wire, PEER6, 3)[-1])
        assert SIGNAL.flagged(left(wire, PEER, 3)[-1])
        assert gate.listener.caught == []


@pytest.mark.parametrize("lan_flag", list(LanFlag))
def test_sst_17_a_flag_from_inside_is_never_taken_for_ours(net, wire, lan_flag):
    with running(net.gateway, off(), settings(lan_flag=lan_flag)) as gate:
        link = Link(net, net.inside, "in0", net.gateway)
        here, there = packed(INSIDE), packed(PEER)
        here6, there6 = packed(INSIDE6), packed(PEER6)
        ping = b"\x08\0\xf7\xff\0\0\0\0"
        link.put(
            ipv4(here, there, ICMP, ping, field=0x8000),
            ipv4(here, there, UDP, udp(here, there, 7, 9, b"x"), field=0x8000),
            ipv6(
                here6, there6, UDP, udp(here6, there6, 7, 9, b"x"),
                traffic_class=SETTINGS.sst.dscp << 2 | 2,
            ),
        )  # fmt: skip
        if lan_flag is LanFlag.DROP:
            wait_for(lambda: gate.counters["lan_flag_dropped"] == 3)
            assert wire.to(PEER) == wire.to(PEER6) == []
            return
        asked = lan_flag is LanFlag.REQUEST
        ping_, datagram = left(wire, PEER, 2)
        [datagram6] = left(wire, PEER6)
        assert not SIGNAL.flagged(ping_)
        assert (SIGNAL.flagged(datagram), SIGNAL.flagged(datagram6)) == (asked, asked)
        assert (ports(datagram) == (7, 9)) is not asked
        assert gate.counters["lan_flag_cleared"] == 3
        assert [(c.asked, c.way, c.reason) for c in gate.listener.caught] == (
            [(True, Way.SEAL, Reason.UNKNOWN_FLOW)] * 2 if asked else []
        )


def test_the_queue_is_never_bypassed(net, wire):
    """Nobody reads: what is wanted stays, and is dropped."""
    with running(net.gateway, only()) as gate:
        for queue in gate.plane._queues.both:
            gate.loop.call_soon_threadsafe(gate.loop.remove_reader, queue.fileno())
        hosts = [net.udp(net.inside, INSIDE, 4000 + n) for n in range(3)]
        for host in hosts:
            host.send("x", PEER)
        wait_for(lambda: gate.counters["seal_caught"] == 3)
    assert wire.to(PEER) == []

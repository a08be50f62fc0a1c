"""Packets that are too large, that were in pieces, and that are many in one."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading

import pytest

from oegw.sst.interface import Reason, Way
from oegw.sst.settings import Fragments
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for, within
from tests.support.sst_packets import faults
from tests.support.sst_plane import (
    SIGNAL,
    both,
    invalid,
    off,
    only,
    running,
    settings,
    watch_invalid,
)

pytestmark = pytest.mark.netns

NO_DF = 0  # IP_PMTUDISC_DONT
IP_MTU_DISCOVER = 10
UDP_SEGMENT = 103


@pytest.fixture
def net():
    with Net() as net:
        yield net


def transferred(net: Net, peer: str, octets: bytes) -> bytes:
    """What arrives of a TCP stream from inside to outside."""
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    listening = within(net.outside, lambda: socket.create_server((peer, 22), family=family))
    sending = within(net.inside, lambda: socket.socket(family, socket.SOCK_STREAM))
    listening.settimeout(20)
    sending.settimeout(20)
    sending.connect((peer, 22))
    connection, _ = listening.accept()
    connection.settimeout(20)
    came = []

    def receive() -> None:
        while part := connection.recv(1 << 20):
            came.append(part)

    receiver = threading.Thread(target=receive)
    receiver.start()
    sending.sendall(octets)
    sending.close()
    receiver.join()
    connection.close()
    listening.close()
    return b"".join(came)


@pytest.mark.parametrize("peer", [PEER, PEER6])
def test_sst_23_packets_of_64_kb_go_through_whole(net, peer):
    """TCP in segments of many packets (TSO), with checksums that the device was to compute."""
    octets = os.urandom(8 << 20)
    wire = net.capture(net.outside, "out0")
    watch_invalid(net, net.gateway)
    watch_invalid(net, net.outside)
    with both(net) as (near, far):
        came = transferred(net, peer, octets)
        assert hashlib.sha256(came).digest() == hashlib.sha256(octets).digest()
        assert len(near.listener.caught) == len(far.listener.caught) == 1
        packets = wire.to(peer)
        assert max(map(len, packets)) > 10_000
        assert all(SIGNAL.flagged(p) for p in packets)
        at = 20 if "." in peer else 40
        assert len({p[at : at + 4] for p in packets}) == 1
        assert struct.pack("!H", 22) not in {p[at + 2 : at + 4] for p in packets}
        assert near.counters["sealed"] >= len(packets) - 1
    assert invalid(net, net.gateway) == invalid(net, net.outside) == 0


def test_a_burst_of_udp_in_one_packet_is_sealed_piece_by_piece(net):
    """What the device segments looks too long, and is not (UDP_SEGMENT, without DF)."""
    wire = net.capture(net.outside, "out0")
    with running(net.gateway, only()) as gate:
        own = net.udp(net.gateway, "10.2.0.1", 4000)
        there = net.udp(net.outside, PEER, 53)
        own.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, NO_DF)
        own.send("first", PEER, 53)
        wait_for(lambda: wire.to(PEER))
        own.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        own.socket.sendto(bytes(5000), (PEER, 53))
        packets = wait_for(lambda: p if len(p := wire.to(PEER)) >= 6 else None)
        assert all(SIGNAL.flagged(p) for p in packets)
        assert {len(p) for p in packets[1:]} == {1028}
        sealed = [c.reason for c in gate.listener.caught if c.way is Way.SEAL]
        assert set(sealed) == {Reason.UNKNOWN_FLOW}
    assert there


@pytest.mark.parametrize(
    ("policy", "required", "fate"),
    [
        (Fragments.STRENGTH, False, "fragments_clear"),
        (Fragments.STRENGTH, True, "required_dropped"),
        (Fragments.DROP, False, "fragments_dropped"),
        (Fragments.CLEAR, True, "fragments_clear"),
    ],
)
def test_sst_21_ipv4_packets_that_must_be_fragments_obey_the_policy(net, policy, required, fate):
    wire = net.capture(net.outside, "out0")
    there = net.udp(net.outside, PEER, 53)
    with running(net.gateway, only(required=required), settings(fragments=policy)) as gate:
        for namespace, own in ((net.inside, INSIDE), (net.gateway, "10.2.0.1")):
            sender = net.udp(namespace, own, 4000)
            sender.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, NO_DF)
            try:
                sender.socket.sendto(bytes(3000), (PEER, 53))
            except PermissionError:
                assert fate.endswith("dropped")
        wait_for(lambda: gate.counters[fate] == 2)
        assert [(c.way, c.reason) for c in gate.listener.caught] == [
            (Way.SEAL, Reason.FRAGMENT)
        ] * 2
        if fate == "fragments_clear":
            wait_for(lambda: len(wire.to(PEER)) == 6)
            assert not any(SIGNAL.flagged(p) for p in wire.to(PEER))
        else:
            assert wire.to(PEER) == []
    assert there


@pytest.mark.parametrize("required", [True, False])
def test_sst_21_unfragmented_packets_carry_df_and_senders_hear_of_a_narrow_path(net, required):
    """A middle router with a small MTU; SST never gets fragmented, TCP adapts."""
    net.run(net.gateway, "ip", "link", "set", "out0", "mtu", "1400")
    wire = net.capture(net.outside, "out0")
    with both(net, only(required=required)) as (near, _):
        octets = os.urandom(1 << 20)
        net.run(net.inside, "sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1")
        assert transferred(net, PEER, octets) == octets
        packets = wire.to(PEER)
        assert all(struct.unpack_from("!H", p, 6)[0] & 0xFFFF == 0xC000 for p in packets)
        assert near.counters["sealed"] >= len(packets) - 1


def test_sst_21_ipv6_needs_no_special_case(net):
    """A host that fragments itself: the first fragment has the ports, all have the code point."""
    wire = net.capture(net.outside, "out0")
    with both(net) as (near, far):
        here, there = net.udp(net.inside, INSIDE6, 4000), net.udp(net.outside, PEER6, 53)
        for number in range(2):
            here.send(f"{number}" * 3000, PEER6, 53)
            assert there.receive(2) == [f"{number}" * 3000]
        packets = [p for p in wire.to(PEER6) if p[6] == 44]
        assert len(packets) == 6
        assert all(SIGNAL.flagged(p) for p in packets)
        assert struct.pack("!HH", 4000, 53) not in packets[0]
        assert near.listener.faults == far.listener.faults == []


@pytest.mark.parametrize("by_listener", [False, True], ids=["by its entry", "by the listener"])
@pytest.mark.parametrize("by_router", [False, True], ids=["whole until here", "fragments before"])
def test_sst_21_fragments_may_be_tried(net, by_router, by_listener):
    """Sealed as a whole, fragmented by the kernel, flagged at the device; put together far away."""
    wire = net.capture(net.outside, "out0")
    with (
        running(net.gateway, only(), settings(fragments=Fragments.TRY)) as near,
        running(net.outside, off()) as far,
    ):
        near.listener.rewrites, near.listener.enters_fragments = by_listener, not by_listener
        namespace, own = (net.inside, INSIDE) if by_router else (net.gateway, "10.2.0.1")
        sender, there = net.udp(namespace, own, 4000), net.udp(net.outside, PEER, 53)
        sender.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, NO_DF)
        for letter in "ab":
            sender.send(letter * 3000, PEER, 53)
            assert there.receive(2) == [letter * 3000]
        packets = wire.to(PEER)
        assert len(packets) == 6
        assert all(SIGNAL.flagged(p) for p in packets)
        assert all(faults(p) == [] for p in packets)
        assert struct.pack("!HH", 4000, 53) not in {p[20:24] for p in packets}
        assert near.listener.faults == far.listener.faults == []
    assert "netdev" not in net.run(net.gateway, "nft", "list", "tables")

"""What arrives sealed: who sees it when, and what is known of it afterwards."""

from __future__ import annotations

import random
import select
import struct

import pytest

from oegw.sst.interface import PROBE_MAGIC, Leg, Reason, Way
from oegw.sst.packet import seal
from policy.rule import Sst
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for
from tests.support.intercept_policy import policy
from tests.support.sst_packets import (
    UDP,
    faults,
    fragments,
    icmp_error,
    ipv4,
    ipv6,
    packed,
    udp,
)
from tests.support.sst_plane import (
    KEY,
    SETTINGS,
    SIGNAL,
    Link,
    both,
    invalid,
    off,
    only,
    running,
    sst_rule,
    watch_invalid,
)

pytestmark = pytest.mark.netns

GATEWAY, GATEWAY6 = "10.2.0.1", "fd00:2::1"


@pytest.fixture
def net():
    with Net() as net:
        yield net


@pytest.fixture
def wire(net):
    return net.capture(net.outside, "out0")


def sealed_datagram(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    return seal(datagram(source, destination, ports, payload), KEY, SIGNAL)


def datagram(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    ends = packed(source), packed(destination)
    make = ipv6 if ":" in source else ipv4
    return make(*ends, UDP, udp(*ends, *ports, payload))


@pytest.mark.parametrize(("host", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_sst_18_answers_are_sealed_though_the_policy_does_not_ask(net, wire, host, peer):
    watch_invalid(net, net.outside)
    watch_invalid(net, net.gateway)
    with both(net) as (near, far):
        here, there = net.udp(net.inside, host, 4000), net.udp(net.outside, peer, 53)
        here.send("question", peer, 53)
        assert there.receive(2) == ["question"]
        there.send("answer", host, 4000)
        assert here.receive(2) == ["answer"]
        assert all(SIGNAL.flagged(p) for p in (*wire.to(host), *wire.to(peer)) if p[6] != 58)
        assert len(near.listener.caught) == len(far.listener.caught) == 1
        [caught] = far.listener.caught
        assert (caught.way, caught.leg, caught.flagged) == (Way.OPEN, Leg.OUTSIDE, True)
    assert invalid(net, net.outside) == invalid(net, net.gateway) == 0


def test_sst_15_a_plane_that_starts_anew_goes_on_with_the_epoch_of_the_connection(net, wire):
    """Entries are gone, connections stay: single packets are opened, and answers are sealed."""
    with running(net.gateway, only()) as near:
        near.listener.epoch = 1
        here, there = net.udp(net.inside, INSIDE, 4000), net.udp(net.outside, PEER, 53)
        with running(net.outside, off()) as far:
            far.listener.epoch = 3
            here.send("question", PEER, 53)
            assert there.receive(2) == ["question"]
        with running(net.outside, off()) as far:  # and the first packet is an answer
            there.send("answer", INSIDE, 4000)
            assert here.receive(2) == ["answer"]
            [caught] = far.listener.caught
            assert (caught.way, caught.sticky, caught.epoch) == (Way.SEAL, True, 3)
        with running(net.outside, off()) as far:  # and the first packet is a question
            here.send("more", PEER, 53)
            assert there.receive(2) == ["more"]
            assert [c.way for c in far.listener.caught] == [Way.OPEN]
        assert all(SIGNAL.flagged(p) for p in wire.to(INSIDE))


def test_the_slow_path_makes_connections_sticky_as_well(net, wire):
    with running(net.gateway, only()) as near:
        near.listener.rewrites = True
        here, there = net.udp(net.inside, INSIDE, 4000), net.udp(net.outside, PEER, 53)
        with running(net.outside, off()) as far:
            far.listener.rewrites = True
            far.listener.epoch = 2
            for word in ("one", "two"):
                here.send(word, PEER, 53)
                assert there.receive(2) == [word]
                there.send(word, INSIDE, 4000)
                assert here.receive(2) == [word]
            assert [(c.way, c.epoch) for c in far.listener.caught] == [
                (Way.OPEN, None), (Way.SEAL, 2)
            ] * 2  # fmt: skip
            assert far.counters["opened_slowly"] == far.counters["sealed_slowly"] == 2


def test_sst_13_the_firewall_sees_real_ports_only(net):
    with both(net):
        for chain, hook in (("input", "input"), ("forward", "forward")):
            where = net.outside if chain == "input" else net.gateway
            net.run(where, "nft", "add table inet fw")
            base = f"{{ type filter hook {hook} priority 0; }}"
            net.run(where, "nft", f"add chain inet fw {chain} {base}")
            net.run(where, "nft", f"add rule inet fw {chain} udp dport 53 accept")
            net.run(where, "nft", f"add rule inet fw {chain} ct state established accept")
            net.run(where, "nft", f"add rule inet fw {chain} meta l4proto udp drop")
        here, there = net.udp(net.inside, INSIDE, 4000), net.udp(net.outside, PEER, 53)
        here.send("question", PEER, 53)
        assert there.receive(2) == ["question"]
        there.send("answer", INSIDE, 4000)
        assert here.receive(2) == ["answer"]


def test_sst_16_what_is_released_without_an_entry_goes_on_as_it_is(net):
    with running(net.gateway, off()) as gate:
        gate.listener.silent = True
        packet = sealed_datagram(PEER, INSIDE, (53, 4000), b"stranger")
        capture = net.capture(net.inside, "in0")
        Link(net, net.outside, "out0", net.gateway).put(packet, packet)
        first, second = gate.await_caught(2)
        assert first.packet == packet
        assert (first.way, first.flagged, first.reason) == (Way.OPEN, True, Reason.UNKNOWN_FLOW)
        gate.call(gate.plane.drop, first.number)
        gate.call(gate.plane.release, second.number)
        [passed] = wait_for(lambda: capture.to(INSIDE))
        assert SIGNAL.flagged(passed)
        assert passed[20:] == packet[20:]
        assert gate.counters["open_missed"] == 1


@pytest.mark.parametrize("address", [GATEWAY, GATEWAY6])
def test_a_probe_is_handed_up_flagged_or_not_if_it_is_for_this_box(net, address):
    peer, host = ("10.2.0.2", INSIDE) if "." in address else ("fd00:2::2", INSIDE6)
    with running(net.gateway, off()) as gate:
        link = Link(net, net.outside, "out0", net.gateway)
        probe = PROBE_MAGIC + b"whatever"
        link.put(
            datagram(peer, address, (40000, 7), probe),
            sealed_datagram(peer, address, (40000, 7), probe),
            datagram(peer, host, (40000, 7), probe),  # for another host: a packet like others
            datagram(peer, address, (40000, 7), PROBE_MAGIC[:7]),
        )
        caught = gate.await_caught(2)
        assert [(c.reason, c.way, c.flagged) for c in caught] == [
            (Reason.PROBE, Way.OPEN, False),
            (Reason.PROBE, Way.OPEN, True),
        ]
        assert gate.counters["open_caught"] == 2


@pytest.mark.parametrize(("host", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_errors_from_outside_about_sealed_packets_reach_the_socket(net, wire, host, peer):
    """SST-19; the far host has no plane, and quotes what it got."""
    watch_invalid(net, net.gateway)
    with running(net.gateway, only()) as gate:
        here = net.udp(net.inside, host, 4000)
        here.socket.connect((peer, 9))
        here.socket.send(b"knock")
        wait_for(lambda: refused(here))
        quotes = [c for c in gate.listener.caught if c.reason is Reason.QUOTE]
        assert {c.way for c in quotes} == {Way.OPEN}
        assert invalid(net, net.gateway) == 0
    errors = [p for p in wire.to(host) if p[9 if "." in host else 6] in (1, 58)]
    assert errors
    assert b"\x0f\xa0\x00\x09" not in errors[0]


def refused(udp_socket) -> bool:
    """Whether an ICMP error has come, which the kernel reports at the next call."""
    try:
        udp_socket.socket.send(b"again")
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(("host", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_sst_20_errors_about_opened_packets_are_sealed_on_their_way_back(net, wire, host, peer):
    watch_invalid(net, net.outside)
    with both(net) as (near, far):
        here = net.udp(net.inside, host, 4000)
        here.socket.connect((peer, 9))
        here.socket.send(b"knock")
        wait_for(lambda: refused(here))
        quotes = [c for c in far.listener.caught if c.reason is Reason.QUOTE]
        assert quotes[0].way is Way.SEAL
        assert quotes[0].sticky
        assert near.listener.faults == far.listener.faults == []
    errors = [p for p in wire.to(host) if p[9 if "." in host else 6] in (1, 58) and len(p) > 60]
    for error in errors:
        assert struct.pack("!HH", 4000, 9) not in error  # no real port on the wire
        assert faults(error) == []
    assert invalid(net, net.outside) == 0


@pytest.mark.parametrize(("host", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])
def test_sst_20_errors_about_flows_that_nobody_knows_are_asked_about(net, wire, host, peer):
    """Their connection may have ended meanwhile, and with it what said that it was opened."""
    with running(net.gateway, off()) as gate:
        kind = (1, 4) if ":" in host else (3, 3)
        link = Link(net, net.inside, "in0", net.gateway)
        link.put(icmp_error(datagram(peer, host, (40000, 53), b"?"), packed(host), *kind))
        [caught] = gate.await_caught()
        assert (caught.reason, caught.way, caught.sticky) == (Reason.QUOTE, Way.SEAL, False)
        error = wait_for(lambda: [p for p in wire.to(peer) if packed(host) in p])[-1]
        assert struct.pack("!HH", 40000, 53) not in error


@pytest.mark.parametrize("version", [4, 6])
def test_errors_of_this_box_about_packets_that_it_has_sealed_are_opened(net, version):
    """Behind the exit, the device finds one too large: its error goes back inside."""
    host, peer = (INSIDE, PEER) if version == 4 else (INSIDE6, PEER6)
    net.run(net.gateway, "ip", "link", "set", "oegw0", "mtu", "1400")
    route = ["ip", "route", "add", f"{peer}/{32 if version == 4 else 128}", "dev", "oegw0"]
    net.run(net.gateway, *route)
    with running(net.gateway, policy(default=sst_rule(Sst.INNER))) as gate:
        link = Link(net, net.inside, "in0", net.gateway)
        capture = net.capture(net.inside, "in0")
        packet = datagram(host, peer, (4000, 53), bytes(100))
        link.put(packet)
        [caught] = gate.await_caught()
        assert caught.leg is Leg.TUNNEL
        sealed = seal(packet, KEY, SIGNAL)
        router = packed("10.1.0.1" if version == 4 else "fd00:1::1")
        kind = (3, 4) if version == 4 else (2, 0)
        error = icmp_error(sealed, router, *kind, rest=1280)
        from tests.oegw.sst.plane.test_exits import raw

        raw(net, error, host)
        quoted = wait_for(lambda: [p for p in capture.to(host) if len(p) > 60])[0]
        assert struct.pack("!HH", 4000, 53) in quoted
        assert faults(quoted) == []
        last = gate.listener.caught[-1]
        assert (last.reason, last.way, last.leg) == (Reason.QUOTE, Way.OPEN, Leg.TUNNEL)


# ---------------------------------------------------------------------------- fragments


def untracked(net: Net, namespace: str) -> None:
    """Nobody puts fragments together before our place."""
    net.run(namespace, "nft", "add table inet raw0")
    chain = "{ type filter hook prerouting priority -500; }"
    net.run(namespace, "nft", f"add chain inet raw0 first {chain}")
    net.run(namespace, "nft", "add rule inet raw0 first notrack")


@pytest.mark.parametrize("version", [4, 6])
def test_sst_21_sealed_fragments_arrive_whole(net, version):
    """As a far host with ``fragments = "try"`` sends them: the first sealed, all flagged."""
    host, peer = (INSIDE, PEER) if version == 4 else (INSIDE6, PEER6)
    payload = bytes(range(256)) * 8
    whole = sealed_datagram(peer, host, (53, 4000), payload)
    there = net.udp(net.inside, host, 4000)
    with running(net.gateway, off()) as gate:
        link = Link(net, net.outside, "out0", net.gateway)
        pieces = fragments(whole, 1000)
        if version == 4:
            pieces = [without_df(p) for p in pieces]
        for identification in (1, 2):
            link.put(*(renumbered(p, identification) for p in pieces))
            came = wait_for(lambda: received(there))
            assert came == payload
        assert len(gate.listener.caught) == 1
        assert gate.listener.caught[0].flagged
        assert gate.listener.faults == []


@pytest.mark.parametrize("version", [4, 6])
def test_sst_21_fragments_that_nobody_puts_together_are_opened_one_by_one(net, version):
    """Others' rules say notrack, so there is no reassembly: the first is rewritten by the maps, the
    later ones lose their flag.  What was opened and has no connection is then dropped, as an answer
    to it would tell its ports; so it is the counters that say so."""
    host, peer = (INSIDE, PEER) if version == 4 else (INSIDE6, PEER6)
    untracked(net, net.gateway)
    capture = net.capture(net.inside, "in0")
    whole = sealed_datagram(peer, host, (53, 4000), bytes(range(256)) * 8)
    with running(net.gateway, off()) as gate:
        Link(net, net.outside, "out0", net.gateway).put(*fragments(whole, 1000))
        wait_for(lambda: gate.counters["opened_untracked_dropped"] == 1)
        counted = gate.counters
        assert counted["opened"] + counted["opened_slowly"] == 1
        assert counted["fragments_opened"] == 2
        later = wait_for(lambda: p if len(p := capture.to(host)) == 2 else None)
        assert not any(SIGNAL.flagged(p) for p in later)
        assert gate.listener.faults == []


def received(there) -> bytes | None:
    return there.socket.recv(65535) if select.select([there.socket], [], [], 0)[0] else None


def without_df(packet: bytes) -> bytes:
    field = struct.unpack_from("!H", packet, 6)[0] & ~0x4000
    return ipv4(packet[12:16], packet[16:20], packet[9], packet[20:], field=field, identification=1)


def renumbered(packet: bytes, identification: int) -> bytes:
    if packet[0] >> 4 == 6:
        return packet[:44] + struct.pack("!I", identification) + packet[48:]
    field = struct.unpack_from("!H", packet, 6)[0]
    return ipv4(
        packet[12:16], packet[16:20], packet[9], packet[20:], field=field,
        identification=identification,
    )  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
def test_garbage_with_a_flag_disturbs_nobody(net, version):
    """Random octets, truncated headers, nested quotes: each is dropped or passed, and counted."""
    rng = random.Random(version)
    host, peer = (INSIDE, PEER) if version == 4 else (INSIDE6, PEER6)
    ends = packed(peer), packed(host)
    here, there = net.udp(net.inside, host, 4000), net.udp(net.outside, peer, 53)
    with running(net.gateway, off()) as gate:
        link = Link(net, net.outside, "out0", net.gateway)
        sent = 0
        for _ in range(300):
            protocol = rng.choice((6, 17, 1, 58, 0, 43, 44, 51, 60, 132, rng.randrange(256)))
            body = rng.randbytes(rng.choice((0, 1, 3, 4, 7, 8, 19, 20, 40, 200)))
            if rng.random() < 0.3:
                inner = sealed_datagram(host, peer, (4000, 53), b"x" * rng.randrange(20))
                body = struct.pack("!BBHI", rng.choice((1, 2, 3, 4, 11)), 0, 0, 0)
                body += inner[: rng.randrange(len(inner) + 1)]
                protocol = 1 if version == 4 else 58
            if version == 4:
                field = 0x8000 | rng.choice((0, 0, 0x2000, 0x4000, rng.getrandbits(13)))
                packet = ipv4(*ends, protocol, body, field=field)
            else:
                packet = ipv6(*ends, protocol, body, traffic_class=SETTINGS.sst.dscp << 2)
            link.put(packet)
            sent += 1
        link.put(sealed_datagram(peer, host, (53, 4000), b"and then a good one"))
        wait_for(lambda: "and then a good one" in here.receive(0.1))
        assert gate.counters["held"] == 0
        assert 0 < gate.counters["open_caught"] <= sent + 1
    assert there

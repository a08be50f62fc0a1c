"""Several opening workers: which of them has which peer, also when peers move.

One gateway is the datapath, the other side is played by the test, from many addresses.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import pytest

from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.filters import worker_of
from oegw.datapath.userspace.offloads import RECEIVING
from tests.oegw.datapath.userspace.test_hostile_pipeline import Sniffer, sealed, socket_in
from tests.support.datapath_inner import UDP, ipv4
from tests.support.datapath_lab import Lab
from tests.support.datapath_rough import Key, Subject, join_arrivals, of_kind, tunnel, wait_for
from tests.support.datapath_sas import A4, B4, GATEWAY_B4
from tests.support.datapath_subject import sa_of

pytestmark = pytest.mark.netns

_UDP_SEGMENT = 103
SEGMENTS = 24


def addresses(workers: int, each: int) -> list[list[str]]:
    """So many for each of the workers, beside the gateway's own."""
    found: list[list[str]] = [[] for _ in range(workers)]
    for number in range(100, 250):
        address = f"192.1.1.{number}"
        mine = found[worker_of(ip_address(address).packed, workers)]
        if len(mine) < each:
            mine.append(address)
    assert all(len(mine) == each for mine in found)
    return found


@contextmanager
def gateway(workers: int, peers: list[str]) -> Iterator[tuple[Lab, Subject]]:
    """B's, and what arrives there is joined as by a card."""
    with Lab() as lab:
        lab.inside(lab.gwa, "ethtool", "-K", "out0", "tx", "off", "gso", "off", "tso", "off")
        join_arrivals(lab, lab.gwb)
        lab.inside(lab.gwb, "ethtool", "-K", "in0", "tx", "off", "gso", "off", "tso", "off")
        lab.inside(lab.bob, "ethtool", "-K", "eth0", "gro", "off")
        for each in peers:
            lab.inside(lab.gwa, "ip", "address", "add", f"{each}/24", "dev", "out0")
        subject = Subject(lab.gwb, {"workers": workers}, "")
        try:
            yield lab, subject
        finally:
            subject.end()


class Flow:
    """Through one SA, numbered packets of one size."""

    def __init__(self, number: int, source: str, udp: bool = True) -> None:
        self.source = source
        self.port = 1000 + number
        [arriving, _] = tunnel(number, udp=udp, source=source)[1]
        self.arriving = arriving
        self.key: Key = ["in", arriving["spi"], arriving["destination"]]
        self._peer = OutboundSa(sa_of(arriving | {"direction": "out"}), os.urandom)
        self.sent = 0

    def packet(self) -> bytes:
        body = struct.pack("!HHHHI", self.port, 9, 408, 0, self.sent) + bytes(396)
        self.sent += 1
        return sealed(self._peer, ipv4(A4, B4, UDP, body), 4)


class Peer:
    """Sends ESP in UDP, or ESP, from whatever address."""

    def __init__(self, lab: Lab) -> None:
        self._namespace = lab.gwa
        self._sockets: dict[tuple[str, bool], socket.socket] = {}

    def send(self, source: str, packets: list[bytes], udp: bool = True) -> None:
        out = self._sockets.get((source, udp))
        if out is None:
            kind = (socket.SOCK_DGRAM, 0) if udp else (socket.SOCK_RAW, 50)
            out = socket_in(self._namespace, socket.AF_INET, *kind)
            out.bind((source, 4500 if udp else 0))
            self._sockets[source, udp] = out
        if not udp:
            for packet in packets:
                out.sendto(packet, (GATEWAY_B4, 0))
            return
        for at in range(0, len(packets), SEGMENTS):
            part = packets[at : at + SEGMENTS]
            size = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", len(part[0])))]
            out.sendmsg(part, size if len(part) > 1 else [], 0, (GATEWAY_B4, 4500))

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()


def arrived(sniffer: Sniffer) -> dict[int, list[int]]:
    """The numbers of each flow, in the order in which Bob got them."""
    found: dict[int, list[int]] = {}
    for packet in sniffer.packets():
        if packet[0] == 0x45 and packet[9] == UDP:
            port, number = struct.unpack_from("!H6xI", packet, 20)
            found.setdefault(port, []).append(number)
    return found


def opened(subject: Subject, workers: int) -> list[int]:
    """How many packets each opening worker carried."""
    pages: list[dict[str, int]] = subject.ask("counters-of-workers")
    return [page.get("esp_in_packets", 0) for page in pages[workers:]]


@pytest.mark.parametrize("workers", [2, 3])
def test_each_peer_has_its_worker_and_its_order(workers: int) -> None:
    """Also where one super-datagram has packets of several SAs."""
    peers = addresses(workers, 2)
    everybody = [address for mine in peers for address in mine]
    with gateway(workers, everybody) as (lab, gwb):
        said = {name: on for name, on, _ in gwb.capability["offloads"]}
        assert said[RECEIVING]
        flows = [Flow(number, source) for number, source in enumerate(everybody * 2)]
        gwb.ask("install", [flow.arriving for flow in flows])
        sniffer, peer = Sniffer(lab.bob, "eth0"), Peer(lab)
        rounds = 8
        for _ in range(rounds):
            for source in everybody:
                mine = [flow for flow in flows if flow.source == source]
                peer.send(source, [mine[turn % 2].packet() for turn in range(2 * SEGMENTS)])
            time.sleep(0.01)  # whether a flood is lost is not the question here
        total = sum(flow.sent for flow in flows)
        wait_for(lambda: gwb.counters()["esp_in_packets"] == total)
        counters = gwb.counters()
        assert opened(gwb, workers) == [total // workers] * workers
        assert not [name for name in counters if name.startswith("drop_in_")], counters
        got = arrived(sniffer)
        for flow in flows:
            assert got[flow.port] == list(range(flow.sent))
        sniffer.close()
        peer.close()


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "esp"])
@pytest.mark.parametrize("workers", [2, 3])
def test_a_peer_that_moves_takes_its_sa_along(workers: int, udp: bool) -> None:
    """In order, with its replay window; what comes before `move` is carried too."""
    places = [mine[0] for mine in addresses(workers, 1)]
    with gateway(workers, places) as (lab, gwb):
        flow = Flow(0, places[0], udp)
        gwb.ask("install", [flow.arriving])
        sniffer, peer = Sniffer(lab.bob, "eth0"), Peer(lab)
        first = flow.packet()
        peer.send(places[0], [first], udp)
        wait_for(lambda: gwb.counters()["esp_in_packets"] == 1)
        expected = [1, *[0] * (workers - 1)]
        moves = 6
        for move in range(1, moves + 1):
            there = places[move % workers]

            def send(count: int, source: str = there) -> None:
                peer.send(source, [flow.packet() for _ in range(count)], udp)

            send(40)  # the SA is still elsewhere
            wait_for(lambda: gwb.counters()["esp_in_packets"] == flow.sent)
            expected[(move - 1) % workers] += 40
            assert opened(gwb, workers) == expected
            ports = [4500, 4500] if udp else None
            asked = gwb.begin("move", [flow.key, there, GATEWAY_B4, ports])
            for _ in range(20):  # while it goes over
                send(20)
                time.sleep(0.001)
            assert gwb.answer(asked) == flow.key
            before = opened(gwb, workers)[move % workers]
            send(40)
            wait_for(lambda: gwb.counters()["esp_in_packets"] == flow.sent)
            expected = opened(gwb, workers)
            assert expected[move % workers] >= before + 40
            assert sum(expected) == flow.sent
        peer.send(places[moves % workers], [first], udp)
        wait_for(lambda: gwb.counters()["drop_in_replay"] == 1)
        counters = gwb.counters()
        dropped = {name for name in counters if name.startswith("drop_in_")}
        assert dropped == {"drop_in_replay"}, counters
        assert arrived(sniffer) == {flow.port: list(range(flow.sent))}
        assert not gwb.heard("UnknownSpiReceived")
        # Each move is reported once at most, and at most one in a second; plain ESP moves nobody.
        assert bool(gwb.heard("PeerAddressChanged")) is udp
        sniffer.close()
        peer.close()


def test_requests_during_a_move_and_workers_that_die_meanwhile() -> None:
    """At the end each SA is in one place, and carries."""
    workers = 3
    places = [mine[0] for mine in addresses(workers, 1)]
    with gateway(workers, places) as (lab, gwb):
        flows = [Flow(number, places[0]) for number in range(12)]
        gwb.ask("install", [flow.arriving for flow in flows])
        asked = []
        for turn in range(1, 5):
            for flow in flows:
                there = places[turn % workers]
                asked.append(gwb.begin("move", [flow.key, there, GATEWAY_B4, [4500, 4500]]))
            victims: list[int] = []
            while not victims:
                victims = of_kind(gwb, "opening")
            with suppress(ProcessLookupError):  # who keeps dying may be gone again
                os.kill(victims[turn % len(victims)], signal.SIGKILL)
        gone = gwb.begin("remove", [flow.key for flow in flows[::2]])
        for each in asked:
            assert gwb.answer(each)[0] == "in"
        assert gwb.answer(gone) == [0] * 6
        assert len(gwb.ask("usage")) == 6
        gwb.ask("install", [flow.arriving for flow in flows[::2]])
        peer = Peer(lab)
        for flow in flows:
            for place in places:
                peer.send(place, [flow.packet() for _ in range(5)])
        total = sum(flow.sent for flow in flows)
        wait_for(lambda: gwb.counters()["esp_in_packets"] == total)
        usage = Counter({row[1]: row[3] for row in gwb.ask("usage")})
        assert usage == Counter({flow.key[1]: flow.sent for flow in flows})
        assert not gwb.heard("DatapathFailed")
        peer.close()


def test_spis_that_nobody_has_are_counted_once() -> None:
    workers = 3
    places = [mine[0] for mine in addresses(workers, 1)]
    with gateway(workers, places) as (lab, gwb):
        flow = Flow(0, places[0])
        gwb.ask("install", [flow.arriving])
        peer = Peer(lab)
        for place in places:
            for _ in range(5):
                peer.send(place, [struct.pack("!II", 0x99999, 1) + bytes(392)] * 40)
                time.sleep(0.005)
        total = 5 * 40 * workers
        wait_for(lambda: gwb.counters()["drop_in_unknown_spi"] >= total)
        pages = gwb.ask("counters-of-workers")[workers:]
        assert [page["drop_in_unknown_spi"] for page in pages] == [200] * workers
        assert gwb.counters()["drop_in_unknown_spi"] == total
        assert gwb.counters()["drop_in_stray"] == 0
        peer.close()

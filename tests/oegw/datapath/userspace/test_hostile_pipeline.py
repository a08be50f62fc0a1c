"""What goes in at one end comes out at the other, octet by octet, though it was cut, sealed, opened
and joined in between: real workers, between a peer and hosts that send what no host should.

One gateway is the datapath, the other side is played by the test with the same keys.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest

from oegw.datapath.userspace.esp import ESP_HEADER, InboundSa, OutboundSa
from oegw.datapath.userspace.transform import AuthenticationError
from tests.support.amount import amount
from tests.support.datapath_inner import as_forwarded, flows, rubbish
from tests.support.datapath_lab import Lab
from tests.support.datapath_rough import Subject, join_arrivals, tunnel, wait_for
from tests.support.datapath_sas import A4, A6, B4, B6, GATEWAY_A4, GATEWAY_B4
from tests.support.datapath_subject import sa_of

pytestmark = pytest.mark.netns

_CLONE_NEWNET = 0x40000000
_EVERYTHING = socket.htons(3)
_IGNORE_OUTGOING = 23
_UDP_SEGMENT = 103
SEGMENTS = 40
AT_ONCE = 200  # packets that are under way, for which each socket has room

SETTINGS: list[dict[str, Any]] = [
    {},
    {"workers": 2},
    {"core": "python"},
    {"offloads": False},
    {"workers": 2, "core": "python"},
][: amount(5, 3)]


def socket_in(namespace: str, *arguments: int) -> socket.socket:
    """A socket of another network namespace."""
    made: list[socket.socket] = []

    def body() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}", "rb") as file:  # noqa: PTH123
            assert libc.setns(file.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        made.append(socket.socket(*arguments))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return made[0]


class Sniffer:
    """Frames that arrive at an interface, in their order."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_DGRAM, _EVERYTHING)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        self._socket.setsockopt(263, _IGNORE_OUTGOING, 1)
        self._socket.bind((interface, 3))
        self._socket.setblocking(False)

    def packets(self) -> Iterator[bytes]:
        """Those so far that came from Alice or Bob."""
        while select.select([self._socket], [], [], 0.05)[0]:
            octets = self._socket.recv(1 << 17)
            ends = octets[12:20] if octets[0] >> 4 == 4 else octets[8:40]
            if any(_packed(each) in ends for each in (A4, A6)):
                yield octets

    def close(self) -> None:
        self._socket.close()


def _packed(address: str) -> bytes:
    family = socket.AF_INET if "." in address else socket.AF_INET6
    return socket.inet_pton(family, address)


@contextmanager
def one_gateway(side: str, settings: dict[str, Any]) -> Iterator[tuple[Lab, Subject]]:
    with Lab() as lab:
        namespace = {"a": lab.gwa, "b": lab.gwb}[side]
        if settings.get("workers", 1) > 1:
            # As a card does it, which knows no SAs: one super-datagram has packets of several.
            lab.inside(lab.gwa, "ethtool", "-K", "out0", "tx", "off", "gso", "off", "tso", "off")
            join_arrivals(lab, lab.gwb)
        # Inside, a wire would show each packet for itself; outside, super-packets stay whole.
        lab.inside(namespace, "ethtool", "-K", "in0", "tx", "off", "gso", "off", "tso", "off")
        for host in (lab.alice, lab.bob):
            lab.inside(host, "ethtool", "-K", "eth0", "gro", "off")
        subject = Subject(namespace, settings, "")
        try:
            for number, inner in ((0, 4), (1, 6)):
                subject.ask("install", tunnel(number, 4, inner)[side == "b"])
            yield lab, subject
        finally:
            subject.end()


def sealed(sa: OutboundSa, plain: bytes, next_header: int) -> bytes:
    """An ESP packet with whatever a peer may put into it."""
    number = sa.take(1, len(plain), 1.0)
    assert number is not None
    count = -(len(plain) + 2) % sa.transform.block
    padded = plain + bytes(range(1, count + 1)) + bytes((count, next_header))
    return sa.transform.seal(struct.pack("!II", sa.sa.spi, number), b"", padded)


def send_all(out: socket.socket, packets: Iterable[bytes], to: Subject) -> int:
    """To B's gateway, as runs of equal packets of one SA where there are some (UDP_SEGMENT); not
    faster than it takes them: whether a flood is lost is not the question here."""
    count = taken = 0
    for (size, _), group in groupby(packets, lambda packet: (len(packet), packet[:4])):
        run = list(group)
        count += len(run)
        for first in range(0, len(run), SEGMENTS):
            part = run[first : first + SEGMENTS]
            ancillary = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
            out.sendmsg(part, ancillary if len(part) > 1 else [], 0, (GATEWAY_B4, 4500))
        if count - taken >= AT_ONCE:
            wait_for(lambda count=count: _arrived(to.counters()) >= count)
            taken = count
    return count


def by_flow(packets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Per addresses, protocol and ports: what a flow is, in the order of its packets."""
    found: dict[bytes, list[bytes]] = {}
    for packet in packets:
        if packet[0] >> 4 == 6:
            key = packet[6:7] + packet[8:40] + packet[40:44]
        elif packet[6] & 0x3F or packet[7]:
            continue  # a fragment has no ports
        else:
            upper = (packet[0] & 15) * 4
            key = packet[9:10] + packet[12:20] + packet[upper : upper + 4]
        found.setdefault(key, []).append(packet)
    return found


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_a_peer_sent_is_what_the_host_gets(settings: dict[str, Any]) -> None:
    """Flows that are nearly bulk, rubbish between them: the first arrive as they were, wrong
    checksums and all; of the rest nothing that the selectors do not allow; no worker dies."""
    count = amount(30_000, 2_500)
    with one_gateway("b", settings) as (lab, gwb):
        workers = gwb.workers()
        peers = {
            4: OutboundSa(sa_of(tunnel(0)[0][0]), os.urandom),
            6: OutboundSa(sa_of(tunnel(1, inner=6)[0][0]), os.urandom),
        }
        good = list(flows([(A4, B4), (A6, B6)], 21, count))
        bad = list(rubbish(22, count // 2, [(A4, B4), (A6, B6)]))

        def on_the_way() -> Iterator[bytes]:
            rest = iter(bad)
            for number, packet in enumerate(good):
                version = packet[0] >> 4
                yield sealed(peers[version], packet, 4 if version == 4 else 41)
                if number % 40 == 39:  # in one piece, or no flow would be bulk for long
                    for _ in range(20):
                        yield sealed(peers[4], next(rest), (4, 41, 59, 6, 17, 0)[number % 6])

        sniffer = Sniffer(lab.bob, "eth0")
        out = socket_in(lab.gwa, socket.AF_INET, socket.SOCK_DGRAM)
        out.bind((GATEWAY_A4, 4500))
        total = send_all(out, on_the_way(), gwb)
        wait_for(lambda: _arrived(gwb.counters()) >= total)
        counters = gwb.counters()
        print(total, counters)
        assert gwb.workers() == workers, "a worker died of what it got"
        assert gwb.events == []
        assert _arrived(counters) == total
        assert counters["drop_in_invalid"] == counters["drop_in_replay"] == 0
        got = [as_forwarded(packet) for packet in sniffer.packets()]
        sniffer.close()
        out.close()
    sent = [as_forwarded(packet) for packet in good]
    missing = Counter(sent) - Counter(got)
    assert not missing, f"{missing.total()} of {len(sent)} did not arrive as they were sent"
    allowed = Counter(as_forwarded(packet) for packet in bad if len(packet) >= 20)
    for packet in Counter(got) - Counter(sent):
        assert _among(packet, allowed), f"nobody sent this: {packet.hex()}"
    ours = set(sent)
    arrived = by_flow(packet for packet in got if packet in ours)
    for key, packets in by_flow(sent).items():
        assert arrived[key] == packets, "a flow was reordered"


def _arrived(counters: Counter[str]) -> int:
    dropped = sum(count for name, count in counters.items() if name.startswith("drop_in_"))
    return counters["esp_in_packets"] + dropped


def _among(packet: bytes, allowed: Counter[bytes]) -> bool:
    """Whether one of ``allowed`` is that packet, perhaps with octets behind its end (RFC 4303
    section 2.7: the datapath cuts them off)."""
    return any(each[: len(packet)] == packet for each in allowed)


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_a_host_sent_is_what_the_peer_gets(settings: dict[str, Any]) -> None:
    """The same the other way: what the kernel hands the tunnel device, whatever it is."""
    count = amount(30_000, 2_500)
    with one_gateway("b", settings) as (lab, gwb):
        workers = gwb.workers()
        peers = {
            0x20000: InboundSa(sa_of(tunnel(0)[0][1]), os.urandom),
            0x20001: InboundSa(sa_of(tunnel(1, inner=6)[0][1]), os.urandom),
        }
        into = socket_in(lab.gwa, socket.AF_INET, socket.SOCK_DGRAM)
        into.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        into.bind((GATEWAY_A4, 4500))
        into.setblocking(False)
        host = socket_in(lab.bob, socket.AF_PACKET, socket.SOCK_RAW, _EVERYTHING)
        host.bind(("eth0", 0))
        link = _link_layer(lab)
        good = list(flows([(B4, A4), (B6, A6)], 23, count))
        got: list[bytes] = []
        numbers: dict[int, list[int]] = {spi: [] for spi in peers}

        def take() -> None:
            while True:
                try:
                    octets = into.recv(65536)
                except BlockingIOError:
                    return
                spi, low = struct.unpack_from("!II", octets)
                if spi not in peers:
                    continue
                numbers[spi].append(low)
                try:
                    got.append(peers[spi].open(octets, low)[1])
                except AuthenticationError as error:
                    raise AssertionError("what it sealed cannot be opened") from error

        for number, packet in enumerate(good):
            ethertype = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
            host.send(link + ethertype + packet)
            if number % AT_ONCE == 0 or number + 1 == len(good):
                wait_for(lambda number=number: (take(), len(got) > number)[1])
        counters = gwb.counters()
        print(counters)
        assert gwb.workers() == workers
        assert counters["esp_out_packets"] == len(got)
        for each in (into, host):
            each.close()
    for spi, seen in numbers.items():
        assert sorted(seen) == list(range(1, len(seen) + 1)), f"numbers of SPI {spi:#x}"
        assert seen == sorted(seen) or settings.get("workers", 1) > 1
    sent = [as_forwarded(packet) for packet in good]
    opened = [as_forwarded(packet) for packet in got]
    assert Counter(opened) == Counter(sent)
    arrived = by_flow(opened)
    for key, packets in by_flow(sent).items():
        assert arrived[key] == packets, "a flow was reordered"


def _link_layer(lab: Lab) -> bytes:
    """Destination and source of frames from Bob to his gateway."""
    addresses = []
    for namespace, device in ((lab.gwb, "in0"), (lab.bob, "eth0")):
        [shown] = json.loads(lab.inside(namespace, "ip", "-j", "link", "show", "dev", device))
        addresses.append(bytes.fromhex(shown["address"].replace(":", "")))
    return b"".join(addresses)


def test_esp_that_is_none() -> None:
    """Unauthenticated noise, of every length, alone and in super-datagrams: it is counted."""
    with one_gateway("b", {}) as (lab, gwb):
        workers = gwb.workers()
        out = socket_in(lab.gwa, socket.AF_INET, socket.SOCK_DGRAM)
        out.bind((GATEWAY_A4, 4500))
        spis = (0x10000, 0x10001, 0x99999, 1)
        noise = [
            struct.pack("!II", spis[number % 4], number)[:ESP_HEADER]
            + os.urandom((number * 7) % 1300)
            for number in range(amount(20_000, 1_500))
        ]
        noise += [packet[:cut] for packet in noise[:200] for cut in (1, 4, 7, 8, 23)]
        noise += [noise[5]] * 200  # one super-datagram of the same
        total = send_all(
            out, (packet for packet in noise if packet != b"\xff" and packet[:4] != bytes(4)), gwb
        )
        wait_for(lambda: _arrived(gwb.counters()) >= total)
        counters = gwb.counters()
        print(total, counters)
        assert counters["esp_in_packets"] == 0
        assert _arrived(counters) == total
        assert gwb.workers() == workers
        assert len(gwb.heard("UnknownSpiReceived")) < 10
        out.close()
